"""Talks to the broker. One thread owns the socket, the queue and what is in flight; paho does the protocol alone.

A connection that breaks is thrown away with everything paho holds: paho would send its queue again after a reconnect,
and a verdict that comes late rejects the wrong part. What may go out again is decided here: verdicts until their
deadline, the latest status, and every event that the outbox still has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from rejectd.messages import (
    CameraStatus,
    RejectdError,
    Verdict,
    camera_payload,
    camera_topic,
    encode,
    verdict_payload,
    verdict_topic,
)
from rejectd.metrics import Metrics
from rejectd.outbox import OutboxError, Reader
from rejectd.settings import Mqtt, Protocol

log = logging.getLogger(__name__)

_IN_FLIGHT = 20  # messages without acknowledgement
_EVENTS_IN_FLIGHT = 10  # of which defect events, so that a verdict always finds room
_CONNECT_S = 3.0
_FIRST_RETRY_S = 0.2
_REFUSED_PAUSE_S = 5.0  # before an event that the broker refused is offered again
_VERDICTS_WAITING = 10_000


class LinkError(RejectdError):
    """The broker cannot be reached, refuses us, or is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing to publish at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    verdict: Verdict | None = None  # only until its deadline
    event_seq: int | None = None  # an event of the outbox


class Link:
    """One connection, from CONNECT to its end. Not shared between threads."""

    def __init__(self, settings: Mqtt, *, client_id: str, protocol: Protocol, will: Message | None = None) -> None:
        """Connect and wait for the broker's answer.

        Raises:
            LinkError: with the broker's reason.
        """
        self._where = f"{settings.host}:{settings.port}"
        self.v5 = protocol is Protocol.V5
        self.acknowledged: list[tuple[int, str]] = []  # packet identifier, why refused or empty
        self.received: list[MQTTMessage] = []
        self._answer: str | None = None
        self._reason = "connection lost"
        self._client = self._make(settings, client_id, will)
        try:
            self._client.connect(settings.host, settings.port, keepalive=settings.keepalive_s)
        except (OSError, ValueError) as error:
            raise LinkError(f"broker {self._where}: {error}", hint=_connect_hint(error, settings)) from error
        refusal = self._await_answer()
        if refusal:
            hint = "check mqtt.username, mqtt.password_file and the broker's access list"
            unsupported = "protocol version" in refusal.lower()
            raise RefusedError(f"broker {self._where} refuses: {refusal}", hint=hint, unsupported=unsupported)

    def publish(self, message: Message, now_ns: int) -> int:
        """Send one message; returns its packet identifier."""
        properties = None
        if self.v5 and message.verdict:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
            left_s = (message.verdict.deadline_ns - now_ns) / 1e9
            properties.MessageExpiryInterval = max(1, math.floor(left_s))  # whole seconds; 0 would mean for ever
        info = self._client.publish(message.topic, message.payload, 1, message.retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkError(f"broker {self._where}: {self._reason}")
        return info.mid

    def subscribe(self, topic: str) -> None:
        """Ask for messages; they arrive in `received`."""
        self._client.subscribe(topic, qos=1)

    def wait(self, timeout_s: float, wake: socket.socket | None = None) -> None:
        """Serve the connection once: until something arrives, `wake` is readable, or the time is over.

        Raises:
            LinkError: if the connection is gone.
        """
        sock = self._client.socket()
        if sock is None:
            raise LinkError(f"broker {self._where}: {self._reason}")
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        writing = [sock] if self._client.want_write() else []
        readable, writable, _ = select.select(
            [sock, *([wake] if wake else [])], writing, [], 0 if pending else timeout_s
        )
        if sock in readable or pending:
            self._client.loop_read()
        if writable:
            self._client.loop_write()
        if self._client.loop_misc() == MQTTErrorCode.MQTT_ERR_NO_CONN or self._client.socket() is None:
            raise LinkError(f"broker {self._where}: {self._reason}")

    def close(self) -> None:
        """Say goodbye, so that the broker does not publish the last will."""
        with contextlib.suppress(Exception):
            self._client.disconnect()
            self._client.loop_write()
        self.drop()

    def drop(self) -> None:
        """Let go without a goodbye."""
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _await_answer(self) -> str:
        """Why the broker refuses us; empty if it does not."""
        until = time.monotonic() + _CONNECT_S
        while time.monotonic() < until:
            try:
                self.wait(0.1)
            except LinkError:
                if self._answer is None:
                    raise
            if self._answer is not None:
                return self._answer
        hint = "is this an MQTT port, and TLS set right?"
        raise LinkError(f"broker {self._where}: does not answer", hint=hint)

    def _make(self, settings: Mqtt, client_id: str, will: Message | None) -> Client:
        version = MQTTProtocolVersion.MQTTv5 if self.v5 else MQTTProtocolVersion.MQTTv311
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False)
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(_IN_FLIGHT)
        if settings.username:
            client.username_pw_set(settings.username, _password(settings.password_file))
        if settings.tls:
            ca, cert, key = (
                str(path) if path else None for path in (settings.tls_ca, settings.tls_cert, settings.tls_key)
            )
            try:
                client.tls_set(ca_certs=ca, certfile=cert, keyfile=key)
            except (OSError, ValueError) as error:
                raise LinkError(f"TLS: {error}", hint="check mqtt.tls_ca, mqtt.tls_cert and mqtt.tls_key") from error
        if will:
            client.will_set(will.topic, will.payload, 1, will.retain)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: self._connected(reason)
        client.on_disconnect = lambda _client, _data, _flags, reason, _properties: self._lost(reason)
        client.on_publish = lambda _client, _data, mid, reason, _properties: self.acknowledged.append(
            (mid, str(reason) if reason.is_failure else "")
        )
        client.on_message = lambda _client, _data, message: self.received.append(message)
        return client

    def _connected(self, reason: object) -> None:
        self._answer = str(reason) if getattr(reason, "is_failure", True) else ""

    def _lost(self, reason: object) -> None:
        if str(reason) not in ("Normal disconnection", "Unspecified error"):
            self._reason = str(reason)


class RefusedError(LinkError):
    """The broker answered, with a no."""

    def __init__(self, message: str, *, hint: str, unsupported: bool) -> None:
        super().__init__(message, hint="" if unsupported else hint)
        self.unsupported = unsupported


def connect(settings: Mqtt, *, client_id: str, will: Message | None = None) -> Link:
    """A link in the wanted version of MQTT, or in the one that the broker speaks.

    Raises:
        LinkError: with the broker's reason.
    """
    protocol = speaks(settings, client_id) if settings.protocol is Protocol.AUTO else settings.protocol
    return Link(settings, client_id=client_id, protocol=protocol, will=will)


def speaks(settings: Mqtt, client_id: str) -> Protocol:
    """The version of MQTT that a broker speaks. Asked without a last will, which an old broker would misread in 5.

    Raises:
        LinkError: with the broker's reason.
    """
    try:
        Link(settings, client_id=client_id, protocol=Protocol.V5).close()
    except RefusedError as refused:
        if not refused.unsupported:
            raise
        return Protocol.V311
    return Protocol.V5


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
        """Look again: the outbox has something new."""
        with contextlib.suppress(BlockingIOError):
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
        while len(self._in_flight) < _IN_FLIGHT and (message := self._next(reader)) is not None:
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


def listen(
    settings: Mqtt,
    topics: list[str],
    on_message: Callable[[str, bytes], None],
    *,
    client_id: str,
    until: Callable[[], bool],
) -> None:
    """Receive messages until `until()` is true.

    Raises:
        LinkError: if the broker cannot be reached or is gone.
    """
    link = connect(settings, client_id=client_id)
    try:
        for topic in topics:
            link.subscribe(topic)
        while not until():
            link.wait(0.2)
            received, link.received = link.received, []
            for message in received:
                on_message(message.topic, bytes(message.payload))
    finally:
        link.close()


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip("\r\n")
    except OSError as error:
        raise LinkError(f"{file}: {error.strerror}", hint="let the service's user read mqtt.password_file") from error


def _connect_hint(error: Exception, settings: Mqtt) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "set mqtt.tls_ca to the authority that signed the broker's certificate"
    if isinstance(error, ssl.SSLError):
        return "does the broker speak TLS on this port?"
    if isinstance(error, socket.gaierror):
        return "check mqtt.host"
    return f"is a broker running there? `mosquitto -p {settings.port}` starts one"
