"""Everything that goes to the broker. One thread owns the socket, the queue and what is in flight.

A connection that breaks is thrown away with everything paho holds: paho would send its queue again after a reconnect,
and a verdict that comes late rejects the wrong part. What may go out again is decided here: verdicts until their
deadline, the latest status, and every event that the outbox still has.

What others send us, commands and counts of actuators, comes in over the same connection and is handed on at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import random
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rejectd.messages import CameraStatus, Verdict
from rejectd.metrics import Metrics
from rejectd.mqtt.events import Events
from rejectd.mqtt.link import IN_FLIGHT, Incoming, Link, LinkError, Message, connect
from rejectd.payloads import actuator_topic, camera_payload, camera_topic, command_topic, encode, verdict_topic
from rejectd.settings import Mqtt, Protocol

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.2
_VERDICTS_WAITING = 10_000
_ANSWERS_WAITING = 64
_SAY_AGAIN_S = 60.0  # a refused topic is in the log this often; each refusal is in the counters
_LOOK_S = 0.05  # how often what waits for a busy broker is searched for what has expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """Who hears what the broker says. Called in the publish thread, and must not block."""

    delivered: Callable[[Verdict, int], None]  # the broker has a verdict, at this instant
    took: Callable[[int], None]  # ns from a decision to the acknowledgement, on a connection that held
    acknowledged: Callable[[int], None]  # the broker has the event of this number
    received: Callable[[Incoming], None]  # a command, or the count of an actuator


class Publisher:
    """Everything that goes to the broker. `run` is one thread's life; any thread may call the rest, it never blocks."""

    def __init__(
        self,
        settings: Mqtt,
        *,
        line: str,
        status: Callable[[str], Message],
        will: Message,
        outbox: Path,
        ears: Ears,
        metrics: Metrics,
    ) -> None:
        """`status(state)` makes the line's status message."""
        self._settings = settings
        self._line = line
        self._status = status
        self._will = will
        self._ears = ears
        self._metrics = metrics
        self._protocol = settings.protocol  # once connected, what the broker spoke
        self._verdicts: deque[Message] = deque()
        self._cameras: dict[str, Message] = {}
        self._changed_cameras: set[str] = set()
        self._answers: deque[Message] = deque(maxlen=_ANSWERS_WAITING)
        self._in_flight: dict[int, tuple[Message, float]] = {}  # by packet identifier, with the instant of sending
        self._events = Events(outbox)
        self._looked = 0.0
        self._connected_ns = 0
        self._denied = False
        self._said: dict[str, float] = {}  # refused topics, and when the log had them last
        self._stop_at: float | None = None
        self._connected_once = threading.Event()
        self.unpublished: Counter[str] = Counter()  # verdicts that were never sent, by camera or station
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._lock = threading.Lock()  # guards what other threads add to: verdicts and cameras

    def verdict(self, verdict: Verdict, body: bytes) -> None:
        """Publish a verdict, if that is possible before its deadline."""
        topic = verdict_topic(self._line, verdict.camera, verdict.decision)
        message = Message(topic=topic, payload=body, verdict=verdict)
        with self._lock:
            self._verdicts.append(message)
            oldest = self._verdicts.popleft() if len(self._verdicts) > _VERDICTS_WAITING else None
        if oldest:
            self._unpublished(oldest)
        self.wake()

    def camera(self, status: CameraStatus) -> None:
        """Publish a camera's latest status."""
        payload = encode(camera_payload(self._line, status))
        with self._lock:
            self._cameras[status.camera] = Message(
                topic=camera_topic(self._line, status.camera), payload=payload, retain=True
            )
            self._changed_cameras.add(status.camera)
        self.wake()

    def answer(self, message: Message) -> None:
        """Publish the answer to a command. If far too many wait, the oldest goes."""
        self._answers.append(message)
        self.wake()

    def more_events(self) -> None:
        """The outbox has something new. Once `run` has ended it stays there for the next start."""
        self._events.more()
        self.wake()

    def marked(self, numbers: Iterable[int]) -> None:
        """The outbox knows that the broker has these events."""
        self._events.marked(numbers)
        self.wake()

    def problems(self) -> list[str]:
        """What the broker does not let us do."""
        refused = [f"the broker refuses {topic}" for topic in self._events.refused_topics if topic]
        return refused + (["the broker refuses to let us hear commands"] if self._denied else [])

    def wake(self) -> None:
        """Look again. Once `run` has ended nobody does."""
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the first connection."""
        return self._connected_once.wait(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Let `run` end once all is out, or at the latest after `timeout_s`."""
        self._stop_at = time.monotonic() + timeout_s
        self.wake()

    def run(self) -> None:
        """The life of the publish thread."""
        failures = 0
        trouble = ""
        try:
            while not self._over():
                try:
                    settings = dataclasses.replace(self._settings, protocol=self._protocol)
                    link = connect(settings, client_id=self._client_id, will=self._will)
                except LinkError as error:
                    self._protocol = self._settings.protocol  # the broker may be another one when it is back
                    if str(error) != trouble:
                        trouble = str(error)
                        log.warning(trouble)
                    self._pause(min(_FIRST_RETRY_S * 2**failures, self._settings.retry_max_s) * random.uniform(0.7, 1))
                    failures = min(failures + 1, 16)
                    continue
                failures, trouble = 0, ""
                self._protocol = Protocol.V5 if link.v5 else Protocol.V311
                log.info("broker connected", extra={"fields": {"mqtt": "5" if link.v5 else "3.1.1"}})
                try:
                    self._serve(link)
                except LinkError as error:
                    log.warning(str(error))
                finally:
                    self._hang_up(link)
        finally:
            for message in self._verdicts:
                self._unpublished(message)
            self._events.close()
            self._wake_reader.close()
            self._wake_writer.close()

    @property
    def _client_id(self) -> str:
        return self._settings.client_id or f"rejectd-{self._line}"

    def _over(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _pause(self, seconds: float) -> None:
        """Wait for the next attempt; what expires meanwhile is counted."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._over():
            self._rest(min(left, 0.2))
            self._expire(time.monotonic_ns())

    def _rest(self, seconds: float) -> None:
        self._wake_reader.settimeout(seconds)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            self._wake_reader.recv(4096)
        self._wake_reader.setblocking(False)

    def _serve(self, link: Link) -> None:
        """One connection's work, until it breaks or everything is out after `stop`."""
        self._metrics.broker_connected.set(1)
        self._connected_ns = time.monotonic_ns()
        self._connected_once.set()
        with self._lock:
            self._changed_cameras = set(self._cameras)
        if self._settings.commands:
            link.subscribe(command_topic(self._line, "+"))
            link.subscribe(actuator_topic(self._line, "+"))
        next_status = 0.0
        while not self._over():
            now = time.monotonic()
            if now >= next_status and self._stop_at is None:
                self._send(link, self._status("online"))
                next_status = now + self._settings.heartbeat_s
            self._send_all(link)
            self._look_for_stalled(now)
            if self._stop_at is not None and self._all_out():
                self._farewell(link)
                return
            patience_s = 0.1 if self._stop_at is not None else min(next_status - now, 0.5)
            link.wait(max(0.0, patience_s), self._wake_reader)
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)
            self._take_acknowledgements(link)
            self._hear(link)

    def _all_out(self) -> bool:
        return not self._in_flight and self._events.idle and not self._verdicts and not self._answers

    def _farewell(self, link: Link) -> None:
        """The last word, after which the connection is closed in order."""
        self._send(link, self._status("offline"))
        while self._in_flight and not self._over():
            link.wait(0.1)
            self._take_acknowledgements(link)
        log.info("broker has everything")
        self._stop_at = time.monotonic()

    def _hear(self, link: Link) -> None:
        received, link.received = link.received, []
        for message in received:
            self._ears.received(message)
        if link.denied and not self._denied:
            log.error("the broker refuses to let us hear commands; check its access list, or set mqtt.commands: false")
        self._denied = link.denied

    def _send_all(self, link: Link) -> None:
        """Send what fits: verdicts first, then statuses and answers, then events."""
        while len(self._in_flight) < IN_FLIGHT:
            message = self._next()
            if message is None:
                return
            self._send(link, message)

    def _look_for_stalled(self, now: float) -> None:
        """A broker that takes everything and acknowledges nothing is as good as gone."""
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self._expire(time.monotonic_ns())
        oldest = min((sent for _, sent in self._in_flight.values()), default=now)
        if now - oldest > self._settings.keepalive_s:
            raise LinkError(f"the broker has acknowledged nothing for {self._settings.keepalive_s} s")

    def _next(self) -> Message | None:
        while (message := self._next_verdict()) is not None:
            if message.verdict and message.verdict.deadline_ns > time.monotonic_ns():
                return message
            self._unpublished(message)
        with self._lock:
            if self._changed_cameras:
                return self._cameras[self._changed_cameras.pop()]
        return self._answers.popleft() if self._answers else self._events.next()

    def _next_verdict(self) -> Message | None:
        with self._lock:
            return self._verdicts.popleft() if self._verdicts else None

    def _send(self, link: Link, message: Message) -> None:
        try:
            self._in_flight[link.publish(message, time.monotonic_ns())] = message, time.monotonic()
        except LinkError:
            self._put_back(message)
            raise

    def _take_acknowledgements(self, link: Link) -> None:
        done, link.acknowledged = link.acknowledged, []
        now_ns = time.monotonic_ns()
        for mid, refusal in done:
            message, _ = self._in_flight.pop(mid, (None, 0.0))
            if message is None:
                continue
            if refusal:
                self._refused(message, refusal)
            elif message.event_seq is not None:
                self._events.acknowledged(message.event_seq)
                self._ears.acknowledged(message.event_seq)
            elif message.verdict:
                verdict = message.verdict
                self._ears.delivered(verdict, now_ns)
                if verdict.decided_ns > self._connected_ns:
                    self._ears.took(now_ns - verdict.decided_ns)
                self._metrics.latency.labels(verdict.camera).observe((now_ns - verdict.captured_ns) / 1e9)
                self._metrics.stage.labels("publish").observe((now_ns - verdict.decided_ns) / 1e9)
                if now_ns > verdict.deadline_ns:
                    self._metrics.missed.labels(verdict.camera).inc()

    def _refused(self, message: Message, refusal: str) -> None:
        now = time.monotonic()
        if now >= self._said.get(message.topic, -math.inf) + _SAY_AGAIN_S:
            self._said = {topic: said for topic, said in self._said.items() if now < said + _SAY_AGAIN_S}
            self._said[message.topic] = now
            log.error("broker refuses %s: %s; check its access list", message.topic, refusal)
        if message.verdict:
            self._unpublished(message)
        if message.event_seq is not None:
            self._events.refused(message)

    def _expire(self, now_ns: int) -> None:
        """Give up waiting verdicts whose deadline is over; cameras differ, so that these can be anywhere."""
        with self._lock:
            waiting = list(self._verdicts)
            self._verdicts = deque(
                message for message in waiting if message.verdict and message.verdict.deadline_ns > now_ns
            )
        for message in waiting:
            if message.verdict and message.verdict.deadline_ns <= now_ns:
                self._unpublished(message)

    def _unpublished(self, message: Message) -> None:
        assert message.verdict
        self.unpublished[message.verdict.camera] += 1
        self._metrics.unpublished.labels(message.verdict.camera).inc()
        self._metrics.missed.labels(message.verdict.camera).inc()

    def _put_back(self, message: Message) -> None:
        """Into its queue again, before what came later."""
        if message.verdict:
            with self._lock:
                self._verdicts.appendleft(message)
        elif message.answer:
            self._answers.appendleft(message)

    def _hang_up(self, link: Link) -> None:
        """Close, and take back what the broker has not acknowledged."""
        self._metrics.broker_connected.set(0)
        for message, _ in reversed(self._in_flight.values()):
            self._put_back(message)
        self._in_flight.clear()
        self._events.take_back()
        link.close() if self._over() else link.drop()
