"""Finds the message for which a broker closes the connection without giving a reason.

A broker without MQTT 5 closes the connection when a message is larger than it takes, and does so each time the message
is sent again. The suspects are the messages that were under way when the connection broke, and that are larger than any
message the broker has taken. A suspect is sent alone. The suspect that breaks a second connection is the culprit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rejectd.mqtt.exchange import Message

_SOON_S = 2.0  # a message that was sent longer ago did not break the connection
_PLAIN_BYTES = 1024  # a verdict or status without long texts: no broker closes the connection for that
_REMEMBERED = 100  # suspects
_FORGET = 5  # after so many unexplained ends, the size that the broker took before proves nothing any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that is under way."""

    message: Message  # before it was shortened
    size: int  # bytes of the packet
    at: float  # instant of sending


class Suspects:
    """The messages that may have broken a connection. Owned by the publish thread."""

    def __init__(self) -> None:
        self._breaks: dict[object, int] = {}
        self._largest_taken = 0
        self._unexplained = 0

    @property
    def largest_taken(self) -> int:
        """Bytes of the largest packet that the broker has acknowledged."""
        return self._largest_taken

    def taken(self, sent: Sent) -> None:
        """Note that the broker has acknowledged a message."""
        self._largest_taken = max(self._largest_taken, sent.size)
        self._breaks.pop(_identity(sent.message), None)
        self._unexplained = 0

    def alone(self, message: Message) -> bool:
        """Whether a message is suspect, so that it must be the only one under way."""
        return bool(self._breaks) and _identity(message) in self._breaks

    def broke(self, under_way: Sequence[Sent], now: float) -> Sent | None:
        """Note which messages were under way when the broker closed the connection. Returns the culprit, once known."""
        candidates = [
            sent for sent in under_way if sent.size > max(self._largest_taken, _PLAIN_BYTES) and now < sent.at + _SOON_S
        ]
        if not candidates:
            self._unexplained += 1
            if self._unexplained >= _FORGET:
                self._largest_taken = 0
            return None
        for sent in candidates:
            identity = _identity(sent.message)
            self._breaks[identity] = self._breaks.get(identity, 0) + 1
        while len(self._breaks) > _REMEMBERED:
            del self._breaks[next(iter(self._breaks))]
        (first, *other_candidates) = candidates
        if other_candidates or self._breaks[_identity(first.message)] < 2:
            return None
        del self._breaks[_identity(first.message)]
        return first


def _identity(message: Message) -> object:
    if message.event_seq is not None:
        return message.event_seq
    if message.verdict:
        return message.verdict.event_id
    return (message.topic, message.payload) if message.answer else message.topic
