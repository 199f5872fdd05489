"""RELEASE-ON-PASS: the gate is shut, and opens only for a part that has a valid pass. Silence holds the part.

    python release_on_pass.py BROKER PORT LINE CAMERA TRAVEL_S SPACING_S

A worked example to copy; it needs paho-mqtt alone. Each line on standard input stands for the light barrier at the
camera: one part. Each line of output says what the gate did with a part, and why.
TRAVEL_S: time of a part from the camera to the gate. The camera's deadline_ms must be shorter.
SPACING_S: shortest time between two parts. The clocks of both machines must agree within half of it.
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
    due: float  # at the gate, by the monotonic clock, which nobody sets
    action: str = ""  # what the verdict says
    why: str = "no verdict in time"


class Gateway:
    """Ties verdicts to parts and drives the gate. Callbacks only fill the inbox; `run` does the rest."""

    def __init__(self, broker: str, port: int, line: str, camera: str, travel_s: float, spacing_s: float) -> None:
        self.root, self.camera, self.travel_s, self.tolerance_s = f"rejectd/v1/{line}", camera, travel_s, spacing_s / 2
        self.inbox: queue.Queue[tuple[str, float, float, dict[str, Any]]] = queue.Queue(10_000)
        self.parts: dict[int, Part] = {}  # by our own number: 1, 2, 3, ...
        self.seen_verdicts: deque[str] = deque(maxlen=1000)  # event_id of verdicts: each may come twice
        self.counted, self.offset, self.held = 0, 0, 0  # the number of a part is its trigger number + offset
        self.heard, self.state = NEVER, ""
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
        if not message.retain:  # a retained status tells how the line was, not that it lives
            self.put("verdict" if "/verdict/" in message.topic else "status", json.loads(message.payload))

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
                self.client.subscribe([(f"{self.root}/status", 1), (f"{self.root}/{self.camera}/verdict/+", 1)])
                self.publish_count()
            elif what == "disconnected":
                self.heard = NEVER
            elif what == "status":
                self.heard = now if body["state"] == "online" and body["judging"] else NEVER
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
        if number not in near or wall > datetime.fromisoformat(verdict["valid_until"]).timestamp():
            say(ignored=verdict["event_id"], why="late, or it fits no part")
        elif self.parts[number].action:
            self.parts[number].action, self.parts[number].why = "reject", "two verdicts"
        else:
            self.parts[number].action, self.parts[number].why = verdict["action"], verdict["decision"]

    def drive(self, now: float) -> None:
        """One cycle: what is due at the gate passes it or not."""
        state = "running" if now - self.heard < HEARTBEAT_S else "fail-safe"
        if state != self.state:
            self.state = state
            say(state=state)
        for number in [number for number, part in self.parts.items() if part.due <= now]:
            part = self.parts.pop(number)
            do = {"pass": "release", "stop": "stop"}.get(part.action, "hold") if state == "running" else "hold"
            say(part=number, do=do, why=part.why if state == "running" else state)  # and here: move the gate, or stop
            if do != "release":
                self.held += 1
                self.publish_count()

    def publish_count(self) -> None:  # retained, so that the last one is never lost; `rejectd account` compares it
        topic = f"{self.root}/actuator/{self.camera}/rejected"
        self.client.publish(topic, json.dumps({"count": self.held}), qos=1, retain=True)

    def light_barrier(self) -> None:
        for _ in sys.stdin:
            self.put("part")


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    gateway = Gateway(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5]), float(sys.argv[6]))
    threading.Thread(target=gateway.light_barrier, daemon=True).start()
    gateway.run()  # if it fails the program ends; the gate must be shut then, by a spring
