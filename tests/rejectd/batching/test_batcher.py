"""rejectd.batching.batcher: batches that are full, fair and in time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulated_line import MS, Clock, S, a_frame, gpu_ns

from rejectd.batching.batcher import Batch, Batcher
from rejectd.contract.messages import Frame


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
            clock=self.clock,
        )
        if takes:
            for size in range(1, max_batch + 1):
                for _ in range(60):
                    self.batcher.service_time.learn(size, takes(size))
        self._margin_ns = margin_ns
        self._seq: Counter[str] = Counter()

    def put(self, cameras: str, deadline_ns: int = 10 * S) -> list[bool]:
        """One frame for each letter."""
        answers = []
        for camera in cameras:
            self._seq[camera] += 1
            answers.append(self.batcher.put(a_frame(camera, self._seq[camera], deadline_ns, self._margin_ns)))
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
    batcher = Batcher("ab", max_batch=2, max_wait_ns=60 * S, queue_per_camera=9)
    came: list[Batch] = []
    taker = threading.Thread(target=lambda: came.extend(batch for batch in iter(batcher.take, None) if batch.frames))
    taker.start()
    for seq, camera in enumerate("abab", 1):
        batcher.put(a_frame(camera, seq, 2**62))
    batcher.close()
    taker.join(10)
    assert not taker.is_alive()
    assert Counter(names(batch.frames) for batch in came) == Counter(["a1 b2", "a3 b4"])


def test_who_has_other_things_to_do_gets_what_is_ready_and_does_not_wait() -> None:
    batcher = Batcher("a", max_batch=2, max_wait_ns=60 * S, queue_per_camera=9)
    begun = time.monotonic()
    assert batcher.take(wait=False) == Batch()
    batcher.put(a_frame("a", 1, 2**62))
    assert batcher.take(wait=False) == Batch(), "it waits for company"
    batcher.put(a_frame("a", 2, 2**62))
    found = batcher.take(wait=False)
    assert found is not None
    assert names(found.frames) == "a1 a2"
    batcher.close()
    assert batcher.take(wait=False) is None
    assert time.monotonic() - begun < 0.9, "waiting lasts a second"


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
    assert [names(batch.frames) for batch in iter(bench.batcher.take, None)] == ["a1 b1 a2 a3", "a4 a5"]
    assert bench.batcher.take() is None


def test_closing_an_empty_batcher_ends_whoever_waits() -> None:
    batcher = Batcher("a", max_batch=2, max_wait_ns=S, queue_per_camera=9)
    taker = threading.Thread(target=lambda: list(iter(batcher.take, None)))
    taker.start()
    batcher.close()
    taker.join(10)
    assert not taker.is_alive()


# how many frames it holds


def test_where_larger_batches_pay_the_batch_is_full() -> None:
    bench = Bench("a", max_batch=8, takes=gpu_ns)
    bench.put("a" * 20)
    assert len(bench.take().frames) == 8


def test_where_larger_batches_do_not_pay_a_frame_waits_for_no_other() -> None:
    bench = Bench("a", max_batch=8, takes=lambda size: size * 10 * MS)
    bench.put("a" * 20)
    assert bench.chosen() == "a1"


@pytest.mark.parametrize(("waiting", "frames"), [("aaabbb", 4), ("aaab", 1), ("aabb", 1), ("aaaaaaa", 1)])
def test_where_larger_batches_pay_a_little_they_are_taken_while_each_camera_has_more_waiting_than_fit(
    waiting: str, frames: int
) -> None:
    bench = Bench("ab", max_wait_ns=0, takes=lambda size: (100 * size + 3) * MS)
    bench.put("b")
    assert bench.chosen() == "b1"
    bench.put(waiting)
    assert len(bench.take().frames) == frames


def test_sizes_never_tried_are_tried_where_larger_batches_pay() -> None:
    bench = Bench("a", max_batch=8, max_wait_ns=0)
    tried = []
    for _ in range(20):
        bench.put("a" * 8)
        size = len(bench.take().frames)
        tried.append(size)
        bench.batcher.service_time.learn(size, gpu_ns(size))
    assert tried[-1] == 8


def test_a_size_that_was_disturbed_is_tried_again_while_each_camera_has_more_waiting_than_fit() -> None:
    bench = Bench("a", max_wait_ns=0)
    takes = {1: 10, 2: 19, 4: 36}
    for size, elapsed_ms in ((1, 10), (4, 60)):  # as measured before the first frame, the second one disturbed
        bench.batcher.service_time.learn(size, elapsed_ms * MS)
    chosen = []
    for _ in range(100):
        bench.put("a" * (8 - bench.batcher.waiting()))
        size = len(bench.take().frames)
        chosen.append(size)
        bench.batcher.service_time.learn(size, takes.get(size, 28) * MS)
    assert chosen[0] == 1
    assert chosen[-30:] == [4] * 30


def test_a_batch_leaves_half_of_the_time_that_another_camera_usually_has() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=34 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 20)
    assert len(bench.take().frames) == 7


def test_no_camera_makes_batches_so_short_that_the_device_judges_less_than_four_fifths() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=24 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 20)
    assert len(bench.take().frames) == 6, "6 in 16 ms, where 8 in 18 ms are the most"


def test_short_batches_that_do_not_keep_up_give_way_to_full_ones_as_long_as_nobody_floods() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=24 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 16, deadline_ns=bench.clock.now + 37 * MS)
    assert len(bench.take().frames) == 8, "two full batches take 36 ms, three of six 48"


def test_loose_deadlines_of_others_leave_the_batch_full() -> None:
    bench = Bench("ab", max_batch=8, max_wait_ns=0, takes=gpu_ns)
    bench.put("b", deadline_ns=60 * MS)
    assert bench.chosen() == "b1"
    bench.put("a" * 20)
    assert len(bench.take().frames) == 8


@pytest.mark.parametrize(("silent_s", "frames"), [(9, 6), (11, 8)])
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


@pytest.mark.parametrize(("left_ms", "frames"), [((60, 26), 6), ((60, 26, 60), 7), ((60, 26, 60, 60), 8)])
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
    bench = Bench("abc", max_batch=max_batch, max_wait_ns=0, queue=limit)
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
            frame = a_frame(camera, number, bench.clock.now + deadline_ms[camera] * MS, 5 * MS)
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
    batcher = Batcher("abcd", max_batch=8, max_wait_ns=MS, queue_per_camera=16)
    refused: Counter[str] = Counter()
    out: Counter[str] = Counter()

    def put(camera: str) -> None:
        for seq in range(1, 501):
            if not batcher.put(a_frame(camera, seq, 2**62)):
                refused[f"{camera}{seq}"] += 1

    def take() -> None:
        for batch in iter(batcher.take, None):
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
