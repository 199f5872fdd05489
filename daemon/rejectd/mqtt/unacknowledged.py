"""The messages that were sent and not acknowledged yet: how many may be, and which one broke a connection."""

from __future__ import annotations

import logging
import time

from rejectd.mqtt.breaking_messages import Sent, Suspects
from rejectd.mqtt.exchange import Limits, LostError, Message
from rejectd.mqtt.link import Link
from rejectd.mqtt.reasons import ABOUT_A_MESSAGE, TOO_LARGE
from rejectd.mqtt.size_limits import Fitting, packet_bytes

log = logging.getLogger(__name__)


class UnderWay:
    """The messages under way to the broker. Owned by the publish thread."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        self._suspects = Suspects()
        self._sent: dict[int, Sent] = {}  # by packet identifier

    def __bool__(self) -> bool:
        return bool(self._sent)

    def full(self, limits: Limits) -> bool:
        """Whether nothing may be sent now: the broker takes no more, or a suspect is under way, which must be alone."""
        suspect = any(self._suspects.alone(sent.message) for sent in self._sent.values())
        return suspect or len(self._sent) >= limits.in_flight

    def full_for_others(self, limits: Limits) -> bool:
        """Whether the places that are still free must be kept for verdicts."""
        return sum(sent.message.verdict is None for sent in self._sent.values()) >= limits.in_flight_others

    def must_wait(self, message: Message) -> bool:
        """Whether a message must wait because it is suspect and others are under way."""
        return bool(self._sent) and self._suspects.alone(message)

    def oldest_at(self, now: float) -> float:
        """The instant at which the oldest message was sent; `now` if none is under way."""
        return min((sent.at for sent in self._sent.values()), default=now)

    def send(self, link: Link, message: Message) -> bool:
        """Send a message, shortened if it must be. Returns False if it is still larger than the broker takes.

        Raises:
            LostError: if the connection is gone.
        """
        fitted = self._fitting.fit(message)
        if fitted is None:
            return False
        mid = link.publish(fitted, time.monotonic_ns())
        self._sent[mid] = Sent(message=message, size=packet_bytes(fitted), at=time.monotonic())
        return True

    def acknowledged(self, link: Link) -> list[tuple[Message, str]]:
        """The messages that the broker acknowledged or refused since the last call, with the reason of a refusal."""
        acknowledgements, link.acknowledged = link.acknowledged, []
        messages = []
        for acknowledgement in acknowledgements:
            sent = self._sent.pop(acknowledgement.mid, None)
            if sent is None:
                continue
            if not acknowledgement.refusal:
                self._suspects.taken(sent)
            elif acknowledgement.refusal == TOO_LARGE:
                self._fitting.learn(sent.size, self._suspects.largest_taken)
            messages.append((sent.message, acknowledgement.refusal))
        return messages

    def look_for_culprit(self, error: LostError, now: float) -> None:
        """Find the message for which the broker closed the connection, if it was one, and learn the size limit."""
        if not error.closed or error.reason not in ABOUT_A_MESSAGE:
            return
        culprit = self._suspects.broke(list(self._sent.values()), now)
        if culprit:
            topic, size = culprit.message.topic, culprit.size
            log.error("the broker breaks the connection when %s comes with %d bytes", topic, size)
            self._fitting.learn(size, self._suspects.largest_taken)

    def take_back(self) -> list[Message]:
        """Remove and return the messages that the broker has not acknowledged, in the order of sending."""
        messages = [sent.message for sent in self._sent.values()]
        self._sent.clear()
        return messages
