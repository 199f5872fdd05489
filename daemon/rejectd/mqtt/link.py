"""One connection to a broker: CONNECT, publish, acknowledgements, its end. paho does the protocol alone."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from rejectd.messages import RejectdError, Verdict
from rejectd.settings import Mqtt, Protocol

IN_FLIGHT = 20  # messages without acknowledgement; paho ignores the broker's own limit, which is seldom lower
_CONNECT_S = 3.0


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
    answer: bool = False  # to a command
    correlation: bytes | None = None  # of the command
    answer_to: str | None = None  # of a command of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One thing that somebody sent us."""

    topic: str
    payload: bytes
    retained: bool
    answer_to: str | None
    correlation: bytes | None


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
        self.received: list[Incoming] = []
        self.denied = False  # the broker refused a subscription
        self._answer: str | None = None
        self._reason = "connection lost"
        self._client = self._make(settings, client_id, will)
        try:
            self._client.connect(settings.host, settings.port, keepalive=settings.keepalive_s)
        except (OSError, ValueError) as error:
            raise LinkError(f"broker {self._where}: {error}", hint=_connect_hint(error, settings)) from error
        try:
            refusal = self._await_answer()
        except LinkError:
            self.drop()
            raise
        if refusal:
            self.drop()
            hint = "check mqtt.username, mqtt.password_file and the broker's access list"
            unsupported = "protocol version" in refusal.lower()
            raise RefusedError(f"broker {self._where} refuses: {refusal}", hint=hint, unsupported=unsupported)

    def publish(self, message: Message, now_ns: int) -> int:
        """Send one message; returns its packet identifier."""
        properties = None
        if self.v5 and (message.verdict or message.correlation is not None or message.answer_to):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
            if message.verdict:
                left_s = (message.verdict.deadline_ns - now_ns) / 1e9
                properties.MessageExpiryInterval = max(1, math.floor(left_s))  # whole seconds; 0 would mean for ever
            if message.correlation is not None:
                properties.CorrelationData = message.correlation
            if message.answer_to:
                properties.ResponseTopic = message.answer_to
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
        client.max_inflight_messages_set(IN_FLIGHT)
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
        client.on_message = lambda _client, _data, message: self.received.append(_incoming(message))
        client.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self._subscribed(reasons)
        return client

    def _connected(self, reason: object) -> None:
        self._answer = str(reason) if getattr(reason, "is_failure", True) else ""

    def _subscribed(self, reasons: list[ReasonCode]) -> None:
        self.denied = self.denied or any(reason.is_failure for reason in reasons)

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
                on_message(message.topic, message.payload)
    finally:
        link.close()


def _incoming(message: MQTTMessage) -> Incoming:
    return Incoming(
        topic=message.topic,
        payload=bytes(message.payload),
        retained=bool(message.retain),
        answer_to=getattr(message.properties, "ResponseTopic", None),
        correlation=getattr(message.properties, "CorrelationData", None),
    )


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
