"""One connection to a broker: CONNECT, publish, acknowledgements, and its end. paho is used for the protocol only."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time

from paho.mqtt.client import Client, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from rejectd.contract.settings import Mqtt, Protocol
from rejectd.mqtt import reasons, tls
from rejectd.mqtt.exchange import (
    IN_FLIGHT,
    Acknowledgement,
    Incoming,
    Limits,
    LinkError,
    LostError,
    Message,
    RefusedError,
)
from rejectd.passwords import PasswordError, read_password

_CONNECT_S = 3.0
_UNNAMED = ("Normal disconnection", "Unspecified error", "Success")  # paho's words when it knows no reason


class Link:
    """One connection, from CONNECT to its end. Not shared between threads."""

    def __init__(self, settings: Mqtt, *, client_id: str, protocol: Protocol, will: Message | None = None) -> None:
        """Connect and wait for the broker's answer.

        Raises:
            LinkError: with the broker's reason.
        """
        self._settings = settings
        self._where = f"{settings.host}:{settings.port}"
        self._client_id = client_id
        self.v5 = protocol is Protocol.V5
        self.limits = Limits()
        self.keepalive_s = settings.keepalive_s
        self.acknowledged: list[Acknowledgement] = []
        self.subscribed: list[Acknowledgement] = []
        self.received: list[Incoming] = []
        self._answer: str | None = None
        self._reason = ""  # why the connection ended, in MQTT's words
        self._closed = False
        self._noted = ""  # the last error in paho's log
        self._client = self._make(settings, client_id, will)
        try:
            self._client.connect(settings.host, settings.port, keepalive=settings.keepalive_s)
        except (OSError, ValueError) as error:
            raise _no_connection(error, settings) from error
        try:
            refusal = self._await_answer()
            if refusal:
                raise self._refused(refusal)
        except LinkError:
            self.drop()
            raise

    @property
    def certificate(self) -> bytes | None:
        """The broker's certificate in DER; None without TLS."""
        sock = self._client.socket()
        return sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None

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
            raise self._lost_error()
        return info.mid

    def subscribe(self, topic: str) -> int:
        """Subscribe to a topic; messages arrive in `received`. Returns the packet identifier for `subscribed`."""
        code, mid = self._client.subscribe(topic, qos=1)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self._lost_error()
        return mid

    def wait(self, timeout_s: float, wake: socket.socket | None = None) -> None:
        """Serve the connection once: until data arrives, `wake` is readable, or the time is over.

        Raises:
            LostError: if the connection is gone.
        """
        sock = self._client.socket()
        if sock is None:
            raise self._lost_error()
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        waiting = select.poll()  # select(2) takes no file number over 1023
        waiting.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if wake:
            waiting.register(wake, select.POLLIN)
        events = dict(waiting.poll(0 if pending else timeout_s * 1000)).get(sock.fileno(), 0)
        if events & ~select.POLLOUT or pending:  # also where the connection is gone
            self._client.loop_read()
        if events & select.POLLOUT:
            self._client.loop_write()
        if self._client.loop_misc() == MQTTErrorCode.MQTT_ERR_NO_CONN or self._client.socket() is None:
            raise self._lost_error()

    def close(self) -> None:
        """Send DISCONNECT and close, so that the broker does not publish the last will."""
        with contextlib.suppress(Exception):
            self._client.disconnect()
            self._client.loop_write()
        self.drop()

    def drop(self) -> None:
        """Close the socket without DISCONNECT."""
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _await_answer(self) -> str:
        """Wait for the broker's CONNACK. Returns why the broker refuses us; empty if it does not."""
        until = time.monotonic() + _CONNECT_S
        while time.monotonic() < until:
            try:
                self.wait(0.1)
            except LostError as error:
                if self._answer is None:
                    raise LinkError(error.args[0], hint=_hint_for_silence(self._noted, self._settings)) from error
            if self._answer is not None:
                return self._answer
        hint = _hint_for_silence(self._noted, self._settings)
        raise LinkError(f"broker {self._where}: does not answer", hint=hint)

    def _make(self, settings: Mqtt, client_id: str, will: Message | None) -> Client:
        version = MQTTProtocolVersion.MQTTv5 if self.v5 else MQTTProtocolVersion.MQTTv311
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False)
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(IN_FLIGHT)
        try:
            if settings.username:
                password = read_password(settings.password_file) if settings.password_file else None
                client.username_pw_set(settings.username, password)
            if settings.tls:
                client.tls_set_context(tls.context(settings))
        except (PasswordError, tls.TlsError) as error:
            raise LinkError(error.args[0], hint=error.hint) from error
        if will:
            client.will_set(will.topic, will.payload, 1, will.retain)
        client.on_connect = lambda _client, _data, _flags, reason, properties: self._connected(reason, properties)
        client.on_disconnect = lambda _client, _data, flags, reason, _properties: self._lost(flags, reason)
        client.on_publish = lambda _client, _data, mid, reason, _properties: self.acknowledged.append(
            _acknowledgement(mid, [reason])
        )
        client.on_message = lambda _client, _data, message: self.received.append(_incoming(message))
        client.on_subscribe = lambda _client, _data, mid, codes, _properties: self.subscribed.append(
            _acknowledgement(mid, codes)
        )
        client.on_log = lambda _client, _data, level, text: self._note(level, text)
        return client

    def _connected(self, reason: object, properties: Properties | None) -> None:
        self._answer = str(reason) if getattr(reason, "is_failure", True) else ""
        if properties is None or self._answer:
            return
        receive_maximum = getattr(properties, "ReceiveMaximum", IN_FLIGHT)
        self.limits = Limits(
            packet_bytes=getattr(properties, "MaximumPacketSize", None), in_flight=min(IN_FLIGHT, receive_maximum)
        )
        self.keepalive_s = getattr(properties, "ServerKeepAlive", self.keepalive_s)  # paho keeps to it
        if getattr(properties, "MaximumQoS", 1) == 0:
            self._answer = "QoS not supported"
        elif getattr(properties, "RetainAvailable", 1) == 0:
            self._answer = "Retain not supported"

    def _refused(self, refusal: str) -> RefusedError:
        unsupported = "protocol version" in refusal.lower()
        hint = reasons.hint_for_refusal(refusal)
        return RefusedError(f"broker {self._where} refuses: {refusal}", hint=hint, unsupported=unsupported)

    def _note(self, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self._noted = text

    def _lost(self, flags: DisconnectFlags, reason: object) -> None:
        self._reason = "" if str(reason) in _UNNAMED else str(reason)
        self._closed = flags.is_disconnect_packet_from_server or self._reason in reasons.ABOUT_A_MESSAGE

    def _lost_error(self) -> LostError:
        where = f"broker {self._where}"
        if self._reason == reasons.TAKEN_OVER:
            fault, hint = reasons.another_client(self._client_id, self._settings)
            return LostError(f"{where}: {fault}", hint=hint, reason=self._reason, closed=True)
        ending = f"ends the connection: {self._reason}" if self._reason else "connection lost"
        hint = reasons.hint_for_end(self._reason)
        return LostError(f"{where}: {ending}", hint=hint, reason=self._reason, closed=self._closed)


def connect(settings: Mqtt, *, client_id: str, will: Message | None = None) -> Link:
    """Connect in the configured version of MQTT, or in the one that the broker speaks.

    Raises:
        LinkError: with the broker's reason.
    """
    protocol = speaks(settings, client_id) if settings.protocol is Protocol.AUTO else settings.protocol
    return Link(settings, client_id=client_id, protocol=protocol, will=will)


def speaks(settings: Mqtt, client_id: str) -> Protocol:
    """Find out which version of MQTT a broker speaks. No last will is sent: an old broker would misread that of MQTT 5.

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


def _incoming(message: MQTTMessage) -> Incoming:
    return Incoming(
        topic=message.topic,
        payload=bytes(message.payload),
        retained=bool(message.retain),
        answer_to=getattr(message.properties, "ResponseTopic", None),
        correlation=getattr(message.properties, "CorrelationData", None),
    )


def _acknowledgement(mid: int, codes: list[ReasonCode]) -> Acknowledgement:
    refusals = [str(code) for code in codes if code.is_failure]
    nobody = any(str(code) == "No matching subscribers" for code in codes)
    return Acknowledgement(mid=mid, refusal=refusals[0] if refusals else "", nobody=nobody)


def _no_connection(error: OSError | ValueError, settings: Mqtt) -> LinkError:
    where = f"broker {settings.host}:{settings.port}"
    if isinstance(error, socket.gaierror):
        return LinkError(f"{where}: {error}", hint="check mqtt.host")
    refused = isinstance(error, ConnectionRefusedError)
    if settings.tls and not refused and (isinstance(error, (ssl.SSLError, ConnectionError, TimeoutError))):
        return LinkError(f"{where}: {tls.cause(error)}", hint=tls.hint(error, settings))
    return LinkError(f"{where}: {error}", hint=f"is a broker running there? `mosquitto -p {settings.port}` starts one")


def _hint_for_silence(noted: str, settings: Mqtt) -> str:
    """What to do when the broker closes the connection, or stays silent, before it has answered our CONNECT."""
    if settings.tls:
        reason = tls.reason_in(noted) or tls.alert(settings)
        if reason:
            return tls.hint_for_reason(reason, settings)
    elif tls.speaks_tls(settings):
        return f"port {settings.port} speaks TLS: set mqtt.tls: true, and mqtt.tls_ca for an authority of your own"
    return "is this an MQTT port, and TLS set right?"
