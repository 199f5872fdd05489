"""REJECT-ON-SIGNAL: the ejector rests, and fires for a part that has a reject. Silence lets the part pass.

    python reject_on_signal.py BROKER PORT LINE CAMERA TRAVEL_S SPACING_S

A worked example to copy; it needs paho-mqtt alone. Each line on standard input stands for the light barrier at the
camera: one part. Each line of output says what the ejector did with a part, and why.
TRAVEL_S: time of a part from the camera to the ejector. The camera's deadline_ms must be shorter.
SPACING_S: shortest time between two parts. The clocks of both machines must agree within half of it.

Since silence passes, this one must know at every instant that line and camera are well. Until it learns that they are
not, at most HEARTBEAT_S, parts pass uninspected; none if TRAVEL_S is longer. What is on the way then is ejected.
"""

import json
import queue
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

HEARTBEAT_S = 3.0  # the line says once a second that it judges
NEVER = float("-inf")


@dataclass
class Part:
    seen: float  # at the light barrier, by the wall clock
    due: float  # at the ejector, by the monotonic clock, which nobody sets
    action: str = "pass"
    why: str = "no reject"


class Gateway:
    """Ties verdicts to parts and drives the ejector. Callbacks only fill the inbox; `run` does the rest."""

    def __init__(self, broker: str, port: int, line: str, camera: str, travel_s: float, spacing_s: float) -> None:
        self.root, self.camera, self.travel_s, self.tolerance_s = f"rejectd/v1/{line}", camera, travel_s, spacing_s / 2
        self.inbox: queue.Queue[tuple[str, float, float, dict[str, Any]]] = queue.Queue(10_000)
        self.parts: dict[int, Part] = {}  # by our own number: 1, 2, 3, ...
        self.seen_verdicts: deque[str] = deque(maxlen=1000)  # event_id of verdicts: each may come twice
        self.counted, self.offset, self.ejected = 0, 0, 0  # the number of a part is its trigger number + offset
        self.heard, self.run_id, self.camera_up, self.state = NEVER, "", False, ""
        self.unpublished = 0  # verdicts of this run that nobody was told of
        self.client = Client(CallbackAPIVersion.VERSION2, f"gate-{line}-{camera}", protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_connect = lambda *_: self.put("connected")
        self.client.on_disconnect = lambda *_: self.put("disconnected")
        self.client.on_message = self.message
        self.client.reconnect_delay_set(1, 2)
        self.client.connect_async(broker, port, keepalive=2, clean_start=True)  # nothing is kept while we are away
        self.client.loop_start()

    def put(self, what: str, body: dict[str, Any] | None = None) -> None:
        self.inbox.put((what, time.time(), time.monotonic(), body or {}))

    def message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        what = "run" if message.retain else "line"  # a retained status tells which run it was, not that it lives
        if message.topic != f"{self.root}/status":
            what = "verdict" if "/verdict/" in message.topic else "camera"
        self.put(what, json.loads(message.payload))

    def run(self) -> None:
        while True:
            try:
                what, wall, now, body = self.inbox.get(timeout=0.01)
            except queue.Empty:
                what = ""
            if what == "part":
                self.counted += 1
                self.parts[self.counted] = Part(seen=wall, due=now + self.travel_s)
            elif what == "connected":
                own = f"{self.root}/{self.camera}"
                topics = (f"{self.root}/status", f"{own}/status", f"{own}/verdict/reject", f"{own}/verdict/unjudged")
                self.client.subscribe([(topic, 1) for topic in topics])
                self.publish_count()
            elif what == "disconnected":
                self.heard = NEVER
            elif what in ("line", "run"):
                self.camera_up = self.camera_up and body["run"] == self.run_id  # a new run says anew that it is up
                unpublished = body.get("unpublished", 0)  # a last will has no counts
                if unpublished > (self.unpublished if body["run"] == self.run_id else 0):
                    self.eject_all("a verdict came too late to be sent")
                self.run_id, self.unpublished = body["run"], unpublished
                self.heard = now if what == "line" and body["state"] == "online" and body["judging"] else NEVER
            elif what == "camera":
                self.camera_up = body["state"] in ("up", "degraded")  # degraded: each part is unjudged, but seen
            elif what == "verdict" and body["event_id"] not in self.seen_verdicts:
                self.seen_verdicts.append(body["event_id"])
                self.take(body, wall)
            self.drive(time.monotonic())

    def take(self, verdict: dict[str, Any], wall: float) -> None:
        """Note a verdict with its part: the number counts, and the exposure must fit the time at the light barrier."""
        exposed = datetime.fromisoformat(verdict["captured_at"]).timestamp()
        near = [number for number, part in self.parts.items() if abs(part.seen - exposed) < self.tolerance_s]
        if len(near) == 1 and abs(wall - exposed - verdict["latency_ms"] / 1000) < self.tolerance_s:
            # It came at once, so both clocks are right: numbers begin again with each run, or skip a part not seen.
            self.offset = near[0] - verdict["trigger"]
        number = verdict["trigger"] + self.offset
        if wall > datetime.fromisoformat(verdict["valid_until"]).timestamp():
            say(ignored=verdict["event_id"], why="late")
        elif verdict["action"] != "pass":  # one that fits no part ejects whatever is on the way
            for part in [self.parts[number]] if number in near else list(self.parts.values()):
                part.action, part.why = verdict["action"], verdict["decision"]

    def eject_all(self, why: str) -> None:
        """What is on the way now is ejected: one of these parts may be a bad one."""
        for part in self.parts.values():
            if part.action == "pass":
                part.action, part.why = "reject", why

    def drive(self, now: float) -> None:
        """One cycle: what is due at the ejector is let pass or not."""
        state = "running" if now - self.heard < HEARTBEAT_S and self.camera_up else "fail-safe"
        if state != self.state:
            self.state = state
            say(state=state)
        if state == "fail-safe":
            self.eject_all(state)  # also if all is well again when they arrive
        for number, part in list(self.parts.items()):
            if part.due <= now:
                del self.parts[number]
                do = {"pass": "pass", "stop": "stop"}.get(part.action, "eject")
                say(part=number, do=do, why=part.why)  # and here: fire the ejector, or stop the belt
                if do != "pass":
                    self.ejected += 1
                    self.publish_count()

    def publish_count(self) -> None:  # retained, so that the last one is never lost; `rejectd account` compares it
        topic = f"{self.root}/actuator/{self.camera}/rejected"
        self.client.publish(topic, json.dumps({"count": self.ejected}), qos=1, retain=True)

    def light_barrier(self) -> None:
        for _ in sys.stdin:
            self.put("part")


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    gateway = Gateway(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5]), float(sys.argv[6]))
    threading.Thread(target=gateway.light_barrier, daemon=True).start()
    gateway.run()  # if it fails the program ends; a watchdog relay must stop the belt then
