"""rejectd.ledger: every frame is opened once and ends exactly once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rejectd.contract.messages import Cause, Decision, Exposure, Frame, Policy, Verdict
from rejectd.decision import unjudged
from rejectd.ledger import Ledger, Margin, Snapshot

MS = 1_000_000


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def enter(ledger: Ledger, camera: str = "a", *, captured_ns: int = 0, deadline_ns: int = 100 * MS) -> Frame:
    picture = Exposure(captured_ns=captured_ns, captured_unix_ns=1, source="s")
    return ledger.open(picture, camera=camera, product="cell", policy=Policy.STOP, deadline_ns=deadline_ns)


def ended(frame: Frame, decision: Decision = Decision.PASS, cause: Cause | None = None) -> Verdict:
    return Verdict(
        event_id=frame.event_id,
        camera=frame.camera,
        product=frame.product,
        seq=frame.seq,
        captured_ns=frame.captured_ns,
        captured_unix_ns=frame.captured_unix_ns,
        deadline_ns=frame.deadline_ns,
        decided_ns=1,
        decision=decision,
        policy=frame.policy,
        cause=cause,
    )


def balanced(snapshot: Snapshot) -> bool:
    """In sum and for each camera."""
    per_camera = Counter(snapshot.in_flight)
    for (camera, _, _), count in snapshot.verdicts.items():
        per_camera[camera] += count
    return snapshot.account.balanced and +per_camera == snapshot.captured


def test_a_frame_has_an_identity_a_deadline_and_all_that_its_exposure_has() -> None:
    ledger = Ledger("run", margin=Margin(20 * MS))
    frame = enter(ledger, captured_ns=7, deadline_ns=100)
    assert (frame.event_id, frame.camera, frame.product, frame.seq) == ("run-a-1", "a", "cell", 1)
    assert (frame.captured_ns, frame.captured_unix_ns, frame.deadline_ns) == (7, 1, 107)
    assert (frame.policy, frame.source, frame.pixels, frame.picture) == (Policy.STOP, "s", None, None)


def test_each_camera_counts_its_own_frames() -> None:
    ledger = Ledger("run", margin=Margin(0))
    frames = [enter(ledger, camera) for camera in ("a", "b", "a", "a-1", "a")]
    assert [(frame.camera, frame.seq) for frame in frames] == [("a", 1), ("b", 1), ("a", 2), ("a-1", 1), ("a", 3)]
    assert len({frame.event_id for frame in frames}) == 5


def test_the_first_verdict_counts_and_no_other() -> None:
    ledger = Ledger("run", margin=Margin(0))
    frame = enter(ledger)
    assert ledger.close(ended(frame, Decision.REJECT))
    assert not ledger.close(ended(frame, Decision.PASS))
    assert not ledger.close(unjudged(frame, Cause.LATE, 1))
    account = ledger.snapshot().account
    assert (account.captured, account.passed, account.rejected, account.unjudged, account.in_flight) == (1, 0, 1, 0, 0)


def test_a_frame_gets_its_picture_when_that_has_been_read_unless_it_has_its_end_already() -> None:
    ledger = Ledger("run", margin=Margin(0))
    frame = replace(enter(ledger), picture=np.zeros((2, 2, 3), np.uint8), model="cell@1")
    assert ledger.fill(frame)
    assert ledger.in_flight()[0] is frame
    ledger.close(ended(frame))
    assert not ledger.fill(frame)
    assert ledger.in_flight() == []
    assert ledger.snapshot().account.balanced


def test_a_verdict_for_an_unknown_frame_changes_nothing() -> None:
    ledger = Ledger("run", margin=Margin(0))
    stranger = enter(Ledger("other", margin=Margin(0)))
    before = ledger.snapshot()
    assert not ledger.close(ended(stranger))
    assert ledger.snapshot() == before


def test_eight_threads_that_race_close_each_frame_exactly_once_and_every_snapshot_balances() -> None:
    ledger = Ledger("run", margin=Margin(0))
    todo = 400
    frames: list[Frame] = []
    opened = threading.Semaphore(0)
    won: list[Counter[str]] = [Counter() for _ in range(8)]
    unbalanced: list[object] = []
    over = threading.Event()

    def opener() -> None:
        for number in range(todo):
            frames.append(enter(ledger, f"c{number % 3}"))
            opened.release(8)

    def closer(index: int) -> None:
        decision = list(Decision)[index % 3]
        cause = Cause.LATE if decision is Decision.UNJUDGED else None
        order = random.Random(index)
        for _ in range(todo):
            opened.acquire()
            for frame in order.sample(frames[-8:], k=min(8, len(frames))):
                won[index][frame.event_id] += ledger.close(ended(frame, decision, cause))
        for frame in frames:
            won[index][frame.event_id] += ledger.close(ended(frame, decision, cause))

    def auditor() -> None:
        while not over.is_set():
            snapshot = ledger.snapshot()
            if not balanced(snapshot):
                unbalanced.append(snapshot)

    threads = [threading.Thread(target=closer, args=(index,)) for index in range(8)]
    audit = threading.Thread(target=auditor)
    for thread in (*threads, audit):
        thread.start()
    opener()
    for thread in threads:
        thread.join(30)
    over.set()
    audit.join(30)
    assert not any(thread.is_alive() for thread in (*threads, audit))
    assert unbalanced == []
    assert sum(won, Counter()) == Counter(frame.event_id for frame in frames)
    account = ledger.snapshot().account
    assert (account.captured, account.in_flight) == (todo, 0)
    assert ledger.in_flight() == []


def test_frames_become_due_a_margin_before_their_deadline() -> None:
    clock = Clock()
    ledger = Ledger("run", margin=Margin(20 * MS), clock=clock)
    frame = enter(ledger, deadline_ns=100 * MS)
    clock.now = 80 * MS - 1
    assert ledger.wait_due(0) == []
    clock.now = 80 * MS
    assert ledger.wait_due(0) == [frame]


def test_a_due_frame_is_handed_out_once_and_stays_open_until_it_is_closed() -> None:
    clock = Clock()
    ledger = Ledger("run", margin=Margin(0), clock=clock)
    frame = enter(ledger)
    clock.now = 10**12
    assert ledger.wait_due(0) == [frame]
    assert ledger.wait_due(0) == []
    assert ledger.in_flight() == [frame]
    assert ledger.close(unjudged(frame, Cause.LATE, 1))
    assert ledger.in_flight() == []


def test_a_part_that_was_exposed_earlier_than_known_is_due_earlier_once() -> None:
    clock = Clock()
    ledger = Ledger("run", margin=Margin(20 * MS), clock=clock)
    frame = enter(ledger, captured_ns=50 * MS)
    hastened = ledger.hasten(frame, Exposure(captured_ns=10 * MS, captured_unix_ns=-39))
    assert (hastened.captured_ns, hastened.captured_unix_ns) == (10 * MS, -39)
    assert (hastened.deadline_ns, hastened.due_ns) == (110 * MS, 90 * MS)
    clock.now = 90 * MS
    assert ledger.wait_due(0) == [hastened]
    assert ledger.close(ended(hastened))
    clock.now = 10**12
    assert ledger.wait_due(0) == []
    assert balanced(ledger.snapshot())
    ledger.hasten(frame, Exposure(captured_ns=0, captured_unix_ns=0))
    assert ledger.in_flight() == [], "what has ended stays so"


def test_a_closed_frame_never_becomes_due() -> None:
    clock = Clock()
    ledger = Ledger("run", margin=Margin(0), clock=clock)
    first, second = enter(ledger), enter(ledger)
    assert ledger.close(ended(first))
    clock.now = 10**12
    assert ledger.wait_due(0) == [second]
    assert ledger.close(ended(second))
    assert ledger.wait_due(0) == []


@given(st.lists(st.integers(0, 50), max_size=30))
def test_due_frames_come_in_the_order_of_their_deadlines(deadlines_ns: list[int]) -> None:
    clock = Clock()
    ledger = Ledger("run", margin=Margin(0), clock=clock)
    for deadline_ns in deadlines_ns:
        enter(ledger, deadline_ns=deadline_ns)
    assert [frame.deadline_ns for frame in ledger.in_flight()] == sorted(deadlines_ns)
    came = []
    for now in (10, 25, 50):
        clock.now = now
        came += [frame.deadline_ns for frame in ledger.wait_due(0)]
        assert all(deadline <= now for deadline in came)
    assert came == sorted(deadlines_ns)


def test_waiting_ends_on_time_when_a_frame_with_an_earlier_deadline_comes() -> None:
    ledger = Ledger("run", margin=Margin(0))
    found: list[tuple[int, list[Frame]]] = []
    waiter = threading.Thread(target=lambda: found.append((0, ledger.wait_due(20)) and (time.monotonic_ns(), [])))
    enter(ledger, captured_ns=time.monotonic_ns(), deadline_ns=60_000 * MS)
    started = time.monotonic_ns()
    waiter.start()
    enter(ledger, captured_ns=started, deadline_ns=50 * MS)
    waiter.join(10)
    assert not waiter.is_alive()
    took_ns = found[0][0] - started
    assert 50 * MS <= took_ns < 5_000 * MS, "it waits for the new deadline, neither for the old one nor for the timeout"


def test_with_the_real_clock_a_frame_is_due_neither_early_nor_much_too_late() -> None:
    ledger = Ledger("run", margin=Margin(10 * MS))
    frame = enter(ledger, captured_ns=time.monotonic_ns(), deadline_ns=60 * MS)
    assert ledger.wait_due(10) == [frame]
    assert frame.deadline_ns - 10 * MS <= time.monotonic_ns() < frame.deadline_ns + 1_000 * MS


def test_waiting_for_nothing_ends_after_the_timeout() -> None:
    ledger = Ledger("run", margin=Margin(0))
    started = time.monotonic()
    assert ledger.wait_due(0.02) == []
    assert 0.02 <= time.monotonic() - started < 5


def test_an_ended_ledger_wakes_whoever_waits_and_still_counts() -> None:
    ledger = Ledger("run", margin=Margin(0))
    frame = enter(ledger, captured_ns=time.monotonic_ns(), deadline_ns=60_000 * MS)
    waiter = threading.Thread(target=ledger.wait_due, args=(60,))
    waiter.start()
    ledger.end()
    waiter.join(10)
    assert not waiter.is_alive()
    assert ledger.wait_due(60) == []
    assert ledger.close(unjudged(frame, Cause.STOPPING, 1))
    assert ledger.snapshot().account.balanced


def test_waiting_until_nothing_is_in_flight_ends_with_the_last_verdict() -> None:
    ledger = Ledger("run", margin=Margin(0))
    assert ledger.wait_empty(0)
    frames = [enter(ledger), enter(ledger)]
    assert not ledger.wait_empty(0.01)
    ledger.close(ended(frames[0]))
    assert not ledger.wait_empty(0.01)
    closer = threading.Thread(target=ledger.close, args=(ended(frames[1]),))
    closer.start()
    assert ledger.wait_empty(10)
    closer.join(10)


def test_a_snapshot_does_not_change_afterwards() -> None:
    ledger = Ledger("run", margin=Margin(0))
    frame = enter(ledger)
    before = ledger.snapshot()
    ledger.close(ended(frame))
    enter(ledger, "b")
    assert (before.captured, before.verdicts, before.in_flight) == ({"a": 1}, {}, {"a": 1})


@pytest.mark.parametrize("count", [20_000])
def test_answered_frames_leave_nothing_behind(count: int) -> None:
    clock = Clock()
    ledger = Ledger("run", margin=Margin(0), clock=clock)
    kept = enter(ledger, deadline_ns=10**15)
    for number in range(count):
        clock.now = number * MS
        ledger.close(ended(enter(ledger, captured_ns=clock.now, deadline_ns=10 * MS)))
    ledger.wait_due(0)
    assert ledger.in_flight() == [kept]
    assert ledger.snapshot().account.captured == count + 1


# what the frame knows of its part and its model


@pytest.mark.parametrize(
    ("given_trigger", "pictured", "expected"),
    [(None, None, [1, 2, 3]), (None, 0, [0, 0, 0]), (None, 112, [112, 112, 112]), (7, 112, [7, 7, 7]), (0, 9, [0] * 3)],
)
def test_a_trigger_is_given_or_that_of_the_picture_or_the_count_of_the_cameras_pictures(
    given_trigger: int | None, pictured: int | None, expected: list[int]
) -> None:
    ledger = Ledger("run", margin=Margin(0))
    enter(ledger, "other")
    picture = Exposure(captured_ns=0, captured_unix_ns=1, trigger=pictured)
    frames = [
        ledger.open(
            picture,
            camera="a",
            product="cell",
            policy=Policy.STOP,
            deadline_ns=1,
            pixels=None,
            model="cell@abc",
            trigger=given_trigger,
        )
        for _ in range(3)
    ]
    assert [frame.trigger for frame in frames] == expected
    assert {frame.model for frame in frames} == {"cell@abc"}


# the margin


def test_the_margin_is_at_first_the_least_that_the_settings_say() -> None:
    assert Margin(20 * MS).of(1000 * MS) == 20 * MS


def test_the_margin_grows_to_the_longest_way_that_was_seen_with_something_to_spare() -> None:
    margin = Margin(20 * MS)
    for took_ms in (3, 80, 5):
        margin.learn(took_ms * MS)
    assert 80 * MS * 0.98 < margin.of(1000 * MS) < 80 * MS * 1.5
    margin.learn(120 * MS)
    assert margin.of(1000 * MS) == 150 * MS


def test_the_margin_fades_by_a_hundredth_with_each_verdict_back_to_the_least() -> None:
    margin = Margin(20 * MS)
    margin.learn(120 * MS)
    before = margin.of(10_000 * MS)
    margin.learn(1 * MS)
    assert margin.of(10_000 * MS) == pytest.approx(before * 0.99, rel=1e-6)
    for _ in range(1000):
        margin.learn(1 * MS)
    assert margin.of(10_000 * MS) == 20 * MS


@given(
    least_ns=st.integers(1, 60_000 * MS),
    took_ns=st.lists(st.integers(0, 10**13), max_size=20),
    lifetime_ns=st.integers(-(10**12), 10**12),
)
def test_whatever_was_seen_the_margin_is_the_least_or_at_most_a_quarter_of_the_frames_time(
    least_ns: int, took_ns: list[int], lifetime_ns: int
) -> None:
    margin = Margin(least_ns)
    for took in took_ns:
        margin.learn(took)
    found = margin.of(lifetime_ns)
    assert found >= least_ns
    assert found == least_ns or found <= lifetime_ns / 4


def test_frames_are_due_by_the_margin_of_their_own_time_and_those_that_are_open_keep_theirs() -> None:
    clock = Clock()
    margin = Margin(20 * MS)
    ledger = Ledger("run", margin=margin, clock=clock)
    before = enter(ledger, deadline_ns=1000 * MS)
    margin.learn(200 * MS)
    long, short = enter(ledger, deadline_ns=1000 * MS), enter(ledger, deadline_ns=400 * MS)
    assert [before.due_ns, long.due_ns, short.due_ns] == [980 * MS, 750 * MS, 300 * MS]
    clock.now = 300 * MS - 1
    assert ledger.wait_due(0) == []
    came = []
    for now_ms in (300, 750, 980):
        clock.now = now_ms * MS
        came += ledger.wait_due(0)
    assert came == [short, long, before]


# the book


class Diary:
    """A book that looks at the ledger at the instant of each entry."""

    def __init__(self) -> None:
        self.ledger: Ledger | None = None
        self.entries: list[tuple[str, str, bytes]] = []
        self.seen: list[Snapshot] = []

    def open(self, frame: Frame) -> None:
        self._note("open", frame.event_id, b"")

    def end(self, event_id: str, body: bytes) -> None:
        self._note("end", event_id, body)

    def _note(self, what: str, event_id: str, body: bytes) -> None:
        assert self.ledger
        self.entries.append((what, event_id, body))
        self.seen.append(self.ledger.snapshot())


def test_the_book_hears_of_a_frame_before_anybody_else_and_of_its_verdict_before_that_counts() -> None:
    diary = Diary()
    ledger = diary.ledger = Ledger("run", margin=Margin(0), book=diary)
    frame = enter(ledger)
    assert ledger.close(ended(frame), b"verdict")
    assert diary.entries == [("open", "run-a-1", b""), ("end", "run-a-1", b"verdict")]
    at_opening, at_end = diary.seen
    assert at_opening.in_flight == {}, "nobody could have found the frame yet"
    assert at_end.verdicts == {}, "nobody could have acted on the verdict yet"


def test_the_book_hears_of_the_verdict_that_counts_and_of_no_other() -> None:
    diary = Diary()
    ledger = diary.ledger = Ledger("run", margin=Margin(0), book=diary)
    frame = enter(ledger)
    assert ledger.close(ended(frame, Decision.REJECT), b"first")
    assert not ledger.close(ended(frame), b"second")
    assert not ledger.close(ended(enter(Ledger("other", margin=Margin(0)))), b"stranger")
    assert [body for what, _, body in diary.entries if what == "end"] == [b"first"]


class Life(RuleBasedStateMachine):
    """Any order of opening, closing, waiting and time passing."""

    frames = Bundle("frames")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = Ledger("run", margin=Margin(3), clock=self.clock)
        self.opened: dict[str, Frame] = {}
        self.closed: Counter[str] = Counter()
        self.due: list[str] = []

    @rule(target=frames, camera=st.sampled_from("abc"), deadline_ns=st.integers(0, 40))
    def open(self, camera: str, deadline_ns: int) -> Frame:
        frame = enter(self.ledger, camera, captured_ns=self.clock.now, deadline_ns=deadline_ns)
        self.opened[frame.event_id] = frame
        return frame

    @rule(frame=frames, decision=st.sampled_from(Decision))
    def close(self, frame: Frame, decision: Decision) -> None:
        first = self.ledger.close(ended(frame, decision))
        assert first == (self.closed[frame.event_id] == 0)
        self.closed[frame.event_id] += 1

    @rule(frame=consumes(frames))
    def forget(self, frame: Frame) -> None:
        """Nobody closes it: it stays in flight."""

    @rule(step=st.integers(1, 30))
    def wait(self, step: int) -> None:
        self.clock.now += step
        frames = self.ledger.wait_due(0)
        assert all(frame.deadline_ns - 3 <= self.clock.now for frame in frames)
        assert all(not self.closed[frame.event_id] for frame in frames)
        self.due += [frame.event_id for frame in frames]
        missed = {
            key
            for key, frame in self.opened.items()
            if frame.deadline_ns - 3 <= self.clock.now and not self.closed[key]
        }
        assert missed <= set(self.due)
        assert len(self.due) == len(set(self.due))

    @invariant()
    def balanced(self) -> None:
        account = self.ledger.snapshot().account
        assert account.balanced
        assert account.captured == len(self.opened)
        assert account.in_flight == sum(not self.closed[key] for key in self.opened) == len(self.ledger.in_flight())


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)
