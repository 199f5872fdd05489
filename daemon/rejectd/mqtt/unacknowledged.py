"""What was sent and is not acknowledged yet: how many messages may be, how large, and which one broke a connection."""

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
    """Owned by the publish thread."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        self._suspects = Suspects()
        self._sent: dict[int, Sent] = {}  # by packet identifier

    def __bool__(self) -> bool:
        return bool(self._sent)

    def full(self, limits: Limits) -> bool:
        """Whether nothing may be sent now: the broker wants no more, or a suspect is under way, which goes alone."""
        suspect = any(self._suspects.alone(sent.message) for sent in self._sent.values())
        return suspect or len(self._sent) >= limits.in_flight

    def full_for_others(self, limits: Limits) -> bool:
        """Whether what is still free must stay so for verdicts."""
        return sum(sent.message.verdict is None for sent in self._sent.values()) >= limits.in_flight_others

    def must_wait(self, message: Message) -> bool:
        """Whether it may go only when nothing else is under way."""
        return bool(self._sent) and self._suspects.alone(message)

    def oldest_at(self, now: float) -> float:
        """The instant at which the oldest was sent; now if there is none."""
        return min((sent.at for sent in self._sent.values()), default=now)

    def send(self, link: Link, message: Message) -> bool:
        """Send it, shortened where it must be; False if it is larger than the broker takes all the same.

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
        """What the broker has acknowledged or refused since the last call, with the reason of a refusal."""
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
        """Learn what the broker closed the connection for, if it was a message."""
        if not error.closed or error.reason not in ABOUT_A_MESSAGE:
            return
        culprit = self._suspects.broke(list(self._sent.values()), now)
        if culprit:
            topic, size = culprit.message.topic, culprit.size
            log.error("the broker breaks the connection when %s comes with %d bytes", topic, size)
            self._fitting.learn(size, self._suspects.largest_taken)

    def take_back(self) -> list[Message]:
        """Everything that the broker has not acknowledged, in the order of sending; nothing is under way then."""
        messages = [sent.message for sent in self._sent.values()]
        self._sent.clear()
        return messages
