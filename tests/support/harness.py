"""Chaos: a line at work whose service and broker are killed at random instants, and an independent count of it all."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from line import ROOT
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from peers import Mosquitto, wait_for
from reckoning import Collected, Received, Span, missing_numbers, read_journal
from stand_in_line import Device, StandInLine

_TICK_S = 0.01
_START_S = 90.0
_LABELS = itertools.count(1)  # of feeders, so that no name comes twice
_SAFE = "autosave_interval 1\nautosave_on_changes true\n"


DEVICE = Device(base_ms=60, per_frame_ms=5)  # slow enough for some frames to be in flight when the service is killed


class Broker(Mosquitto):
    """Mosquitto that keeps what it was given when it is killed, or forgets it, as by default.

    To keep it, it writes its whole store again and again, and answers nobody meanwhile: not for measuring time.
    """

    def __init__(self, directory: Path, *, safe: bool) -> None:
        directory.mkdir(parents=True)
        self._safe = safe
        super().__init__(directory)

    def start(self) -> None:
        text = self._config.read_text().replace(_SAFE, "")
        self._config.write_text(text + (_SAFE if self._safe else ""))
        super().start()

    def keep(self, *, safe: bool) -> None:
        """From the next start on."""
        self._safe = safe


class Listener:
    """A consumer as the documents want it: a persistent session, and a replay where the numbers of events have a gap.

    It shares no code with the service. Bodies are taken as they come and read later, so that it does not hold up the
    messages that it times.
    """

    def __init__(self, port: int) -> None:
        self.subscribed: list[Span] = []
        self.replays = 0
        self._raw: list[tuple[float, float, str, bytes]] = []
        self._read: list[Received] = []
        self._reading = threading.Lock()
        self._requests: deque[dict[str, int]] = deque()
        self._connected_at = 0.0
        self._away_until = 0.0
        self._stop = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, f"listener-{os.getpid()}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self.subscribed.append(Span(time.time(), float("inf")))
        self._client.on_disconnect = self._lost
        self._client.on_message = self._take
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, keepalive=5, clean_start=False, properties=session)
        self._thread = threading.Thread(target=self._live, name="listener")
        self._thread.start()
        wait_for(lambda: self.subscribed, "the listener has subscribed")

    def _live(self) -> None:
        while not self._stop.is_set():
            while self._client.loop(0.1) == MQTTErrorCode.MQTT_ERR_SUCCESS and not self._stop.is_set():
                if self._requests:
                    self._request(self._requests.popleft())
                if time.monotonic() < self._away_until:
                    self._client.disconnect()
            self._lost()
            self._stop.wait(max(0.1, self._away_until - time.monotonic()))
            with contextlib.suppress(OSError):
                self._client.reconnect()
        self._client.disconnect()

    def _connected(self, client: Client, *_: object) -> None:
        self._connected_at = time.time()
        client.subscribe(f"{ROOT}/#", qos=1)  # again, since a killed broker may have forgotten the session

    def _lost(self, *_: object) -> None:
        if self.subscribed:
            self.subscribed[-1].until = min(self.subscribed[-1].until, time.time())

    def _take(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._raw.append((time.time(), self._connected_at, message.topic, message.payload))

    def _request(self, bounds: Mapping[str, int]) -> None:
        answer = Properties(PacketTypes.PUBLISH)
        answer.ResponseTopic = f"{ROOT}/answer/listener"
        self._client.publish(f"{ROOT}/command/replay", json.dumps(bounds), 1, properties=answer)

    def of(self, ending: str) -> list[Received]:
        """The messages so far on topics that end so, or have this level before the last."""
        with self._reading:
            for at, connected_at, topic, payload in self._raw[len(self._read) :]:
                self._read.append(Received(at, connected_at, topic.removeprefix(ROOT), json.loads(payload or b"{}")))
            return [each for each in self._read if each.topic.endswith(ending) or f"{ending}/" in each.topic]

    def status(self) -> Mapping[str, object]:
        """The latest status of the line."""
        return next((each.body for each in reversed(self.of("/status")) if each.topic == "/status"), {})

    def ask_for(self, missing: Sequence[int]) -> None:
        """Ask for events once more."""
        self._requests.append({"from_seq": missing[0], "to_seq": missing[-1]})
        self.replays += 1

    def await_message(self, timeout_s: float) -> None:
        """Wait for the next message, whatever it is."""
        before, until = len(self._raw), time.monotonic() + timeout_s
        while len(self._raw) == before and time.monotonic() < until:
            time.sleep(0.001)

    def leave(self, seconds: float) -> None:
        """Go, and come back after a while; the broker keeps the session."""
        self._away_until = time.monotonic() + seconds

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Feeder:
    """Moves files into the folders of cameras in turn, each with a name of its own and its kind in the name."""

    def __init__(
        self, folders: Sequence[Path], kinds: Mapping[str, bytes], *, rate_hz: float, weights: Sequence[float] = (1,)
    ) -> None:
        """`kinds` are the files by kind, `weights` how often each of them comes."""
        self.shown: dict[str, float] = {}
        self._folders = folders
        self._kinds = kinds
        self._weights = weights
        self._period_s = 1 / rate_hz
        self._label = f"{next(_LABELS):02}"
        self._random = random.Random(self._label)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder")
        self._thread.start()

    def _run(self) -> None:
        spool = self._folders[0].parent / "spool"
        spool.mkdir(exist_ok=True)
        there: deque[tuple[float, Path]] = deque()
        number, due = 0, time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._period_s, time.monotonic() - 1)
            number += 1
            (kind,) = self._random.choices(list(self._kinds), self._weights)
            made = spool / f"{self._label}-{number:06}-{kind}.png"
            made.write_bytes(self._kinds[kind])
            shown = self._folders[number % len(self._folders)] / made.name
            try:
                made.rename(shown)
            except FileNotFoundError:  # somebody took the folder away
                made.unlink()
                continue
            self.shown[shown.name] = time.time()
            there.append((time.monotonic(), shown))
            while there and there[0][0] < time.monotonic() - 10:  # the service has read it long ago, or never will
                there.popleft()[1].unlink(missing_ok=True)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to a line. The seed fixes the order and the pauses; the machine does the rest."""

    seed: int
    service_kills: int
    broker_kills: int
    absent: float = 0.6  # at so many of the broker's kills the subscriber is away, or has just come back
    forgetful: float = 0.7  # after so many of its starts the broker keeps nothing on the disk
    rate_hz: float = 30.0
    deadline_ms: int = 800
    longest_life_s: float = 4.0  # of a service after it is ready
    longest_outage_s: float = 2.0
    in_start: float = 0.1  # so many of the service's kills at any instant of its start
    in_recovery: float = 0.2  # ... while it takes up what a killed run left
    at_verdict: float = 0.3  # ... within ten milliseconds after a verdict: before it is on the disk, or just then
    weights: Sequence[float] = (70, 25, 5)  # of good, bad and broken pictures


class Chaos:
    """One run of a plan. `run` returns what is to be reckoned up."""

    def __init__(self, directory: Path, bundle: Path, good: Path, bad: Path, plan: Plan) -> None:
        self.plan = plan
        self.killed = {"service, judging": 0, "service, recovering": 0, "service, starting": 0, "broker": 0}
        self._collected = Collected(deadline_s=plan.deadline_ms / 1000)
        self._broker = Broker(directory / "broker", safe=True)
        self.line = StandInLine(directory, bundle, self._broker.port, DEVICE)
        self.line.settings["mqtt"] |= {"keepalive_s": 2, "heartbeat_s": 0.1}
        self.line.settings["engine"] = {"threads": 1}  # of the real network, which starts faster so
        folders = [directory / "pictures" / name for name in ("left", "right")]
        for folder in folders:
            folder.mkdir(parents=True)
            camera = {"type": "folder", "product": "cell", "mode": "watch", "path": str(folder)}
            self.line.settings["cameras"][folder.name] = camera | {"deadline_ms": plan.deadline_ms}
        self.listener = Listener(self._broker.port)
        picture = good.read_bytes()
        kinds = {"good": picture, "bad": bad.read_bytes(), "broken": picture[: len(picture) // 2]}
        self._feeder = Feeder(folders, kinds, rate_hz=plan.rate_hz, weights=plan.weights)
        self._judging = threading.Event()
        self._over = threading.Event()
        self._failed: list[BaseException] = []

    def run(self) -> Collected:
        """Kill as planned, let the line come to rest, and collect."""
        broker, consumer = self._beside(self._kill_broker), self._beside(self._ask_for_missing)
        try:
            self._kill_service()
            self._start()
            broker.join()
            time.sleep(2.0)  # pictures that show where the numbers of lost events have a gap
            self._feeder.stop()
            self._await_events()
        finally:
            self._over.set()
            broker.join()
            consumer.join()
        if self._failed:
            raise self._failed[0]
        self._last_word()
        return self._collect()

    def close(self) -> None:
        """End what may still run."""
        self._over.set()
        self._feeder.stop()
        self.line.close()
        self.listener.close()
        self._broker.stop(kill=True)

    def _kill_service(self) -> None:
        chance = random.Random(self.plan.seed + 1)
        for number in range(self.plan.service_kills):
            if self._over.is_set():
                return
            draw, moment = chance.random(), chance.random()
            self.line.spawn()
            self.line.stand_by(self.line.directory / f"service{number + 1:03}.log")
            if draw < self.plan.in_start:
                when = "starting"
                self._until(time.time() + 4 * moment)
            elif draw < self.plan.in_start + self.plan.in_recovery:
                when = "recovering"
                self._wait_log("an earlier run was killed", "ready line=")
                time.sleep(0.05 * moment)
            else:
                when = "judging"
                self._wait_log("ready line=")
                self._begin_life()
                self._until(time.time() + 0.2 + (self.plan.longest_life_s - 0.2) * moment)
                if draw > 1 - self.plan.at_verdict:
                    self.listener.await_message(0.3)
                    time.sleep(0.01 * chance.random())
            self._kill(when)

    def _kill(self, when: str) -> None:
        if self.line.ended():
            raise AssertionError(f"the service has ended by itself: {self.line.log.read_text()[-3000:]}")
        if when == "judging":
            self._judging.clear()
            self._collected.lives[-1].until = time.time()
        self.line.stop(signal.SIGKILL)
        self.killed[f"service, {when}"] += 1

    def _start(self) -> None:
        self.line.start()
        assert not self.line.ended(), self.line.log.read_text()[-3000:]
        self._begin_life()

    def _begin_life(self) -> None:
        self._collected.lives.append(Span(time.time(), float("inf")))
        self._judging.set()

    def _kill_broker(self) -> None:
        chance = random.Random(self.plan.seed + 2)
        up = time.time()
        for _ in range(self.plan.broker_kills):
            if chance.random() < 0.8:
                self._judging.wait(_START_S)
            self._until(time.time() + chance.uniform(0.1, self.plan.longest_life_s / 2))
            if chance.random() < self.plan.absent:
                self.listener.leave(chance.uniform(0.3, 3.0))
                self._until(time.time() + chance.uniform(0.1, 1.0))
            self._collected.broker.append(Span(up, time.time()))
            self._broker.stop(kill=True)
            self.killed["broker"] += 1
            self._until(time.time() + chance.uniform(0.0, self.plan.longest_outage_s))
            self._broker.keep(safe=chance.random() >= self.plan.forgetful)
            up = time.time()
            self._broker.start()
        self._collected.broker.append(Span(up, float("inf")))

    def _ask_for_missing(self) -> None:
        """A gap that is still there after a second will not close by itself."""
        seen: list[int] = []
        while not self._over.wait(1.0):
            missing = missing_numbers(self.listener.of("/defect"))
            if missing and missing == seen[: len(missing)]:
                self.listener.ask_for(missing)
            seen = missing

    def _await_events(self) -> None:
        """Wait for what may still arrive; what does not is for the reckoning to say."""
        until = time.monotonic() + 60
        while time.monotonic() < until and not self._is_complete():
            time.sleep(0.1)

    def _is_complete(self) -> bool:
        received = {each.body["event_id"] for each in self.listener.of("/defect")}
        entries = read_journal(self.line.directory / "state" / "journal.sqlite")
        wanted = {entry.event_id for entry in entries if entry.decision != "pass"}
        return self.listener.status().get("in_flight") == 0 and wanted <= received

    def _last_word(self) -> None:
        self._collected.lives[-1].until = time.time()
        assert self.line.stop() == 0, self.line.log.read_text()[-3000:]
        wait_for(lambda: self.listener.status().get("state") == "offline", "the line says goodbye")

    def _collect(self) -> Collected:
        collected = self._collected
        collected.shown = self._feeder.shown
        collected.subscribed = self.listener.subscribed
        collected.verdicts = self.listener.of("/verdict")
        collected.defects = self.listener.of("/defect")
        collected.statuses = [each for each in self.listener.of("/status") if each.topic == "/status"]
        collected.journal = read_journal(self.line.directory / "state" / "journal.sqlite")
        return collected

    def _wait_log(self, *texts: str) -> None:
        until = time.monotonic() + _START_S
        while not (self.line.log.exists() and any(text in self.line.log.read_text() for text in texts)):
            assert time.monotonic() < until, f"no {texts} in {self.line.log}"
            assert not self.line.ended(), f"the service has ended by itself: {self.line.log.read_text()[-3000:]}"
            time.sleep(_TICK_S)

    def _until(self, instant: float) -> None:
        """Wait for an instant of the plan, or the end of the run."""
        self._over.wait(max(0.0, instant - time.time()))

    def _beside(self, body: Callable[[], None]) -> threading.Thread:
        """Let something happen at the same time. If it fails the run is over."""

        def life() -> None:
            try:
                body()
            except BaseException as error:
                self._failed.append(error)
                self._over.set()

        thread = threading.Thread(target=life)
        thread.start()
        return thread
