"""Decides which defect event of the outbox goes to the broker next, which are under way, and which must wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from rejectd.mqtt.exchange import Message
from rejectd.storage.outbox_reader import Event

_UNDER_WAY = 10  # events without acknowledgement, so few that a verdict always finds room
_UNMARKED = 256  # events that are acknowledged but not yet marked in the outbox; beyond that, the next ones wait
_PAUSE_S = 5.0  # before a topic that the broker refused is tried again

Ask: TypeAlias = Callable[[int, int, Collection[int], Collection[str]], None]  # question, limit, busy, held topics


class Events:
    """The queue of defect events. Owned by the publish thread; any thread may call `more`, `marked` and `answer`."""

    def __init__(self, ask: Ask) -> None:
        """`ask(question, limit, busy, held)` has the outbox read; its events arrive by `answer`, now or later."""
        self._ask = ask
        self._ready: deque[Message] = deque()
        self._under_way: set[int] = set()
        self._held: dict[str, float] = {}  # topic to the instant at which it is tried again
        self._lock = threading.Lock()  # guards what follows
        self._unmarked: set[int] = set()
        self._more = True  # the outbox may have something to send
        self._question = 0  # number of the last question; an answer to an older one is ignored
        self._open = False  # whether the last question has no answer yet
        self._answer: Sequence[Event] = ()

    def more(self) -> None:
        """Note that the outbox may have a new event."""
        with self._lock:
            self._more = True

    def marked(self, numbers: Iterable[int]) -> None:
        """Note that these events are marked as acknowledged in the outbox."""
        with self._lock:
            held_up = len(self._unmarked) >= _UNMARKED
            self._unmarked.difference_update(numbers)
            self._more = self._more or held_up

    def answer(self, question: int, events: Sequence[Event]) -> None:
        """Take the events of the outbox. An answer to an older question is ignored: its events may be under way."""
        with self._lock:
            if question == self._question and self._open:
                self._open = False
                self._answer = events

    @property
    def idle(self) -> bool:
        """Whether nothing can be sent now."""
        return not (self._ready or self._under_way or self._more or self._open or self._answer)

    @property
    def refused_topics(self) -> list[str]:
        """Topics on which the broker takes no events."""
        return sorted(self._held)

    def next(self) -> Message | None:
        """The next event that may go out now. Events of one topic keep their order."""
        if len(self._under_way) >= _UNDER_WAY:
            return None
        now = time.monotonic()
        for topic in [topic for topic, retry_at in self._held.items() if retry_at <= now]:
            del self._held[topic]
            self._more = True
        if not self._ready:
            self._fetch()
        if not self._ready:
            return None
        message = self._ready.popleft()
        assert message.event_seq is not None
        self._under_way.add(message.event_seq)
        return message

    def acknowledged(self, event_seq: int) -> None:
        """Note that the broker has an event. The event is not sent again before the outbox has marked it."""
        self._under_way.discard(event_seq)
        with self._lock:
            self._unmarked.add(event_seq)

    def refused(self, message: Message) -> None:
        """Note that the broker refused an event: events of its topic wait for `_PAUSE_S`, other topics go on."""
        assert message.event_seq is not None
        self._under_way.discard(message.event_seq)
        self._held[message.topic] = time.monotonic() + _PAUSE_S
        self._ready = deque(waiting for waiting in self._ready if waiting.topic != message.topic)
        self._forget_question()

    def put_back(self, message: Message) -> None:
        """Put an event that could not go out back in front: it is the next again."""
        assert message.event_seq is not None
        self._under_way.discard(message.event_seq)
        self._ready.appendleft(message)

    def take_back(self) -> None:
        """Note that the connection is lost: the events that were under way go out again."""
        self._under_way.clear()
        self._ready.clear()
        self._held.clear()
        self._forget_question()
        self.more()

    def _fetch(self) -> None:
        """Take the answer of the outbox. If there is none, ask the outbox, unless it has nothing to send."""
        self._take_answer()
        if self._ready:
            return
        with self._lock:
            if self._open or not self._more or len(self._unmarked) >= _UNMARKED:
                return
            self._more = False
            self._open = True
            self._question += 1
            question = self._question
            busy = self._unmarked | self._under_way
        self._ask(question, _UNDER_WAY, busy, list(self._held))
        self._take_answer()

    def _take_answer(self) -> None:
        with self._lock:
            events, self._answer = self._answer, ()
        self._ready.extend(
            Message(topic=event.topic, payload=event.payload, event_seq=event.event_seq) for event in events
        )
        if events:
            self.more()  # more events may wait behind these

    def _forget_question(self) -> None:
        """Ignore the answer to the open question: its events would go out before those that must be sent again."""
        with self._lock:
            self._more = self._more or self._open or bool(self._answer)
            self._open = False
            self._question += 1
            self._answer = ()
