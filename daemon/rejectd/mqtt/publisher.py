"""Everything that goes to the broker. One thread owns the socket, the queue and what is in flight.

A connection that breaks is thrown away with everything paho holds: paho would send its queue again after a reconnect,
and a verdict that comes late rejects the wrong part. What may go out again is decided here: verdicts until their
deadline, the latest status, and every event that the outbox still has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from rejectd.messages import CameraStatus, Verdict, camera_payload, camera_topic, encode, verdict_payload, verdict_topic
from rejectd.metrics import Metrics
from rejectd.mqtt.link import IN_FLIGHT, Link, LinkError, Message, connect
from rejectd.outbox import OutboxError, Reader
from rejectd.settings import Mqtt, Protocol

log = logging.getLogger(__name__)

_EVENTS_IN_FLIGHT = 10  # defect events without acknowledgement, so that a verdict always finds room
_FIRST_RETRY_S = 0.2
_REFUSED_PAUSE_S = 5.0  # before an event that the broker refused is offered again
_VERDICTS_WAITING = 10_000


class Publisher:
    """Everything that goes to the broker. Any thread may call `verdict`, `camera` and `wake`; they never block."""

    def __init__(
        self,
        settings: Mqtt,
        *,
        line: str,
        status: Callable[[str], Message],
        will: Message,
        outbox: Path,
        acknowledged: Callable[[int], None],
        metrics: Metrics,
    ) -> None:
        """`status(state)` makes the line's status message; `acknowledged(event_seq)` hears what the broker has."""
        self._settings = settings
        self._line = line
        self._status = status
        self._will = will
        self._outbox = outbox
        self._acknowledged = acknowledged
        self._metrics = metrics
        self._protocol = settings.protocol  # once connected, what the broker spoke
        self._verdicts: deque[Message] = deque()
        self._cameras: dict[str, Message] = {}
        self._changed_cameras: set[str] = set()
        self._in_flight: dict[int, Message] = {}
        self._events: deque[Message] = deque()
        self._event_cursor = 0
        self._events_after = 0.0  # no events before this instant: the broker refused one
        self._stop_at: float | None = None
        self._connected_once = threading.Event()
        self.unpublished = 0  # verdicts that were never sent
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._lock = threading.Lock()  # guards what other threads add to: verdicts and cameras

    def verdict(self, verdict: Verdict) -> None:
        """Publish a verdict, if that is possible before its deadline."""
        topic = verdict_topic(self._line, verdict.camera, verdict.decision)
        message = Message(topic=topic, payload=encode(verdict_payload(self._line, verdict)), verdict=verdict)
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

    def wake(self) -> None:
        """Look again: the outbox has something new. Once `run` has ended it stays in the outbox for the next start."""
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
        reader = Reader(self._outbox)
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
                    self._serve(link, reader)
                except LinkError as error:
                    log.warning(str(error))
                finally:
                    self._hang_up(link)
        finally:
            for message in self._verdicts:
                self._unpublished(message)
            reader.close()
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

    def _serve(self, link: Link, reader: Reader) -> None:
        """One connection's work, until it breaks or everything is out after `stop`."""
        self._metrics.broker_connected.set(1)
        self._connected_once.set()
        with self._lock:
            self._changed_cameras = set(self._cameras)
        next_status = 0.0
        while not self._over():
            now = time.monotonic()
            if now >= next_status and self._stop_at is None:
                self._send(link, self._status("online"))
                next_status = now + self._settings.heartbeat_s
            self._send_all(link, reader)
            if self._stop_at is not None and not self._in_flight and not self._events and not self._verdicts:
                self._farewell(link)
                return
            link.wait(max(0.0, min(next_status - now, 0.5)), self._wake_reader)
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)
            self._take_acknowledgements(link)

    def _farewell(self, link: Link) -> None:
        """The last word, after which the connection is closed in order."""
        self._send(link, self._status("offline"))
        while self._in_flight and not self._over():
            link.wait(0.1)
            self._take_acknowledgements(link)
        log.info("broker has everything")
        self._stop_at = time.monotonic()

    def _send_all(self, link: Link, reader: Reader) -> None:
        """Send what fits: verdicts first, then statuses, then events."""
        while len(self._in_flight) < IN_FLIGHT and (message := self._next(reader)) is not None:
            self._send(link, message)

    def _next(self, reader: Reader) -> Message | None:
        while (message := self._next_verdict()) is not None:
            if message.verdict and message.verdict.deadline_ns > time.monotonic_ns():
                return message
            self._unpublished(message)
        with self._lock:
            if self._changed_cameras:
                return self._cameras[self._changed_cameras.pop()]
        busy = sum(message.event_seq is not None for message in self._in_flight.values())
        if busy >= _EVENTS_IN_FLIGHT or time.monotonic() < self._events_after:
            return None
        if not self._events:
            try:
                waiting = reader.waiting(self._event_cursor, _EVENTS_IN_FLIGHT)
            except OutboxError as error:
                log.error("%s", error)
                self._events_after = time.monotonic() + _REFUSED_PAUSE_S
                return None
            for event in waiting:
                self._events.append(Message(topic=event.topic, payload=event.payload, event_seq=event.event_seq))
                self._event_cursor = event.event_seq
        return self._events.popleft() if self._events else None

    def _next_verdict(self) -> Message | None:
        with self._lock:
            return self._verdicts.popleft() if self._verdicts else None

    def _send(self, link: Link, message: Message) -> None:
        try:
            self._in_flight[link.publish(message, time.monotonic_ns())] = message
        except LinkError:
            self._put_back(message)
            raise

    def _take_acknowledgements(self, link: Link) -> None:
        done, link.acknowledged = link.acknowledged, []
        now_ns = time.monotonic_ns()
        for mid, refusal in done:
            message = self._in_flight.pop(mid, None)
            if message is None:
                continue
            if refusal:
                self._refused(message, refusal)
            elif message.event_seq is not None:
                self._acknowledged(message.event_seq)
            elif message.verdict:
                verdict = message.verdict
                self._metrics.latency.labels(verdict.camera).observe((now_ns - verdict.captured_ns) / 1e9)
                self._metrics.stage.labels("publish").observe((now_ns - verdict.decided_ns) / 1e9)
                if now_ns > verdict.deadline_ns:
                    self._metrics.missed.labels(verdict.camera).inc()

    def _refused(self, message: Message, refusal: str) -> None:
        log.error("broker refuses %s: %s; check its access list", message.topic, refusal)
        if message.verdict:
            self._unpublished(message)
        if message.event_seq is not None:
            self._events_after = time.monotonic() + _REFUSED_PAUSE_S
            self._put_back(message)

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
        self.unpublished += 1
        self._metrics.unpublished.labels(message.verdict.camera).inc()
        self._metrics.missed.labels(message.verdict.camera).inc()

    def _put_back(self, message: Message) -> None:
        """Into its queue again, before what came later."""
        with self._lock:
            if message.verdict:
                self._verdicts.appendleft(message)
        if message.event_seq is not None:
            self._events.clear()
            self._event_cursor = min(self._event_cursor, message.event_seq - 1)

    def _hang_up(self, link: Link) -> None:
        """Close, and take back what the broker has not acknowledged."""
        self._metrics.broker_connected.set(0)
        for message in reversed(self._in_flight.values()):
            self._put_back(message)
        self._in_flight.clear()
        link.close() if self._over() else link.drop()
