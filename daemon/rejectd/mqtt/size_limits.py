"""Shortens messages to the largest packet that the broker takes, and counts those that cannot be shortened enough.

MQTT 5 brokers name their Maximum Packet Size when we connect. Other brokers close the connection; then the limit is
learnt from the size of the message that broke it (breaking_messages.py).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time

from rejectd.contract.payloads import encode, shortened
from rejectd.metrics import Metrics
from rejectd.mqtt.exchange import Message
from rejectd.mqtt.rate_limited_log import Rarely

log = logging.getLogger(__name__)

_RELEARN_S = 600.0  # after this, a learnt limit is forgotten, since the broker's may have changed
_HINT = "raise the largest packet that the broker takes (mosquitto: max_packet_size, message_size_limit)"


class Fitting:
    """The broker's size limit. Owned by the publish thread; any thread may call `problem` and `most_bytes`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._named: int | None = None  # the limit that the broker has named
        self._learnt: int | None = None
        self._learnt_at = 0.0
        self._given_up = 0
        self._shortened = 0
        self._last = ""  # topic and size of the last message that was too large
        self._largest = 0
        self._rarely = Rarely(log)

    def connected(self, packet_bytes: int | None) -> None:
        """Note the largest packet that the broker takes, as named at the connection; None if it names none."""
        self._named = packet_bytes

    def learn(self, size: int, taken: int) -> None:
        """Note that the broker did not take a packet of `size` bytes, but took one of `taken` bytes.

        The limit is somewhere between. Half of `size` is tried next, since each wrong guess costs connections.
        """
        self._learnt, self._learnt_at = max(size // 2, min(taken, size - 1)), time.monotonic()

    @property
    def most_bytes(self) -> int | None:
        """The largest packet in bytes that the broker takes; None if no limit is known."""
        if self._learnt is not None and time.monotonic() > self._learnt_at + _RELEARN_S:
            self._learnt = None
        limits = [limit for limit in (self._named, self._learnt) if limit is not None]
        return min(limits, default=None)

    def fit(self, message: Message) -> Message | None:
        """The message, shortened if it must be; None if it cannot be made to fit, which is counted and logged."""
        most, size = self.most_bytes, packet_bytes(message)
        if most is None or size <= most:
            return message
        room = most - (size - len(message.payload))
        payload = shortened(message.payload, room)
        if payload is None and message.answer:
            payload = _answer_without_result(message.payload, room, most)
        self._tell(message, size, most, given_up=payload is None)
        return None if payload is None else dataclasses.replace(message, payload=payload)

    def problem(self) -> str:
        """What a person should know of the broker's limit; empty if no message was too large."""
        most = self.most_bytes
        if most is None or self._largest <= most:
            return ""
        counts = {"given up": self._given_up, "shortened": self._shortened}
        summary = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
        return f"the broker takes messages of {most} bytes at most: {summary}, the last {self._last}; {_HINT}"

    def _tell(self, message: Message, size: int, most: int, *, given_up: bool) -> None:
        self._given_up += given_up
        self._shortened += not given_up
        self._largest = max(self._largest, size)
        self._last = f"on {message.topic} with {size} bytes"
        self._metrics.too_large.labels("given_up" if given_up else "shortened").inc()
        self._say(message, size, most, "given up" if given_up else "shortened")

    def _say(self, message: Message, size: int, most: int, done: str) -> None:
        topic = message.topic
        subject = f"event {message.event_seq}" if message.event_seq is not None else "a message"
        text = "%s: %s of %d bytes is %s, the broker takes %d; %s"
        self._rarely.say(logging.ERROR, f"{done} {topic}", text, topic, subject, size, done, most, _HINT)


def packet_bytes(message: Message) -> int:
    """The largest size in bytes of a message as an MQTT packet: header, topic, properties and payload."""
    properties = sum(3 + len(data) for data in (message.correlation, (message.answer_to or "").encode()) if data)
    properties += 5 if message.verdict else 0  # message expiry
    return 5 + 2 + len(message.topic.encode()) + 2 + 4 + properties + len(message.payload)


def _answer_without_result(body: bytes, most_bytes: int, packet_limit: int) -> bytes | None:
    """An answer without its result, and with an error that says why; None if even that does not fit."""
    answer = json.loads(body)
    error = f"it is done, but the answer has {len(body)} bytes, and the broker takes {packet_limit} at most; {_HINT}"
    return shortened(encode({**answer, "ok": False, "error": error, "result": None}), most_bytes)
