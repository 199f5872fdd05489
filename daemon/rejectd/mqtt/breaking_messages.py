"""Which message a broker breaks the connection for, where it does not say so.

Brokers without MQTT 5 close the connection when a message is larger than they take, and would again each time it is
sent. Of what was under way then, everything that is larger than all they have taken is suspect. Suspects go alone; the
one that breaks a second connection is it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rejectd.mqtt.exchange import Message

_SOON_S = 2.0  # after it was sent
_PLAIN_BYTES = 1024  # a verdict or status without long texts: no broker breaks for that
_REMEMBERED = 100
_FORGET = 5  # unexplained ends, after which what was taken before proves nothing any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that is under way."""

    message: Message  # as it was before it was made to fit
    size: int  # bytes of the packet
    at: float  # instant of sending


class Suspects:
    """Owned by the publish thread."""

    def __init__(self) -> None:
        self._breaks: dict[object, int] = {}
        self._largest_taken = 0
        self._unexplained = 0

    @property
    def largest_taken(self) -> int:
        """Bytes of the largest packet that the broker has acknowledged."""
        return self._largest_taken

    def taken(self, sent: Sent) -> None:
        """The broker has acknowledged this."""
        self._largest_taken = max(self._largest_taken, sent.size)
        self._breaks.pop(_identity(sent.message), None)
        self._unexplained = 0

    def alone(self, message: Message) -> bool:
        """Whether it must be the only one that is under way."""
        return bool(self._breaks) and _identity(message) in self._breaks

    def broke(self, under_way: Sequence[Sent], now: float) -> Sent | None:
        """The broker closed the connection while these were under way; returns what it closed it for, once known."""
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
