"""The way of defect events from the outbox to the broker: which goes next, which are under way, which must wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from rejectd.mqtt.link import Message
from rejectd.outbox import OutboxError, Reader

log = logging.getLogger(__name__)

_UNDER_WAY = 10  # without acknowledgement, so that a verdict always finds room
_UNMARKED = 256  # acknowledged, but not yet marked in the outbox: a slow disk holds the next ones up
_PAUSE_S = 5.0  # before a topic that the broker refused, or an outbox that cannot be read, is tried again


class Events:
    """Owned by the publish thread; `more` and `marked` may be called by any thread."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._ready: deque[Message] = deque()
        self._under_way: set[int] = set()
        self._held: dict[str, float] = {}  # topic to the instant at which it is tried again
        self._lock = threading.Lock()  # guards what follows
        self._unmarked: set[int] = set()
        self._more = True  # the outbox may have something to send

    def more(self) -> None:
        """The outbox has something new."""
        with self._lock:
            self._more = True

    def marked(self, numbers: Iterable[int]) -> None:
        """The outbox knows that the broker has these."""
        with self._lock:
            held_up = len(self._unmarked) >= _UNMARKED
            self._unmarked.difference_update(numbers)
            self._more = self._more or held_up

    @property
    def idle(self) -> bool:
        """Whether nothing can be sent now."""
        return not (self._ready or self._under_way or self._more)

    @property
    def refused_topics(self) -> list[str]:
        """Topics on which the broker takes no events."""
        return sorted(self._held)

    def next(self) -> Message | None:
        """The next event that may go out now. Events of one topic keep their order."""
        if len(self._under_way) >= _UNDER_WAY:
            return None
        now = time.monotonic()
        for topic in [topic for topic, until in self._held.items() if until <= now]:
            del self._held[topic]
            self._more = True
        if not self._ready and self._more:
            self._fetch(now)
        if not self._ready:
            return None
        message = self._ready.popleft()
        assert message.event_seq is not None
        self._under_way.add(message.event_seq)
        return message

    def acknowledged(self, event_seq: int) -> None:
        """The broker has it. It is not sent again while the outbox does not know yet."""
        self._under_way.discard(event_seq)
        with self._lock:
            self._unmarked.add(event_seq)

    def refused(self, message: Message) -> None:
        """The broker does not take it: its topic waits, the others do not."""
        assert message.event_seq is not None
        self._under_way.discard(message.event_seq)
        self._held[message.topic] = time.monotonic() + _PAUSE_S
        self._ready = deque(each for each in self._ready if each.topic != message.topic)

    def put_back(self, message: Message) -> None:
        """It could not go out yet: it is the next again."""
        assert message.event_seq is not None
        self._under_way.discard(message.event_seq)
        self._ready.appendleft(message)

    def take_back(self) -> None:
        """The connection is lost: what was under way goes out again."""
        self._under_way.clear()
        self._ready.clear()
        self._held.clear()
        self.more()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _fetch(self, now: float) -> None:
        with self._lock:
            if len(self._unmarked) >= _UNMARKED:
                return
            self._more = False
            busy = self._unmarked | self._under_way
        try:
            events = self._reader.waiting(_UNDER_WAY, busy=busy, held=self._held)
        except OutboxError as error:
            log.error("%s", error)
            self._held[""] = now + _PAUSE_S  # no topic: only the time to look again
            return
        self._ready.extend(Message(topic=each.topic, payload=each.payload, event_seq=each.event_seq) for each in events)
        if events:
            self.more()  # there may be others behind them
