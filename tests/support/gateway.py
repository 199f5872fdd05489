"""The worked gateways of config/mqtt as processes with the belt before them, and others at the broker."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import contract
from line import LINE
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from peers import Mosquitto, wait_for

from rejectd.contract.messages import Account, CameraState, CameraStatus, Decision, Policy, Result, Verdict
from rejectd.contract.payloads import (
    LineStatus,
    camera_payload,
    camera_topic,
    encode,
    line_payload,
    line_topic,
    verdict_payload,
    verdict_topic,
)

RELEASE, REJECT = "release_on_pass", "reject_on_signal"
LETS_GO = {RELEASE: "release", REJECT: "pass"}  # what each of them does with a part that goes on
STOPS = {RELEASE: "hold", REJECT: "eject"}
TRAVEL_S, SPACING_S = 1.8, 0.3


class Gateway:
    """One of the scripts as a process, and the belt before it: each part passes the light barrier and the camera."""

    def __init__(
        self,
        script: str,
        broker: Mosquitto,
        folder: Path,
        travel_s: float = TRAVEL_S,
        *,
        camera: str = "left",
        spacing_s: float = SPACING_S,
    ) -> None:
        self.script = script
        self.said: list[tuple[float, dict[str, Any]]] = []  # (heard, what)
        self.fed = 0
        self.fed_at: dict[int, float] = {}
        self._folder = folder
        where = ["127.0.0.1", str(broker.port), LINE, camera, str(travel_s), str(spacing_s)]
        self.process = subprocess.Popen(
            [sys.executable, str(contract.MQTT / f"{script}.py"), *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for row in self.process.stdout:
            self.said.append((time.monotonic(), json.loads(row)))

    def part(self) -> int:
        """A part at the light barrier alone; its number."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.fed += 1
        self.fed_at[self.fed] = time.time()
        return self.fed

    def feed(self, pictures: list[Path]) -> None:
        """Parts at the light barrier and, in the same instant, before the camera; the file's name is the number."""
        for picture in pictures:
            staged = self._folder.parent / picture.name
            shutil.copy(picture, staged)
            staged.rename(self._folder / f"{self.part():04}.png")
            time.sleep(SPACING_S)  # the belt

    def done(self) -> dict[int, dict[str, Any]]:
        """What was done with each part; each of them once, in their order."""
        lines = [line for _, line in list(self.said) if "part" in line]
        assert [line["part"] for line in lines] == list(range(1, len(lines) + 1))
        return {line["part"]: line for line in lines}

    def wait_done(self) -> dict[int, dict[str, Any]]:
        wait_for(lambda: len(self.done()) == self.fed, "every part has arrived", TRAVEL_S + 5)
        return self.done()

    def wait_state(self, state: str, timeout_s: float = 20) -> float:
        """Wait until the gateway is in a state; when it said so."""
        wait_for(lambda: self.state()[1] == state, f"the gateway is {state}", timeout_s)
        return self.state()[0]

    def state(self) -> tuple[float, str]:
        """When it said its state, and which."""
        return next(((at, line["state"]) for at, line in reversed(self.said) if "state" in line), (0.0, ""))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
        self._reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


class Said:
    """A line that says what a test wants: what the real one says only when it must."""

    def __init__(self, broker: Mosquitto) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def publish(self, topic: str, payload: dict[str, Any], *, retain: bool = False) -> None:
        body = encode(payload)
        contract.validate(topic, body)
        self._client.publish(topic, body, 1, retain).wait_for_publish(5)

    def judges(self, *, judging: bool = True, retain: bool = False, run: str = "run1", unpublished: int = 0) -> None:
        account = Account(captured=0, passed=0, rejected=0, unjudged=0, in_flight=0)
        status = LineStatus(
            run=run,
            version="1",
            account=account,
            parts=None,
            unpublished=unpublished,
            judging=judging,
            problems=[],
            products={},
            paused=[],
        )
        self.publish(line_topic(LINE), line_payload(LINE, "online", status, time.time_ns()), retain=retain)

    def camera(self, state: CameraState) -> None:
        status = CameraStatus(camera="left", state=state, reason="it is lost", since_unix_ns=time.time_ns())
        self.publish(camera_topic(LINE, "left"), camera_payload(LINE, status), retain=True)

    def verdict(
        self, decision: Decision, trigger: int, event: str = "", *, exposed: datetime | None = None, **changed: Any
    ) -> None:
        """A verdict on the part that is at the light barrier now, or that was exposed at another time."""
        exposed = exposed or datetime.now(UTC)
        judged = Result(
            score=2.0 if decision is Decision.REJECT else 0.5, threshold=1.0, p_value=0.1, bundle="b", engine="e"
        )
        verdict = Verdict(
            event_id=event or f"run-left-{trigger}", camera="left", product="cell", seq=trigger, trigger=trigger,
            captured_ns=0, captured_unix_ns=int(exposed.timestamp() * 1e9), deadline_ns=10**9, decided_ns=10**6,
            decision=decision, policy=Policy.STOP, result=judged,
        )  # fmt: skip
        self.publish(verdict_topic(LINE, "left", decision), verdict_payload(LINE, verdict) | changed)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Peer:
    """Somebody with a name at a broker with an access list, who subscribes to everything."""

    def __init__(self, broker: Mosquitto, user: str) -> None:
        self.heard: set[str] = set()
        self._reasons: queue.Queue[ReasonCode] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, user, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.username_pw_set(user, user)
        self._client.on_connect = lambda client, *_: client.subscribe("rejectd/#", qos=1)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.heard.add(message.topic)
        self._client.on_publish = lambda _client, _data, _mid, reason, _properties: self._reasons.put(reason)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert subscribed.wait(10)

    def may_write(self, topic: str) -> bool:
        self._client.publish(topic, b"{}", 1)
        return not self._reasons.get(timeout=5).is_failure

    def wait_heard(self, topics: set[str]) -> None:
        wait_for(lambda: self.heard >= topics, f"messages on {topics}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
