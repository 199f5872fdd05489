"""rejectd.storage.outbox: what was committed is never lost. Real SQLite files, real processes, a really full disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rejectd.contract.messages import Cause, Decision, Policy, Result, Verdict
from rejectd.contract.payloads import verdict_payload
from rejectd.storage.outbox import Change, Delivery, Entries, NewEvent, Outbox, OutboxError, Reading, Replay
from rejectd.storage.outbox_reader import OutboxReader

EVER = 10**18
DAY_NS = 86_400 * 10**9
YEAR_NS = 365 * DAY_NS
NOON = 1_700_000_000 * 10**9
TOPIC = "rejectd/v1/l/a/defect"


def an_event(number: int, size: int = 10, topic: str = TOPIC) -> NewEvent:
    return NewEvent(event_id=f"run-a-{number}", topic=topic, payload={"number": number, "fill": "x" * size})


def new(*numbers: int, size: int = 10, topic: str = TOPIC) -> Entries:
    """New events."""
    return Entries(events=[an_event(number, size, topic) for number in numbers])


def a_verdict(
    number: int,
    *,
    decision: Decision = Decision.REJECT,
    captured_unix_ns: int = NOON,
    product: str = "cell",
    source: str = "",
    views: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The body of a verdict message."""
    judged = decision is not Decision.UNJUDGED
    result = Result(score=2.0, threshold=1.0, p_value=0.1, bundle="b", engine="e", engine_ns=3_000_000)
    verdict = Verdict(
        event_id=f"20261125T060000-abcdef-a-{number}",
        camera="a",
        product=product,
        seq=number,
        trigger=100 + number,
        captured_ns=0,
        captured_unix_ns=captured_unix_ns,
        deadline_ns=200_000_000,
        decided_ns=1_500_000,
        decision=decision,
        policy=Policy.STOP,
        cause=None if judged else Cause.LATE,
        source=source,
        views=views,
        result=result if judged else None,
    )
    return verdict_payload("l", verdict)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    """Opens the journal of a line, with wide bounds if not said otherwise."""
    with contextlib.ExitStack() as stack:

        def make(
            path: Path = tmp_path / "state" / "journal.sqlite",
            keep_ns: int = EVER,
            max_bytes: int = EVER,
            **clocks: Callable[[], int],
        ) -> Outbox:
            outbox = Outbox(path, keep_ns=keep_ns, max_bytes=max_bytes, **clocks)
            outbox.open()
            stack.callback(outbox.close)
            return outbox

        yield make


def waiting(outbox: Outbox, limit: int = 10**6, **which: Any) -> list[tuple[int, int]]:
    """Number on the line and content of what the publisher would send."""
    with contextlib.closing(OutboxReader(outbox.path)) as reader:
        return [(event.event_seq, json.loads(event.payload)["number"]) for event in reader.waiting(limit, **which)]


def numbers(outbox: Outbox, limit: int = 10**6, **which: Any) -> list[int]:
    return [number for number, _ in waiting(outbox, limit, **which)]


def rows(outbox: Outbox, query: str) -> list[tuple[object, ...]]:
    """What a person sees who opens the file with SQLite."""
    with contextlib.closing(sqlite3.connect(outbox.path)) as db, db:
        return db.execute(query).fetchall()


def test_events_wait_in_order_with_their_number_on_the_line_in_the_payload(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1, 2))
    outbox.write(new(3))
    with contextlib.closing(OutboxReader(outbox.path)) as reader:
        events = reader.waiting(10)
    assert [event.event_seq for event in events] == [1, 2, 3]
    assert {event.topic for event in events} == {TOPIC}
    assert [json.loads(event.payload) for event in events] == [
        {"number": number, "fill": "x" * 10, "event_seq": number} for number in (1, 2, 3)
    ]
    assert outbox.waiting() == 3


def test_the_publisher_sees_what_was_committed_but_not_what_is_under_way_or_acknowledged(
    journal: Callable[..., Outbox],
) -> None:
    outbox = journal()
    with contextlib.closing(OutboxReader(outbox.path)) as reader:
        assert reader.waiting(10) == []
        outbox.write(new(*range(1, 8)))
        assert [event.event_seq for event in reader.waiting(3)] == [1, 2, 3]
        assert [event.event_seq for event in reader.waiting(3, busy={1, 2, 3})] == [4, 5, 6]
        outbox.write(Entries(acknowledged=[4, 6]))
        assert [event.event_seq for event in reader.waiting(10)] == [1, 2, 3, 5, 7]
        assert [event.event_seq for event in reader.waiting(10, busy=[7, 2])] == [1, 3, 5]


def test_a_topic_that_must_wait_holds_up_no_other(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    for number in range(1, 31):
        outbox.write(new(number, topic=f"rejectd/v1/l/{'abc'[number % 3]}/defect"))
    held = {"rejectd/v1/l/b/defect": 0.0}
    assert numbers(outbox, 4) == [1, 2, 3, 4]
    assert numbers(outbox, 6, held=held) == [2, 3, 5, 6, 8, 9], "in the order of the line"
    assert numbers(outbox, 3, held=held, busy={2, 3}) == [5, 6, 8]
    assert numbers(outbox, held=[f"rejectd/v1/l/{name}/defect" for name in "abc"]) == []


def test_many_held_events_before_it_do_not_hide_an_event_of_another_topic(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(*range(1, 500)))
    outbox.write(new(500, topic="rejectd/v1/l/b/defect"))
    assert numbers(outbox, 10, held=[TOPIC]) == [500]


def test_an_acknowledged_event_is_not_sent_again_but_kept(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1, 2))
    outbox.write(Entries(acknowledged=[1]))
    assert (waiting(outbox), outbox.waiting()) == ([(2, 2)], 1)
    assert rows(outbox, "SELECT event_id FROM event ORDER BY 1") == [("run-a-1",), ("run-a-2",)]


def test_an_event_written_twice_is_one_event_and_takes_no_number(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(Entries(verdicts=[a_verdict(1)], events=new(1, 1).events))
    outbox.write(Entries(verdicts=[a_verdict(1)], events=new(1, 2).events))
    assert waiting(outbox) == [(1, 1), (2, 2)]
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(1,)]


def test_a_verdict_is_kept_with_all_that_reconciliation_needs(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(Entries(verdicts=[a_verdict(7, source="7.png", views=("run-b-1", "run-c-1"))]))
    with contextlib.closing(sqlite3.connect(outbox.path)) as db:
        db.row_factory = sqlite3.Row
        (row,) = map(dict, db.execute("SELECT * FROM verdict"))
    assert row == {
        "event_id": "20261125T060000-abcdef-a-7",
        "run": "20261125T060000-abcdef",
        "camera": "a",
        "product": "cell",
        "frame_seq": 7,
        "trigger_number": 107,
        "views": "run-b-1 run-c-1",
        "captured_unix_ns": NOON,
        "deadline_ms": 200.0,
        "decision": "reject",
        "cause": None,
        "action": "reject",
        "score": 2.0,
        "threshold": 1.0,
        "p_value": 0.1,
        "bundle": "b",
        "engine_ms": 3.0,
        "latency_ms": 1.5,
        "acknowledged_ms": None,
        "source": "7.png",
    }


def test_an_unjudged_part_is_kept_with_its_cause_and_what_was_done(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(Entries(verdicts=[a_verdict(1, decision=Decision.UNJUDGED)]))
    assert rows(outbox, "SELECT decision, cause, action, score FROM verdict") == [("unjudged", "late", "stop", None)]


def test_a_picture_whose_name_is_no_text_has_its_verdict_in_the_journal_like_any_other(
    journal: Callable[..., Outbox],
) -> None:
    outbox = journal()
    name = b"left_\xff.png".decode("utf-8", "surrogateescape")  # as the kernel's names come to us
    outbox.write(Entries(verdicts=[a_verdict(1, source=name)], events=[an_event(1)]))
    assert rows(outbox, "SELECT frame_seq FROM verdict") == [(1,)]


def test_the_journal_says_when_the_broker_had_a_verdict(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    first, second, third = (a_verdict(number) for number in (1, 2, 3))
    had_first = Delivery(event_id=first["event_id"], acknowledged_ms=9.25)
    outbox.write(Entries(verdicts=[first, second], deliveries=[had_first]))
    outbox.write(Entries(deliveries=[Delivery(event_id=third["event_id"], acknowledged_ms=8.5)]))
    outbox.write(Entries(verdicts=[third]))
    kept = rows(outbox, "SELECT frame_seq, acknowledged_ms FROM verdict ORDER BY 1")
    assert kept == [(1, 9.25), (2, None), (3, None)], "the delivery of a verdict that is not there is no verdict"


def test_counts_of_actuators_are_kept_with_their_instant(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    readings = [Reading(camera="a", at_unix_ns=NOON + n, rejected=10 + n) for n in (0, 1)]
    outbox.write(Entries(readings=[*readings, Reading(camera="b", at_unix_ns=NOON, rejected=3)]))
    outbox.write(Entries(readings=[Reading(camera="a", at_unix_ns=NOON, rejected=99)]))
    kept = rows(outbox, "SELECT camera, at_unix_ns, rejected FROM actuator ORDER BY 1, 2")
    assert kept == [("a", NOON, 99), ("a", NOON + 1, 11), ("b", NOON, 3)]


def test_numbering_goes_on_after_a_restart_even_if_everything_was_pruned(journal: Callable[..., Outbox]) -> None:
    first = journal()
    first.write(new(1, 2))
    first.write(Entries(acknowledged=[1, 2]))
    first.close()
    second = journal(keep_ns=-DAY_NS)
    assert second.prune() == 0
    assert rows(second, "SELECT count(*) FROM event") == [(0,)]
    second.write(new(3))
    assert waiting(second) == [(3, 3)]


WRITER = """
import itertools, sys
from pathlib import Path
from rejectd.storage.outbox import Entries, NewEvent, Outbox
outbox = Outbox(Path(sys.argv[1]), keep_ns=10**18, max_bytes=10**18)
start = int(sys.argv[2])
print("open", flush=True)
for number in itertools.count(start, 5):
    events = [NewEvent(event_id=f"run-a-{n}", topic="t", payload={"number": n}) for n in range(number, number + 5)]
    outbox.write(Entries(events=events))
    print(number + 4, flush=True)
"""


def test_nothing_that_was_committed_is_lost_when_the_writer_is_killed_in_the_middle(
    journal: Callable[..., Outbox],
) -> None:
    path = journal().path
    committed = 0
    for round_number in range(4):
        arguments = [sys.executable, "-c", WRITER, str(path), str(committed + 1)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            assert writer.stdout.readline() == "open\n"
            for _ in range(3 + 7 * round_number):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
            told = [int(line) for line in writer.stdout.read().split()]
        outbox = journal()
        found = waiting(outbox)
        assert [number for number, _ in found] == list(range(1, len(found) + 1)), "no gap in the numbering"
        assert [content for _, content in found] == list(range(1, len(found) + 1)), "whole groups, in order"
        assert len(found) % 5 == 0
        assert len(found) >= max(told, default=committed)
        committed = len(found)
        outbox.close()
    outbox = journal()
    outbox.write(new(committed + 1))
    assert waiting(outbox)[-1] == (committed + 1, committed + 1)


def test_an_event_survives_a_crash_between_publish_and_acknowledge(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1))
    sent = waiting(outbox)
    outbox.close()  # the broker has it, the acknowledgement was not written
    assert waiting(journal()) == sent


def test_a_mistake_in_a_group_writes_nothing_and_the_next_group_is_written(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    wrong = NewEvent(event_id="x", topic="t", payload={"score": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        outbox.write(Entries(verdicts=[a_verdict(1)], events=[an_event(1), wrong]))
    outbox.write(new(2))
    assert waiting(outbox) == [(1, 2)]
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(0,)]


# bounds


def test_acknowledged_events_verdicts_and_counts_go_by_age_and_waiting_events_never(
    journal: Callable[..., Outbox],
) -> None:
    outbox = journal(keep_ns=DAY_NS)
    now = time.time_ns()
    verdicts = [a_verdict(1, captured_unix_ns=now - 2 * DAY_NS), a_verdict(2, captured_unix_ns=now)]
    readings = [Reading(camera="a", at_unix_ns=now - age * DAY_NS, rejected=age) for age in (2, 0)]
    outbox.write(Entries(verdicts=verdicts, events=new(1, 2, 3).events, readings=readings))
    outbox.write(Entries(acknowledged=[1, 2]))
    rows(outbox, f"UPDATE event SET created_unix_ns = {now - 9 * DAY_NS}")
    rows(outbox, f"UPDATE event SET acknowledged_unix_ns = {now - 2 * DAY_NS} WHERE event_seq = 1")
    assert outbox.prune() == 0
    assert rows(outbox, "SELECT event_seq FROM event") == [(2,), (3,)]
    assert rows(outbox, "SELECT frame_seq FROM verdict") == [(2,)]
    assert rows(outbox, "SELECT rejected FROM actuator") == [(0,)]


def everything(outbox: Outbox) -> list[tuple[object, ...]]:
    return [
        *rows(outbox, "SELECT event_seq FROM event"),
        *rows(outbox, "SELECT frame_seq FROM verdict"),
        *rows(outbox, "SELECT rejected FROM actuator"),
    ]


@pytest.mark.parametrize(
    "steps_ns",
    [(3 * YEAR_NS, 3 * YEAR_NS), (-3 * YEAR_NS, -3 * YEAR_NS), (53 * YEAR_NS, -53 * YEAR_NS), (-YEAR_NS, YEAR_NS)],
    ids=["forth", "back", "forth and back", "back and forth"],
)
def test_a_clock_that_is_set_while_the_service_runs_makes_nothing_old(
    journal: Callable[..., Outbox], steps_ns: tuple[int, ...]
) -> None:
    wall, running = Clock(NOON), Clock(5)
    outbox = journal(keep_ns=14 * DAY_NS, wall_clock=wall, clock=running)
    reading = Reading(camera="a", at_unix_ns=NOON, rejected=4)
    outbox.write(Entries(verdicts=[a_verdict(1)], events=new(1).events, acknowledged=[1], readings=[reading]))
    for number, step_ns in enumerate(steps_ns, 2):
        wall.now += step_ns
        outbox.write(Entries(verdicts=[a_verdict(number, captured_unix_ns=wall.now)]))
        assert outbox.prune() == 0
        assert sorted(everything(outbox)) == sorted([(1,), *((n,) for n in range(1, number + 1)), (4,)])


def test_a_clock_that_was_set_does_not_stop_time_from_passing(journal: Callable[..., Outbox]) -> None:
    wall, running = Clock(NOON), Clock(5)
    outbox = journal(keep_ns=14 * DAY_NS, wall_clock=wall, clock=running)
    outbox.write(Entries(verdicts=[a_verdict(1)]))
    wall.now += 3 * YEAR_NS
    for clock in (wall, running):
        clock.now += 15 * DAY_NS
    outbox.prune()
    assert everything(outbox) == []


def test_what_grew_old_while_the_service_was_away_goes_at_the_next_start(journal: Callable[..., Outbox]) -> None:
    before = journal(keep_ns=14 * DAY_NS, wall_clock=Clock(NOON), clock=Clock(5))
    before.write(Entries(verdicts=[a_verdict(1)]))
    before.close()
    after = journal(keep_ns=14 * DAY_NS, wall_clock=Clock(NOON + 15 * DAY_NS), clock=Clock(5))
    after.prune()
    assert everything(after) == []


def a_change(at_unix_ns: int) -> Change:
    return Change(
        at_unix_ns=at_unix_ns, what="threshold", of="cell", before="0.5", after="1000.0", why="defects may pass",
        by="threshold", request_id="shift 3", answer_to="plant/answers",
    )  # fmt: skip


def test_what_somebody_has_changed_is_kept_with_who_asked_and_goes_by_age(journal: Callable[..., Outbox]) -> None:
    outbox = journal(keep_ns=14 * DAY_NS, wall_clock=Clock(NOON), clock=Clock(5))
    outbox.write(Entries(changes=[a_change(NOON - 15 * DAY_NS), a_change(NOON)]))
    outbox.prune()
    (row,) = rows(outbox, "SELECT * FROM change")
    assert row == (
        NOON, "threshold", "cell", "0.5", "1000.0", "defects may pass", "threshold", "shift 3", "plant/answers",
    )  # fmt: skip


def test_many_changes_do_not_fill_the_disk_and_no_waiting_event_goes_for_them(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=500_000)
    outbox.write(new(1))
    outbox.write(Entries(changes=[a_change(NOON + number) for number in range(10_000)]))
    assert outbox.prune() == 0
    ((count, oldest),) = rows(outbox, "SELECT count(*), min(at_unix_ns) FROM change")
    assert 0 < count < 10_000
    assert oldest == NOON + 10_000 - count, "the oldest go first"
    assert [number for number, _ in waiting(outbox)] == [1]


def fill(outbox: Outbox, events: int, acknowledged: int, verdicts: int) -> None:
    """Events of 1 kB, the first of them acknowledged, and verdicts of half a kB."""
    outbox.write(new(*range(1, events + 1), size=1000))
    now = time.time_ns()
    long = [a_verdict(number, captured_unix_ns=now + number * 1000, product="x" * 500) for number in range(verdicts)]
    outbox.write(Entries(verdicts=long, acknowledged=range(1, acknowledged + 1)))


def test_what_goes_first_when_the_file_is_full_are_acknowledged_events(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=3_600_000)
    fill(outbox, events=3000, acknowledged=2500, verdicts=500)
    assert outbox.prune() == 0
    assert rows(outbox, "SELECT count(*) FROM event WHERE acknowledged_unix_ns IS NULL") == [(500,)]
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(500,)]
    kept = rows(outbox, "SELECT min(event_seq), max(event_seq) FROM event WHERE acknowledged_unix_ns IS NOT NULL")
    assert kept == [(1001, 2500)], "the oldest went, and no more than a thousand"


def test_what_goes_next_are_the_oldest_verdicts_and_waiting_events_stay(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=1_400_000)
    fill(outbox, events=500, acknowledged=200, verdicts=3000)
    assert outbox.prune() == 0
    assert rows(outbox, "SELECT count(*) FROM event") == [(300,)]
    (left, oldest, newest), = rows(outbox, "SELECT count(*), min(frame_seq), max(frame_seq) FROM verdict")  # fmt: skip
    assert (left, oldest, newest) == (1000, 2000, 2999)


def test_waiting_events_go_last_the_oldest_first_no_more_than_must_and_are_counted(
    journal: Callable[..., Outbox],
) -> None:
    outbox = journal(max_bytes=500_000)
    fill(outbox, events=600, acknowledged=0, verdicts=10)
    lost = outbox.prune()
    left = waiting(outbox)
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(0,)]
    assert lost + len(left) == 600
    assert [number for number, _ in left] == list(range(lost + 1, 601))
    assert len(left) > 300, "500 kB hold more than 300 events of 1 kB"
    assert outbox.prune() == 0


def test_the_file_gets_smaller_on_disk_when_it_was_pruned(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=200_000)
    fill(outbox, events=2000, acknowledged=2000, verdicts=0)
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = outbox.path.stat().st_size
    assert before > 2_000_000
    outbox.prune()
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert outbox.path.stat().st_size <= 250_000


def test_bounds_that_cannot_be_kept_end(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=1)
    outbox.write(Entries(verdicts=[a_verdict(1)], events=[an_event(1)]))
    assert outbox.prune() == 1
    assert outbox.prune() == 0


# replay


def replayed(outbox: Outbox, **bounds: int) -> tuple[int, int | None, int | None]:
    return outbox.replay(Replay(**bounds))


def test_acknowledged_events_are_sent_once_more_by_their_numbers(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(*range(1, 10)))
    outbox.write(Entries(acknowledged=range(1, 10)))
    assert replayed(outbox, from_seq=3, to_seq=5) == (3, 3, 5)
    assert numbers(outbox) == [3, 4, 5]
    assert outbox.waiting() == 0, "the broker has had them all"
    outbox.write(Entries(acknowledged=[3, 4]))
    assert numbers(outbox) == [5]
    outbox.write(Entries(acknowledged=[5]))
    assert numbers(outbox) == [], "once"
    assert replayed(outbox, from_seq=8) == (2, 8, 9)
    assert replayed(outbox, to_seq=1) == (1, 1, 1)
    assert numbers(outbox) == [1, 8, 9]
    assert replayed(outbox, from_seq=10) == (0, None, None)
    assert replayed(outbox, from_seq=5, to_seq=4) == (0, None, None)


def test_acknowledged_events_are_sent_once_more_by_the_time_at_which_they_came(journal: Callable[..., Outbox]) -> None:
    wall = Clock(NOON)
    outbox = journal(wall_clock=wall)
    for number in range(1, 6):
        wall.now = NOON + number * 10**9
        outbox.write(new(number))
    wall.now = NOON + 100 * 10**9
    outbox.write(Entries(acknowledged=range(1, 6)))
    assert replayed(outbox, since_unix_ns=NOON + 2 * 10**9, until_unix_ns=NOON + 3 * 10**9) == (2, 2, 3)
    assert numbers(outbox) == [2, 3]
    assert replayed(outbox, since_unix_ns=NOON + 5 * 10**9) == (1, 5, 5)
    assert replayed(outbox, until_unix_ns=NOON + 10**9 - 1) == (0, None, None)
    assert replayed(outbox, from_seq=4, since_unix_ns=NOON) == (2, 4, 5), "all that lie in both bounds"
    assert numbers(outbox) == [2, 3, 4, 5]


def test_a_replayed_event_is_the_same_event_again(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1))
    with contextlib.closing(OutboxReader(outbox.path)) as reader:
        first = reader.waiting(10)
        outbox.write(Entries(acknowledged=[1]))
        outbox.replay(Replay(from_seq=1))
        assert reader.waiting(10) == first


def test_what_the_broker_never_had_goes_before_what_is_asked_for_again(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(*range(1, 6)))
    outbox.write(Entries(acknowledged=range(1, 6)))
    assert replayed(outbox, from_seq=1) == (5, 1, 5)
    outbox.write(new(6, 7))
    assert numbers(outbox) == [6, 7]
    assert numbers(outbox, busy={6}) == [7]
    assert numbers(outbox, 2, busy={6, 7, 1}) == [2, 3], "neither is what is asked for again sent twice"
    outbox.write(Entries(acknowledged=[6, 7]))
    assert numbers(outbox) == [1, 2, 3, 4, 5]
    assert numbers(outbox, held=[TOPIC]) == []


def test_fresh_events_that_must_wait_hold_up_no_replay_of_another_topic(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1, topic="rejectd/v1/l/b/defect"))
    outbox.write(Entries(acknowledged=[1]))
    outbox.replay(Replay(from_seq=1))
    outbox.write(new(2))
    assert numbers(outbox, held=[TOPIC]) == [1]


def test_an_event_that_was_never_acknowledged_is_not_asked_for_again(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1, 2))
    outbox.write(Entries(acknowledged=[1]))
    assert replayed(outbox, from_seq=1) == (1, 1, 1)
    outbox.write(Entries(acknowledged=[2]))
    assert numbers(outbox) == [1]


def test_what_is_asked_for_again_outlives_a_restart_and_does_not_grow_old_meanwhile(
    journal: Callable[..., Outbox],
) -> None:
    wall = Clock(NOON)
    first = journal(keep_ns=DAY_NS, wall_clock=wall, clock=wall)
    first.write(new(1, 2))
    first.write(Entries(acknowledged=[1, 2]))
    first.replay(Replay(from_seq=2))
    first.close()
    wall.now = NOON + 9 * DAY_NS
    second = journal(keep_ns=DAY_NS, wall_clock=wall, clock=wall)
    assert second.prune() == 0
    assert everything(second) == [(2,)]
    assert numbers(second) == [2]
    second.write(Entries(acknowledged=[2]))
    assert second.prune() == 0
    assert everything(second) == [(2,)], "it is as young as its acknowledgement"


# trouble


class Disk:
    """A disk that can be made full: a small tmpfs, or a limit on the size of files where mounting is not allowed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "rejectd-test", str(directory)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with contextlib.suppress(OSError), (self.path / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.path / "ballast").unlink(missing_ok=True)

    def unmount(self) -> None:
        self.free()
        if self.mounted:
            subprocess.run(["umount", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.unmount()


def test_a_full_disk_is_told_and_loses_nothing_that_was_committed(disk: Disk) -> None:
    outbox = Outbox(disk.path / "journal.sqlite", keep_ns=EVER, max_bytes=EVER)
    too_much = Entries(verdicts=[a_verdict(2)], events=new(*range(2, 20), size=9000).events, acknowledged=[1])
    try:
        outbox.write(new(1))
        disk.fill()
        with pytest.raises(OutboxError, match=r"cannot be written: .*; free disk space"):
            outbox.write(too_much)
        assert outbox.waiting() == 1
        disk.free()
        outbox.write(new(2))
        assert waiting(outbox) == [(1, 1), (2, 2)], "no number was lost either"
    finally:
        outbox.close()


def test_pruning_on_a_full_disk_is_told_and_changes_nothing(disk: Disk) -> None:
    outbox = Outbox(disk.path / "journal.sqlite", keep_ns=-DAY_NS, max_bytes=EVER)
    try:
        outbox.write(new(*range(1, 200), size=500))
        outbox.write(Entries(acknowledged=range(1, 200)))
        disk.fill()
        with contextlib.suppress(OutboxError):  # a tmpfs may have room enough in the log; a limit on files has not
            outbox.prune()
        disk.free()
        assert outbox.prune() == 0
        assert rows(outbox, "SELECT count(*) FROM event") == [(0,)]
    finally:
        outbox.close()


def garbage_in_a_table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE verdict (something_else)")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 1000),
        lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096),
        garbage_in_a_table,
    ],
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.sqlite"
    damage(path)
    content = path.read_bytes()
    path.with_name("journal.sqlite-wal").write_bytes(b"of it")
    outbox = Outbox(path, keep_ns=EVER, max_bytes=EVER)
    outbox.write(new(1))
    assert waiting(outbox) == [(1, 1)]
    outbox.close()
    aside = Path(outbox.aside)
    assert re.fullmatch(r"journal\.sqlite\.damaged-\d{8}T\d{6}Z", aside.name)
    assert aside.read_bytes() == content, "the damaged file stays as it was"
    assert f"set aside as {aside.name}" in caplog.text


def test_events_after_a_damaged_journal_have_higher_numbers_than_any_before(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(*range(40)))
    path = outbox.path
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    outbox.close()
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    for start in (1, 2):  # the second one looks at a journal that was set aside, and at a good one
        after = Outbox(path, keep_ns=EVER, max_bytes=EVER)
        after.write(new(1000 + start))
        assert waiting(after)[-1] == (40 + start, 1000 + start)
        after.close()


def test_damage_found_later_is_told_and_the_next_transaction_goes_into_a_new_file(
    journal: Callable[..., Outbox],
) -> None:
    outbox = journal()
    outbox.write(Entries(verdicts=[a_verdict(number) for number in range(2000)], events=new(*range(2000)).events))
    path = outbox.path
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    outbox.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 8)
        file.write(b"\xff" * (size - 4096 * 8))

    damaged = Outbox(path, keep_ns=EVER, max_bytes=EVER)

    def use() -> None:
        damaged.write(Entries(verdicts=[a_verdict(5000)], events=new(5000).events, acknowledged=range(2000)))
        damaged.waiting()
        damaged.replay(Replay(from_seq=1))
        damaged.prune()
        damaged.examine()

    with contextlib.suppress(OutboxError):  # at once, or when the damaged part is touched
        use()
    damaged.write(new(9000))
    assert damaged.aside
    assert "run-a-9000" in [event_id for (event_id,) in rows(damaged, "SELECT event_id FROM event")]
    damaged.close()


def test_a_file_of_a_newer_version_is_left_alone(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write(new(1))
    rows(outbox, "PRAGMA user_version=99")
    outbox.close()
    with pytest.raises(OutboxError, match=r"was written by a newer rejectd; install that version again"):
        journal()
    with contextlib.closing(sqlite3.connect(outbox.path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(parents=True), lambda path: path.parent.write_text("a file")])
def test_a_path_that_cannot_be_used_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    make(path)
    with pytest.raises(OutboxError, match=r"journal\.sqlite: the journal cannot be opened: .*; let the service's user"):
        Outbox(path, keep_ns=EVER, max_bytes=EVER).open()


def test_a_reader_never_holds_up_the_writer_nor_sees_half_a_group(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    over = threading.Event()
    halves: list[int] = []

    def read() -> None:
        with contextlib.closing(OutboxReader(outbox.path)) as reader:
            while not over.is_set():
                count = len(reader.waiting(10**6))
                if count % 4:
                    halves.append(count)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1, 200, 4):
        outbox.write(new(*range(number, number + 4)))
    over.set()
    thread.join(10)
    assert not thread.is_alive()
    assert halves == []
    assert len(waiting(outbox)) == 200
