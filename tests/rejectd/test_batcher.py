"""rejectd.batcher: batches that are full, fair and in time."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rejectd.batcher import Batch, Batcher, ServiceTime
from rejectd.messages import Frame, Policy

MS = 1_000_000
S = 1000 * MS
MARGIN_NS = 20 * MS


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def a_frame(camera: str, seq: int, deadline_ns: int) -> Frame:
    return Frame(
        event_id=f"{camera}{seq}",
        camera=camera,
        product="cell",
        seq=seq,
        captured_ns=0,
        captured_unix_ns=0,
        deadline_ns=deadline_ns,
        policy=Policy.REJECT,
        source="",
        pixels=None,
        picture=None,
    )


class Bench:
    """A batcher with a clock, fed with frames of numbered cameras."""

    def __init__(
        self,
        cameras: str = "ab",
        *,
        max_batch: int = 4,
        max_wait_ns: int = 20 * MS,
        queue: int = 32,
        margin_ns: int = 0,
        takes: Callable[[int], int] | None = None,
    ) -> None:
        self.clock = Clock()
        self.batcher = Batcher(
            cameras,
            max_batch=max_batch,
            max_wait_ns=max_wait_ns,
            queue_per_camera=queue,
            margin_ns=margin_ns,
            clock=self.clock,
        )
        if takes:
            for size in range(1, max_batch + 1):
                for _ in range(60):
                    self.batcher.service_time.learn(size, takes(size))
        self._seq: Counter[str] = Counter()

    def put(self, cameras: str, deadline_ns: int = 10 * S) -> list[bool]:
        """One frame for each letter."""
        answers = []
        for camera in cameras:
            self._seq[camera] += 1
            answers.append(self.batcher.put(a_frame(camera, self._seq[camera], deadline_ns)))
        return answers

    def take(self) -> Batch:
        batch = self.batcher.take()
        assert batch is not None
        return batch

    def chosen(self) -> str:
        """The next batch in short, such as `a1 b1 a2`."""
        return names(self.take().frames)


def names(frames: tuple[Frame, ...]) -> str:
    return " ".join(frame.event_id for frame in frames)


# when a batch closes


def test_a_full_batch_closes_at_once() -> None:
    bench = Bench(max_batch=4)
    bench.put("aabb")
    assert bench.batcher.waiting() == 4
    assert len(bench.take().frames) == 4
    assert bench.batcher.waiting() == 0


def test_a_batch_closes_when_its_oldest_frame_has_waited_long_enough() -> None:
    bench = Bench(max_wait_ns=20 * MS)
    bench.put("a")
    bench.clock.now = 15 * MS
    bench.put("b")
    bench.clock.now = 20 * MS
    assert bench.chosen() == "a1 b1"


def test_a_batch_that_is_not_due_is_not_handed_out() -> None:
    bench = Bench(max_wait_ns=1 * MS)
    bench.put("a")
    assert bench.take() == Batch(), "the clock stands still, so the wait ends without a batch"
    assert bench.batcher.waiting() == 1


def test_no_waiting_means_batches_of_what_is_there() -> None:
    bench = Bench(max_wait_ns=0)
    bench.put("ab")
    assert bench.chosen() == "a1 b1"


def test_a_batch_closes_early_when_the_earliest_deadline_leaves_just_enough_time_to_inspect_it() -> None:
    bench = Bench(max_wait_ns=10 * S, margin_ns=20 * MS, takes=lambda size: size * 10 * MS)
    expected = bench.batcher.service_time.expect(2)
    bench.put("a", deadline_ns=200 * MS)
    bench.clock.now = 180 * MS - expected
    assert bench.chosen() == "a1"
    bench.put("b", deadline_ns=400 * MS)
    bench.clock.now = 380 * MS - expected - 20 * MS
    assert bench.take().frames == ()
    bench.clock.now += 20 * MS
    assert bench.chosen() == "b1"


def test_a_batch_closed_for_its_deadline_is_judged_although_the_thread_wakes_up_a_little_late() -> None:
    bench = Bench(max_wait_ns=10 * S, takes=lambda _: 10 * MS)
    bench.put("a", deadline_ns=100 * MS)
    bench.clock.now = 80 * MS
    while not ((batch := bench.take()).frames or batch.hopeless):
        bench.clock.now += 3 * MS  # the clock is read this late
    assert (names(batch.frames), names(batch.hopeless)) == ("a1", "")


def test_an_engine_that_became_slower_makes_batches_close_earlier() -> None:
    fast, slow = (Bench(max_wait_ns=10 * S, takes=lambda _, ms=ms: ms * MS) for ms in (5, 50))
    for bench in (fast, slow):
        bench.put("a", deadline_ns=100 * MS)
        bench.clock.now = 49 * MS
    assert fast.take().frames == ()
    assert slow.chosen() == "a1"


def test_a_waiting_taker_is_woken_by_the_frame_that_fills_the_batch() -> None:
    batcher = Batcher("ab", max_batch=2, max_wait_ns=60 * S, queue_per_camera=9, margin_ns=0)
    came: list[Batch] = []
    taker = threading.Thread(target=lambda: came.extend(batch for batch in batcher if batch.frames))
    taker.start()
    for seq, camera in enumerate("abab", 1):
        batcher.put(a_frame(camera, seq, 2**62))
    batcher.close()
    taker.join(10)
    assert not taker.is_alive()
    assert Counter(names(batch.frames) for batch in came) == Counter(["a1 b2", "a3 b4"])


# what goes into it


def test_frames_of_one_camera_keep_the_order_of_capture() -> None:
    bench = Bench(max_batch=3)
    bench.put("aaaaaa")
    assert [bench.chosen(), bench.chosen()] == ["a1 a2 a3", "a4 a5 a6"]


def test_among_equal_cameras_the_earliest_deadline_goes_first() -> None:
    bench = Bench("abc", max_batch=3)
    for camera, deadline_s in (("a", 3), ("b", 1), ("c", 2)):
        bench.put(camera, deadline_ns=deadline_s * S)
    assert bench.chosen() == "b1 c1 a1"


def test_cameras_share_a_batch_equally_whoever_came_first() -> None:
    bench = Bench(max_batch=4, queue=99)
    bench.put("a" * 20)
    bench.put("b" * 20)
    for _ in range(5):
        assert Counter(frame.camera for frame in bench.take().frames) == {"a": 2, "b": 2}


@pytest.mark.parametrize("flood", [1, 3, 8, 32])
def test_a_camera_that_floods_never_keeps_another_out_of_the_very_next_batch(flood: int) -> None:
    bench = Bench("abc", max_batch=4, queue=32)
    for round_number in range(1, 30):
        bench.put("a" * flood)
        if round_number % 3 == 0:
            bench.put("b")
        if round_number % 5 == 0:
            bench.put("c")
        bench.clock.now += 20 * MS
        came = {frame.camera for frame in bench.take().frames}
        assert ("b" in came) == (round_number % 3 == 0)
        assert ("c" in came) == (round_number % 5 == 0)


def test_a_camera_that_was_quiet_has_not_saved_up_a_share() -> None:
    bench = Bench(max_batch=2, queue=99)
    bench.put("a" * 40)
    for _ in range(10):
        bench.take()
    bench.put("b" * 40)
    shares = Counter(frame.camera for _ in range(10) for frame in bench.take().frames)
    assert abs(shares["a"] - shares["b"]) <= 2


def test_a_camera_that_stalls_delays_nobody() -> None:
    bench = Bench("abcdef", max_batch=4, max_wait_ns=20 * MS)
    for number in range(1, 6):
        bench.put("a")
        bench.clock.now += 20 * MS
        assert bench.chosen() == f"a{number}"


def test_too_many_frames_of_one_camera_are_refused_and_those_of_others_are_not() -> None:
    bench = Bench(max_batch=99, queue=3)
    assert bench.put("aaaaab") == [True, True, True, False, False, True]
    assert bench.batcher.waiting() == 4


def test_a_closed_batcher_takes_nothing_more_hands_out_the_rest_and_ends() -> None:
    bench = Bench(max_batch=4, max_wait_ns=10 * S)
    bench.put("aaaaab")
    bench.batcher.close()
    assert bench.put("a") == [False]
    assert [names(batch.frames) for batch in bench.batcher] == ["a1 b1 a2 a3", "a4 a5"]
    assert bench.batcher.take() is None


def test_closing_an_empty_batcher_ends_whoever_waits() -> None:
    batcher = Batcher("a", max_batch=2, max_wait_ns=S, queue_per_camera=9, margin_ns=0)
    taker = threading.Thread(target=lambda: list(batcher))
    taker.start()
    batcher.close()
    taker.join(10)
    assert not taker.is_alive()


# how many frames it holds


def gpu_ns(size: int) -> int:
    """A device for which large batches pay: one frame takes 11 ms, eight take 18."""
    return (10 + size) * MS


def test_where_larger_batches_pay_the_batch_is_full() -> None:
    bench = Bench("a", max_batch=8, takes=gpu_ns)
    bench.put("a" * 20)
    assert len(bench.take().frames) == 8


def test_where_larger_batches_do_not_pay_a_frame_waits_for_no_other() -> None:
    bench = Bench("a", max_batch=8, takes=lambda size: size * 10 * MS)
    bench.put("a" * 20)
    assert bench.chosen() == "a1"


def test_a_batch_leaves_half_of_the_time_that_another_camera_usually_has() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=30 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 20)
    assert len(bench.take().frames) == 5


def test_loose_deadlines_of_others_leave_the_batch_full() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=60 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 20)
    assert len(bench.take().frames) == 8


@pytest.mark.parametrize(("silent_s", "frames"), [(9, 5), (11, 8)])
def test_a_camera_that_stalls_keeps_batches_short_for_ten_seconds(silent_s: int, frames: int) -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=30 * MS)
    bench.take()
    bench.clock.now = silent_s * S
    bench.put("a" * 20, deadline_ns=bench.clock.now + 10 * S)
    assert len(bench.take().frames) == frames


def test_a_camera_whose_time_is_too_short_to_be_protected_does_not_cost_others_theirs() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=15 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 20)
    assert len(bench.take().frames) == 8


def test_a_camera_that_floods_does_not_keep_batches_short_by_its_own_deadlines() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=10 * S)
    bench.take()
    bench.put("a" * 20, deadline_ns=bench.clock.now + 30 * MS)
    assert len(bench.take().frames) == 8


@pytest.mark.parametrize(("left_ms", "frames"), [((60, 24), 2), ((60, 24, 60), 6), ((60, 24, 60, 60), 8)])
def test_one_frame_with_little_time_is_forgotten_after_a_few_others(left_ms: tuple[int, ...], frames: int) -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    for left in left_ms:
        bench.put("b", deadline_ns=left * MS)
        bench.take()
    bench.put("a" * 20)
    assert len(bench.take().frames) == frames


def test_a_batch_is_no_larger_than_there_are_frames_that_can_wait_for_its_end() -> None:
    bench = Bench("a", max_batch=8, takes=gpu_ns)
    bench.put("a" * 10, deadline_ns=15 * MS)
    assert len(bench.take().frames) == 5


def test_after_a_pause_a_camera_may_come_with_a_burst_before_one_that_floods() -> None:
    bench = Bench(max_batch=4, queue=99)
    bench.put("a" * 90)
    for _ in range(10):
        bench.take()
    bench.put("bbb")
    assert bench.chosen() == "b1 b2 b3 a41"


def test_among_cameras_within_their_share_the_earliest_deadline_goes_first() -> None:
    bench = Bench("abc", max_batch=4, queue=99)
    bench.put("a" * 90)
    for _ in range(10):
        bench.take()
    bench.put("bb", deadline_ns=9 * S)
    bench.put("cc", deadline_ns=8 * S)
    assert bench.chosen() == "c1 c2 b1 b2"


def test_where_equal_sharing_would_make_a_frame_late_the_earliest_deadline_goes_first() -> None:
    bench = Bench(max_batch=8, takes=gpu_ns)
    bench.put("a" * 16)
    bench.put("b" * 8, deadline_ns=25 * MS)
    assert {frame.camera for frame in bench.take().frames} == {"b"}


def test_a_burst_that_is_a_flood_has_no_precedence() -> None:
    bench = Bench(max_batch=4, queue=99)
    bench.put("a" * 90)
    for _ in range(10):
        bench.take()
    bench.put("b" * 50)
    assert Counter(frame.camera for frame in bench.take().frames) == {"a": 2, "b": 2}


# what cannot be judged in time


def test_frames_that_cannot_be_judged_in_time_come_out_at_once_as_hopeless() -> None:
    bench = Bench(max_wait_ns=10 * S, margin_ns=20 * MS, takes=lambda size: 40 * MS)
    bench.put("aa", deadline_ns=60 * MS)
    bench.put("ab", deadline_ns=10 * S)
    bench.clock.now = 10 * MS
    batch = bench.take()
    assert (names(batch.frames), names(batch.hopeless)) == ("", "a1 a2")
    assert bench.batcher.waiting() == 2


def test_a_frame_past_its_deadline_is_hopeless_even_if_nothing_is_known_of_the_engine() -> None:
    bench = Bench(max_batch=1)
    bench.put("a", deadline_ns=5)
    bench.clock.now = 6
    assert names(bench.take().hopeless) == "a1"


def test_a_frame_whose_camera_has_longer_deadlines_is_not_given_up_for_another() -> None:
    bench = Bench(max_batch=2, takes=lambda size: 40 * MS)
    bench.put("a", deadline_ns=30 * MS)
    bench.put("b", deadline_ns=S)
    assert names(bench.take().hopeless) == "a1"
    bench.clock.now = 20 * MS
    assert bench.chosen() == "b1"


def test_a_batch_grows_no_larger_than_the_earliest_deadline_in_it_allows() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=lambda size: (10 + size) * MS)
    bench.put("a", deadline_ns=12 * MS)
    bench.put("bbbb", deadline_ns=10 * S)
    assert bench.chosen() == "a1 b1"
    assert bench.chosen() == "b2 b3 b4"


def test_a_device_thought_too_slow_is_asked_again_with_one_frame_each_second() -> None:
    bench = Bench("a", max_batch=4, takes=lambda size: 500 * MS)
    probes = 0
    for _ in range(100):
        bench.put("a", deadline_ns=bench.clock.now + 100 * MS)
        batch = bench.take()
        assert len(batch.frames) + len(batch.hopeless) == 1
        probes += len(batch.frames)
        bench.clock.now += 100 * MS
    assert 8 <= probes <= 10


def test_the_margin_may_change_while_running() -> None:
    margins_ns = [20 * MS]
    batcher = Batcher(
        "a", max_batch=1, max_wait_ns=0, queue_per_camera=9, margin_ns=lambda: margins_ns[-1], clock=Clock(0)
    )
    batcher.put(a_frame("a", 1, 30 * MS))
    batcher.put(a_frame("a", 2, 30 * MS))
    first = batcher.take()
    margins_ns.append(40 * MS)
    second = batcher.take()
    assert first
    assert second
    assert (names(first.frames), names(second.hopeless)) == ("a1", "a2")


# how long a batch takes


def test_nothing_known_means_no_time_at_all() -> None:
    assert ServiceTime().expect(4) == 0


def test_the_expected_time_comes_near_to_what_was_measured_and_not_below() -> None:
    service_time = ServiceTime()
    for number in range(200):
        service_time.learn(4, (95 + number % 11) * MS)
    assert 100 * MS <= service_time.expect(4) <= 115 * MS


def test_sizes_never_seen_are_estimated_from_the_others() -> None:
    service_time = ServiceTime()
    for _ in range(200):
        service_time.learn(2, 20 * MS)
        service_time.learn(8, 40 * MS)
    two, eight = service_time.expect(2), service_time.expect(8)
    assert service_time.expect(4) == two + (eight - two) // 3
    assert eight < service_time.expect(16) < 2 * eight, "a larger batch may pay, so it is worth a try"
    assert service_time.expect(1) <= two


@given(st.dictionaries(st.integers(1, 16), st.integers(1, 10**9), min_size=1))
def test_a_larger_batch_is_never_expected_to_be_faster_nor_slower_than_its_frames_in_parts(
    costs: dict[int, int],
) -> None:
    service_time = ServiceTime()
    for size, cost_ns in costs.items():
        service_time.learn(size, cost_ns)
    expected = [service_time.expect(size) for size in range(1, 33)]
    assert expected == sorted(expected)
    assert all(expected[2 * size - 1] <= 2 * expected[size - 1] + 2 for size in range(1, 17))


def test_a_hang_counts_as_a_slow_batch_and_is_forgotten() -> None:
    service_time = ServiceTime()
    for _ in range(50):
        service_time.learn(4, 10 * MS)
    before = service_time.expect(4)
    service_time.learn(4, 5 * S)
    assert service_time.expect(4) < 4 * before
    for _ in range(60):
        service_time.learn(4, 10 * MS)
    assert service_time.expect(4) < 1.2 * before


def test_a_hang_as_the_very_first_measurement_does_not_outlive_the_next() -> None:
    service_time = ServiceTime()
    service_time.learn(4, 5 * S)
    service_time.learn(4, 10 * MS)
    assert service_time.expect(4) < 20 * MS


def test_a_size_that_was_slow_once_is_judged_by_the_other_sizes() -> None:
    service_time = ServiceTime()
    service_time.learn(4, 10 * MS)
    service_time.learn(5, 5 * S)
    assert service_time.expect(5) < 20 * MS


def test_one_slow_batch_among_many_moves_the_expectation_by_little() -> None:
    service_time = ServiceTime()
    for _ in range(50):
        service_time.learn(8, 20 * MS)
    before = service_time.expect(8)
    service_time.learn(8, 60 * MS)
    assert service_time.expect(8) < 1.1 * before


def test_the_noise_of_sizes_often_seen_is_believed_of_those_seldom_seen() -> None:
    service_time = ServiceTime()
    service_time.learn(1, 10 * MS)
    for _ in range(50):
        service_time.learn(8, 20 * MS)
    assert service_time.expect(1) < 10.5 * MS


def test_a_size_that_was_slow_once_is_tried_again_and_one_that_stays_slow_is_not() -> None:
    service_time = ServiceTime()
    for size, elapsed_ms in ((1, 10), (1, 10), (8, 500)):
        service_time.learn(size, elapsed_ms * MS)
    assert service_time.expect(8) < 8 * service_time.expect(1)
    service_time.learn(8, 500 * MS)
    assert service_time.expect(8) == 8 * service_time.expect(1)


def test_sizes_never_tried_are_tried_where_larger_batches_pay() -> None:
    bench = Bench("a", max_batch=8, max_wait_ns=0)
    tried = []
    for _ in range(20):
        bench.put("a" * 8)
        size = len(bench.take().frames)
        tried.append(size)
        bench.batcher.service_time.learn(size, gpu_ns(size))
    assert tried[-1] == 8


def test_an_engine_that_stays_slow_is_believed() -> None:
    service_time = ServiceTime()
    service_time.learn(1, 10 * MS)
    for _ in range(100):
        service_time.learn(1, 200 * MS)
    assert service_time.expect(1) >= 200 * MS


# a line under load: arrivals, a device and a clock, all simulated


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a camera sends: frames at an even or a random rate, singly or several at once."""

    rate_hz: float
    deadline_ns: int
    burst: int = 1
    uneven: bool = False
    from_s: float = 0
    until_s: float = 60

    def arrivals(self, seconds: float, rng: random.Random) -> Iterator[int]:
        gap_ns = self.burst / self.rate_hz * S
        at = self.from_s * S + rng.random() * gap_ns
        while at < min(seconds, self.until_s) * S:
            yield from (int(at) + number for number in range(self.burst))
            at += rng.expovariate(1) * gap_ns if self.uneven else gap_ns


class SimulatedWait(threading.Condition):
    """The batcher's condition; whoever waits for it lets the simulated time pass instead of the real one."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._pass_time(timeout)
        return True


Device: TypeAlias = Callable[[int, random.Random], int]  # ns that a batch of this size takes


class Line:
    """Any number of cameras and one device; runs the batcher as the inspect thread does, on a simulated clock."""

    def __init__(
        self, sources: dict[str, Source], device: Device, *, seconds: float = 4, warm: bool = True, **settings: int
    ) -> None:
        self.ends: dict[str, Counter[str]] = {camera: Counter() for camera in sources}
        self.latencies_ms: dict[str, list[float]] = {camera: [] for camera in sources}
        self.judged_hz = 0.0  # while frames arrive
        self._rng = random.Random(1)
        self._device, self._seconds, self._clock = device, seconds, Clock()
        arrivals = [
            (at, camera, source.deadline_ns)
            for camera, source in sources.items()
            for at in source.arrivals(seconds, self._rng)
        ]
        self._arrivals = deque(
            replace(a_frame(camera, seq, at + deadline_ns), captured_ns=at)
            for seq, (at, camera, deadline_ns) in enumerate(sorted(arrivals), 1)
        )
        limits = {"max_batch": 8, "max_wait_ns": 0, "queue_per_camera": 32, "margin_ns": MARGIN_NS} | settings
        self._batcher = Batcher(sources, **limits, clock=self._clock)
        self._batcher._changed = SimulatedWait(self._wait)
        for size in (1, limits["max_batch"]) if warm else ():  # as the service does before the first part comes
            self._batcher.service_time.learn(size, device(size, self._rng))

    def run(self) -> Line:
        captured = Counter(frame.camera for frame in self._arrivals)
        while self._arrivals or self._batcher.waiting():
            batch = self._batcher.take()
            assert batch is not None
            for frame in batch.hopeless:
                self._end(frame, "hopeless")
            if batch.frames:
                took = self._device(len(batch.frames), self._rng)
                self._pass(self._clock.now + took)
                self._batcher.service_time.learn(len(batch.frames), took)
            for frame in batch.frames:
                self._end(frame, "judged" if self._clock.now <= frame.deadline_ns - MARGIN_NS else "late")
        assert captured == Counter({camera: ends.total() for camera, ends in self.ends.items()}), "each ends once"
        return self

    def lost(self, *cameras: str) -> Counter[str]:
        """The frames of these cameras, or of all, that were not judged in time, by how they ended."""
        ends = sum((self.ends[camera] for camera in cameras or self.ends), Counter[str]())
        return Counter({end: count for end, count in ends.items() if end != "judged"})

    def p99_ms(self, *cameras: str) -> float:
        """What one in a hundred frames of these cameras exceeded from the capture to its verdict."""
        latencies = sorted(latency for camera in cameras for latency in self.latencies_ms[camera])
        return latencies[len(latencies) * 99 // 100]

    def _end(self, frame: Frame, how: str) -> None:
        self.ends[frame.camera][how if self._clock.now <= frame.deadline_ns else "overdue"] += 1
        if how == "judged":
            self.latencies_ms[frame.camera].append((self._clock.now - frame.captured_ns) / MS)
            self.judged_hz += (self._clock.now <= self._seconds * S) / self._seconds

    def _wait(self, timeout_s: float) -> None:
        until = self._clock.now + int(timeout_s * S) + self._rng.randrange(MS)  # a thread wakes up a little late
        self._pass(min(until, self._arrivals[0].captured_ns) if self._arrivals else until)

    def _pass(self, until: int) -> None:
        """Time passes, and frames arrive meanwhile."""
        while self._arrivals and self._arrivals[0].captured_ns <= until:
            frame = self._arrivals.popleft()
            self._clock.now = max(self._clock.now, frame.captured_ns)
            if not self._batcher.put(frame):
                self._end(frame, "refused")
        self._clock.now = max(self._clock.now, until)


def gpu(size: int, rng: random.Random) -> int:
    return int(gpu_ns(size) * rng.gauss(1, 0.02))


def cpu(size: int, rng: random.Random) -> int:
    """A device for which large batches do not pay: 8 ms for each frame."""
    return int(8 * MS * size * rng.gauss(1, 0.02))


def between(size: int, rng: random.Random) -> int:
    """A device for which large batches pay a little: one frame takes 8 ms, eight take 42."""
    return int(8 * MS * size**0.8 * rng.gauss(1, 0.02))


CAPACITY_HZ: dict[Device, float] = {gpu: 8 / 0.018, cpu: 1 / 0.008, between: 8 / 0.0422}
DEADLINES_MS = [(gpu, 60), (gpu, 1000), (cpu, 60), (cpu, 1000), (between, 120), (between, 1000)]


def equal(number: int, rate_hz: float, deadline_ms: int) -> dict[str, Source]:
    """Cameras that share a rate."""
    return {camera: Source(rate_hz=rate_hz / number, deadline_ns=deadline_ms * MS) for camera in "bcdefghi"[:number]}


@pytest.mark.parametrize("load", [0.5, 0.9])
@pytest.mark.parametrize(("device", "deadline_ms"), [(gpu, 70), (gpu, 1000), (cpu, 70), (between, 120)])
@pytest.mark.parametrize(("cameras", "max_wait_ms"), [(2, 0), (6, 20)])
def test_below_capacity_every_frame_is_judged_in_time(
    load: float, device: Device, deadline_ms: int, cameras: int, max_wait_ms: int
) -> None:
    sources = equal(cameras, load * CAPACITY_HZ[device], deadline_ms)
    line = Line(sources, device, max_wait_ns=max_wait_ms * MS).run()
    assert line.lost() == {}


@pytest.mark.parametrize("load", [1.1, 2, 4])
@pytest.mark.parametrize(("device", "deadline_ms"), DEADLINES_MS)
@pytest.mark.parametrize(("cameras", "max_wait_ms"), [(2, 0), (6, 20)])
def test_in_overload_the_device_still_judges_as_much_as_it_can(
    load: float, device: Device, deadline_ms: int, cameras: int, max_wait_ms: int
) -> None:
    sources = equal(cameras, load * CAPACITY_HZ[device], deadline_ms)
    line = Line(sources, device, max_wait_ns=max_wait_ms * MS).run()
    assert line.judged_hz >= 0.95 * CAPACITY_HZ[device]
    assert line.lost()["overdue"] == 0
    assert line.lost()["late"] <= 0.01 * line.lost().total()


@pytest.mark.parametrize("load", [1.1, 4])
@pytest.mark.parametrize("deadline_ms", [70, 200, 1000])
def test_in_overload_an_engine_that_nothing_is_known_of_is_soon_used_to_the_full(load: float, deadline_ms: int) -> None:
    line = Line(equal(2, load * CAPACITY_HZ[gpu], deadline_ms), gpu, warm=False).run()
    assert line.judged_hz >= 0.95 * CAPACITY_HZ[gpu]
    assert line.lost()["late"] <= 8


@pytest.mark.parametrize("deadline_ms", [60, 80, 100, 200, 1000])
@pytest.mark.parametrize("hanging_batch", [1, 40])
@pytest.mark.parametrize("warm", [True, False])
def test_the_line_recovers_by_itself_when_the_device_hung_once(
    deadline_ms: int, hanging_batch: int, warm: bool
) -> None:
    batches = count(0 if warm else 1)

    def hangs(size: int, rng: random.Random) -> int:
        return 2 * S if next(batches) == hanging_batch else gpu(size, rng)

    rate_hz = 0.8 * CAPACITY_HZ[gpu]
    line = Line(equal(2, rate_hz, deadline_ms), hangs, seconds=8, warm=warm).run()
    assert line.lost().total() < 4 * rate_hz, "two seconds of hanging cost little more than two seconds of verdicts"


# a camera that floods, one that stalls: the others do not feel it

# device, deadline of the neighbours, how many times longer than at 90 % load their frames may take
NEIGHBOURS = [
    (gpu, 60, 1.2),
    (gpu, 300, 1.2),
    (cpu, 60, 1.9),
    (cpu, 300, 2.5),
    (between, 80, 1.3),
    (between, 1000, 1.6),
]
FLOODS = [
    pytest.param(60, 1, id="tight"),
    pytest.param(300, 1, id="middling"),
    pytest.param(1000, 1, id="loose"),
    pytest.param(100, 8, id="bursts"),
]


@cache
def p99_ms_at_90_percent(device: Device, deadline_ms: int, max_wait_ms: int) -> float:
    """What the frames of three cameras take when a fourth fills the line up to 90 % of what the device can do."""
    neighbours = equal(3, 0.4 * CAPACITY_HZ[device], deadline_ms)
    fourth = Source(rate_hz=0.5 * CAPACITY_HZ[device], deadline_ns=deadline_ms * MS)
    line = Line(neighbours | {"a": fourth}, device, seconds=3, max_wait_ns=max_wait_ms * MS).run()
    return line.p99_ms(*neighbours)


@pytest.mark.parametrize(("device", "deadline_ms", "slower"), NEIGHBOURS)
@pytest.mark.parametrize(("flood_ms", "burst"), FLOODS)
@pytest.mark.parametrize(("factor", "max_wait_ms"), [(2, 20), (10, 0)])
def test_a_camera_that_floods_takes_no_frame_and_little_time_from_the_others(
    device: Device, deadline_ms: int, slower: float, flood_ms: int, burst: int, factor: int, max_wait_ms: int
) -> None:
    capacity_hz = CAPACITY_HZ[device]
    neighbours = equal(3, 0.4 * capacity_hz, deadline_ms)
    flood = Source(rate_hz=factor * capacity_hz, deadline_ns=flood_ms * MS, burst=burst, from_s=1)
    line = Line(neighbours | {"a": flood}, device, seconds=3, max_wait_ns=max_wait_ms * MS).run()
    assert line.lost(*neighbours) == {}
    assert line.p99_ms(*neighbours) <= slower * p99_ms_at_90_percent(device, deadline_ms, max_wait_ms)
    if device is not between:  # where small batches cost throughput, short deadlines of others cost some
        assert line.judged_hz >= 0.95 * capacity_hz * (0.4 * 1 + 1.0 * 2) / 3


def test_a_flood_that_comes_again_and_again_takes_no_frame_from_the_others() -> None:
    neighbours = equal(3, 0.75 * CAPACITY_HZ[gpu], 60)
    flood = Source(rate_hz=64, deadline_ns=S, burst=64)
    assert Line(neighbours | {"a": flood}, gpu).run().lost(*neighbours) == {}


@pytest.mark.parametrize(("device", "share"), [(gpu, 0.2), (between, 0.1)])
def test_a_camera_that_sends_four_at_once_loses_none_to_one_that_floods(device: Device, share: float) -> None:
    rate_hz = share * CAPACITY_HZ[device]
    sources = {
        "a": Source(rate_hz=4 * CAPACITY_HZ[device], deadline_ns=80 * MS),
        "b": Source(rate_hz=rate_hz, deadline_ns=80 * MS, burst=4),
    }
    assert Line(sources, device).run().lost("b") == {}


def test_two_cameras_that_flood_share_what_the_others_leave() -> None:
    neighbours = equal(2, 0.3 * CAPACITY_HZ[gpu], 60)
    floods = {
        camera: Source(rate_hz=rate * CAPACITY_HZ[gpu], deadline_ns=100 * MS) for camera, rate in (("x", 2), ("y", 5))
    }
    line = Line(neighbours | floods, gpu).run()
    assert line.lost(*neighbours) == {}
    assert line.ends["x"]["judged"] == pytest.approx(line.ends["y"]["judged"], rel=0.05)


@pytest.mark.parametrize("max_wait_ms", [0, 20])
def test_a_camera_that_stalls_changes_nothing_for_the_others(max_wait_ms: int) -> None:
    others = equal(3, 0.6 * CAPACITY_HZ[gpu], 70)
    steady = Source(rate_hz=0.2 * CAPACITY_HZ[gpu], deadline_ns=70 * MS)
    going, stalled = (
        Line(others | {"a": camera}, gpu, max_wait_ns=max_wait_ms * MS).run()
        for camera in (steady, replace(steady, until_s=1))
    )
    assert stalled.lost() == {}
    assert stalled.p99_ms(*others) <= 1.1 * going.p99_ms(*others)


def test_uneven_arrivals_within_the_share_lose_next_to_nothing_to_a_camera_that_floods() -> None:
    neighbours = {camera: Source(rate_hz=0.1 * CAPACITY_HZ[gpu], deadline_ns=70 * MS, uneven=True) for camera in "bcde"}
    flood = Source(rate_hz=4 * CAPACITY_HZ[gpu], deadline_ns=60 * MS)
    line = Line(neighbours | {"a": flood}, gpu, seconds=6).run()
    assert line.lost(*neighbours).total() <= 2


# whatever happens


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(1, 120)),
            st.tuples(st.just("pass"), st.just(""), st.integers(1, 60)),
            st.tuples(st.just("take"), st.just(""), st.integers(1, 50)),
        ),
        max_size=60,
    ),
    max_batch=st.integers(1, 5),
    limit=st.integers(1, 6),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_every_frame_that_was_taken_in_comes_out_exactly_once(
    steps: list[tuple[str, str, int]], max_batch: int, limit: int
) -> None:
    bench = Bench("abc", max_batch=max_batch, max_wait_ns=0, queue=limit, margin_ns=5 * MS)
    taken_in: list[str] = []
    out: list[Frame] = []

    def take() -> None:
        batch = bench.batcher.take()
        assert batch is not None
        assert len(batch.frames) <= max_batch
        assert all(frame.deadline_ns - 5 * MS >= bench.clock.now for frame in batch.frames)
        out.extend((*batch.frames, *batch.hopeless))

    deadline_ms = {"a": 40, "b": 90, "c": 300}
    for number, (what, camera, amount) in enumerate(steps):
        if what == "put":
            frame = a_frame(camera, number, bench.clock.now + deadline_ms[camera] * MS)
            if bench.batcher.put(frame):
                taken_in.append(frame.event_id)
        elif what == "pass":
            bench.clock.now += amount * MS
        elif bench.batcher.waiting():
            take()
            bench.batcher.service_time.learn(1 + number % max_batch, amount * MS)
    bench.batcher.close()
    while bench.batcher.waiting():
        take()
    assert bench.batcher.take() is None
    assert Counter(frame.event_id for frame in out) == Counter(taken_in)
    for camera in "abc":
        order = [frame.seq for frame in out if frame.camera == camera]
        assert sorted(order) == [int(name[1:]) for name in taken_in if name[0] == camera]


def test_threads_that_put_while_one_takes_lose_nothing() -> None:
    batcher = Batcher("abcd", max_batch=8, max_wait_ns=MS, queue_per_camera=16, margin_ns=0)
    refused: Counter[str] = Counter()
    out: Counter[str] = Counter()

    def put(camera: str) -> None:
        for seq in range(1, 501):
            if not batcher.put(a_frame(camera, seq, 2**62)):
                refused[f"{camera}{seq}"] += 1

    def take() -> None:
        for batch in batcher:
            out.update(frame.event_id for frame in (*batch.frames, *batch.hopeless))

    cameras = [threading.Thread(target=put, args=(camera,)) for camera in "abcd"]
    taker = threading.Thread(target=take)
    for thread in (taker, *cameras):
        thread.start()
    for thread in cameras:
        thread.join(30)
    batcher.close()
    taker.join(30)
    assert not taker.is_alive()
    assert out + refused == Counter(f"{camera}{seq}" for camera in "abcd" for seq in range(1, 501))
