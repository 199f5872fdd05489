"""rejectd.mqtt.events: which defect event goes to the broker next. With a real outbox."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peers import wait_for

from rejectd.mqtt import Message
from rejectd.mqtt import events as events_module
from rejectd.mqtt.events import Events
from rejectd.storage.outbox import Entries, NewEvent, Outbox, Replay
from rejectd.storage.outbox_reader import OutboxReader


class Rig:
    """An outbox and the way out of it; what is marked is marked by hand."""

    def __init__(self, path: Path) -> None:
        self.outbox = Outbox(path, keep_ns=10**18, max_bytes=10**12)
        self.outbox.open()
        self.events = Events(self._ask)
        self.reader = OutboxReader(path)
        self.patient = False  # whether the outbox answers only when it is told to
        self.question: Any = None
        self.written = 0

    def _ask(self, number: int, limit: int, busy: Collection[int], held: Collection[str]) -> None:
        self.question = number, limit, set(busy), list(held)
        if not self.patient:
            self.answer()

    def answer(self) -> None:
        """The outbox answers what it was asked last, as it is now."""
        if self.question:
            (number, limit, busy, held), self.question = self.question, None
            self.events.answer(number, self.reader.waiting(limit, busy=busy, held=held))

    def write(self, count: int, topic: str = "a") -> None:
        numbers = range(self.written + 1, self.written + count + 1)
        self.written += count
        entries = [NewEvent(event_id=f"e{number}", topic=topic, payload={}) for number in numbers]
        self.outbox.write(Entries(events=entries))
        self.events.more()

    def take(self, most: int = 1000) -> list[int]:
        """What may go out now."""
        return [number for message in self.messages(most) if (number := message.event_seq)]

    def messages(self, most: int = 1000) -> list[Message]:
        found: list[Message] = []
        while len(found) < most and (message := self.events.next()):
            found.append(message)
        return found

    def acknowledge(self, *numbers: int, mark: bool = True) -> None:
        for number in numbers:
            self.events.acknowledged(number)
        if mark:
            self.mark(*numbers)

    def mark(self, *numbers: int) -> None:
        self.outbox.write(Entries(acknowledged=numbers))
        self.events.marked(numbers)

    def close(self) -> None:
        self.reader.close()
        self.outbox.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "journal.sqlite")
    yield made
    made.close()


def test_an_empty_outbox_has_nothing_to_send_and_is_not_read_again_until_it_is_told_of_more(rig: Rig) -> None:
    assert not rig.events.idle, "it has not looked yet"
    assert rig.take() == []
    assert rig.events.idle
    rig.outbox.write(Entries(events=[NewEvent(event_id="e", topic="a", payload={"score": 2})]))
    assert rig.take() == []
    rig.events.more()
    assert not rig.events.idle
    (message,) = rig.messages()
    assert (message.topic, message.payload, message.event_seq) == ("a", b'{"score":2,"event_seq":1}', 1)
    assert not message.retain
    assert message.verdict is None
    assert not rig.events.idle, "it is under way"
    rig.acknowledge(1)
    assert rig.take() == []
    assert rig.events.idle


def test_events_go_out_in_order_and_only_some_at_a_time_so_that_a_verdict_finds_room(rig: Rig) -> None:
    rig.write(25)
    assert rig.take() == list(range(1, 11))
    rig.acknowledge(2, 1)
    assert rig.take() == [11, 12]
    rig.acknowledge(*range(3, 13))
    assert rig.take() == list(range(13, 23))
    rig.acknowledge(*range(13, 23))
    assert rig.take() == [23, 24, 25]


def test_what_is_acknowledged_is_not_sent_again_while_the_outbox_does_not_know_it_yet(rig: Rig) -> None:
    rig.write(4)
    assert rig.take() == [1, 2, 3, 4]
    rig.acknowledge(1, 2, mark=False)
    rig.write(1)
    assert rig.take() == [5]
    rig.events.take_back()
    assert rig.take() == [3, 4, 5], "not even after the connection was lost"
    rig.mark(1, 2)
    assert rig.take() == []


def test_a_slow_disk_holds_the_next_events_up_until_it_has_marked_those_that_went_out(rig: Rig) -> None:
    rig.write(400)
    sent: list[int] = []
    while numbers := rig.take():
        sent += numbers
        rig.acknowledge(*numbers, mark=False)
    assert 256 <= len(sent) < 270, "what is known only here is bounded"
    assert not rig.events.idle
    rig.mark(*sent)
    while numbers := rig.take():
        sent += numbers
        rig.acknowledge(*numbers)
    assert sent == list(range(1, 401))
    assert rig.events.idle


def test_a_topic_that_the_broker_refuses_waits_and_the_others_go_on(rig: Rig) -> None:
    for number in range(40):
        rig.write(1, topic="denied" if number % 2 else "a")
    sent = []
    while messages := rig.messages():
        for message in messages:
            assert message.event_seq
            if message.topic == "denied":
                rig.events.refused(message)
            else:
                sent.append(message.event_seq)
                rig.acknowledge(message.event_seq)
    assert sent == list(range(1, 41, 2))
    assert rig.events.refused_topics == ["denied"]
    assert rig.events.idle, "the service may stop; these events wait for the next start"
    rig.write(1, topic="a")
    assert rig.take() == [41]


def test_after_a_refusal_nothing_more_goes_out_on_that_topic(rig: Rig) -> None:
    rig.write(5, topic="denied")
    rig.write(5, topic="a")
    (first,) = rig.messages(1)
    rig.events.refused(first)
    assert [message.topic for message in rig.messages()] == ["a"] * 5


def test_a_refused_topic_is_tried_again_after_a_pause_and_goes_on_in_order(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_PAUSE_S", 0.05)
    rig.write(15, topic="denied")
    first = rig.messages()
    for message in first:
        rig.events.refused(message)
    again: list[Message] = []
    wait_for(lambda: again.extend(rig.messages()) or again, "the refused events are tried again")
    assert [message.event_seq for message in again] == list(range(1, 11))
    assert rig.events.refused_topics == []


def test_after_a_lost_connection_what_was_under_way_goes_out_again_in_order(rig: Rig) -> None:
    rig.write(12)
    assert rig.take(3) == [1, 2, 3]
    rig.acknowledge(2)
    rig.events.take_back()
    assert rig.take() == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_a_new_connection_forgets_what_the_broker_refused_before(rig: Rig) -> None:
    rig.write(1, topic="denied")
    (message,) = rig.messages()
    rig.events.refused(message)
    assert rig.take() == []
    rig.events.take_back()
    assert rig.events.refused_topics == []
    assert rig.take() == [1]


def test_replayed_events_go_out_once_after_those_that_the_broker_never_had(rig: Rig) -> None:
    rig.write(30)
    while numbers := rig.take():
        rig.acknowledge(*numbers)
    rig.outbox.replay(Replay(from_seq=5, to_seq=20))
    rig.write(2)
    sent: list[int] = []
    while numbers := rig.take():
        sent += numbers
        rig.acknowledge(*numbers)
    assert sent == [31, 32, *range(5, 21)]
    assert rig.events.idle


def test_an_answer_that_comes_late_is_taken_when_it_comes_and_nothing_is_asked_twice(rig: Rig) -> None:
    rig.patient = True
    rig.write(3)
    assert rig.take() == []
    question = rig.question
    assert rig.take() == []
    assert rig.question is question
    assert not rig.events.idle, "there may be something"
    rig.answer()
    assert rig.take() == [1, 2, 3]


def test_an_answer_to_what_was_asked_before_the_connection_was_lost_is_left_out(rig: Rig) -> None:
    rig.write(3)
    assert rig.take() == [1, 2, 3]
    rig.patient = True
    rig.write(2)
    assert rig.take() == []
    stale = rig.question
    rig.events.take_back()
    rig.events.answer(stale[0], rig.reader.waiting(10, busy=stale[2]))
    assert rig.take() == [], "4 and 5 would go out before 1"
    rig.answer()
    assert rig.take() == [1, 2, 3, 4, 5]


class Belt:
    """A broker that takes, refuses and loses events as chance will have it, and a recorder that marks them late."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.chance = random.Random(seed)
        self.under_way: list[Message] = []
        self.unmarked: list[int] = []
        self.had: Counter[int] = Counter()  # what the broker has acknowledged

    def write(self) -> None:
        self.rig.write(self.chance.randint(1, 5), topic=self.chance.choice("abc"))

    def take(self) -> None:
        for message in self.rig.messages(self.chance.randint(1, 12)):
            assert message.event_seq not in self.had
            assert message.event_seq not in {each.event_seq for each in self.under_way}
            older = [each.event_seq for each in self.under_way if each.topic == message.topic]
            assert all(number < message.event_seq for number in older), "in order within a topic"
            self.under_way.append(message)

    def acknowledge(self) -> None:
        if self.under_way:
            number = self.under_way.pop(self.chance.randrange(len(self.under_way))).event_seq
            self.had[number] += 1
            self.unmarked.append(number)
            self.rig.acknowledge(number, mark=False)

    def mark(self) -> None:
        if self.unmarked:
            self.rig.mark(*self.unmarked)
            self.unmarked.clear()

    def lose(self) -> None:
        self.rig.events.take_back()
        self.under_way.clear()

    def answer(self) -> None:
        self.rig.answer()

    def refuse(self) -> None:
        if self.under_way:
            topic = self.chance.choice(self.under_way).topic
            for message in [each for each in self.under_way if each.topic == topic]:
                self.rig.events.refused(message)
                self.under_way.remove(message)


@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(
        st.sampled_from(
            [
                Belt.write,
                Belt.take,
                Belt.take,
                Belt.answer,
                Belt.answer,
                Belt.acknowledge,
                Belt.mark,
                Belt.lose,
                Belt.refuse,
            ]
        ),
        min_size=10,
        max_size=60,
    ),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_whatever_happens_each_event_reaches_the_broker_once_and_in_the_order_of_its_topic(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: list[Callable[[Belt], None]]
) -> None:
    rig = Rig(tmp_path_factory.mktemp("events") / "journal.sqlite")
    belt = Belt(rig, seed)
    rig.patient = bool(seed % 2)
    for step in steps:
        step(belt)
    belt.lose()
    rounds = 0
    while not rig.events.idle:
        belt.take()
        belt.answer()
        while belt.under_way:
            belt.acknowledge()
        belt.mark()
        rounds += 1
        assert rounds < 1000
    assert belt.had == Counter(range(1, rig.written + 1))
    rig.close()
