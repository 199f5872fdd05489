"""How old pictures are, told from time stamps and arrivals alone."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from rejectd.cameras.streams.freshness import DRIFT, STALE_S, Age, Freshness

STEP_S = 0.05


def settled(start_s: float = 100.0) -> tuple[Freshness, float, float]:
    """A connection with steady pictures; the last time stamp and arrival."""
    freshness = Freshness()
    stamp_s = 0.0
    while not freshness.settle(stamp_s, start_s + stamp_s, STEP_S):
        stamp_s += STEP_S
    return freshness, stamp_s, start_s + stamp_s


def test_steady_pictures_settle_with_the_third():
    _, stamp_s, _ = settled()
    assert stamp_s == pytest.approx(2 * STEP_S)


def test_pictures_that_queued_do_not_settle():
    freshness = Freshness()
    assert not any(freshness.settle(n * STEP_S, 100 + n * 0.001, 0.0) for n in range(50))


def test_pictures_that_catch_up_over_a_slow_link_do_not_settle():
    freshness = Freshness()
    assert not any(freshness.settle(n * STEP_S, 100 + n * 0.03, 0.03) for n in range(50))


def test_what_queued_shows_its_lag_until_the_queue_is_empty():
    freshness, stamp_s, arrived_s = settled()
    resumed_s = arrived_s + 1.0  # 20 pictures queued for up to a second and come at once
    lags = [freshness.age(stamp_s + n * STEP_S, resumed_s, 0.0).lag_s for n in range(1, 21)]
    assert lags[0] == pytest.approx(0.95, abs=0.01)
    assert lags[-1] == pytest.approx(0.0, abs=0.01)


def test_a_lag_that_stays_is_never_forgiven_quickly():
    freshness, stamp_s, arrived_s = settled()
    for n in range(1, 1200):  # a minute
        lag_s = freshness.age(stamp_s + n * STEP_S, arrived_s + n * STEP_S + 1.0, STEP_S).lag_s
    assert lag_s > 0.95


@pytest.mark.parametrize("drift", [-100e-6, 100e-6])
def test_a_camera_clock_that_runs_wrong_by_100_ppm_makes_no_lag(drift):
    assert abs(drift) < DRIFT
    freshness, stamp_s, arrived_s = settled()
    for second in range(1, 36_000):  # ten hours
        lag_s = freshness.age(stamp_s + second, arrived_s + second * (1 + drift), 0.9).lag_s
    assert lag_s < 0.01


class Camera:
    """Pictures at a steady rate that come at once; a test may stall the way and change the time stamps."""

    def __init__(self, step_s: float = STEP_S) -> None:
        self.freshness = Freshness()
        self.step_s = step_s
        self.now_s = 100.0
        self.shift_s = 0.0
        while not self.freshness.settle(self.now_s + self.shift_s, self.now_s, step_s):
            self.now_s += step_s

    def next(self, outlier_s: float = 0.0, waited: float = 1.0) -> Age:
        """The next picture, which comes at once."""
        self.now_s += self.step_s
        return self.freshness.age(self.now_s + self.shift_s + outlier_s, self.now_s, waited * self.step_s)

    def stall(self, seconds: float) -> list[tuple[float, Age]]:
        """Pictures that queue for a while and come together; with the true age of each."""
        taken_s = [self.now_s + n * self.step_s for n in range(1, round(seconds / self.step_s) + 1)]
        resumed_s = taken_s[-1]
        waits_s = [seconds] + [0.0] * len(taken_s)
        ages = []
        for number, taken in enumerate(taken_s):
            self.now_s = resumed_s + 0.001 * number
            ages.append((self.now_s - taken, self.freshness.age(taken + self.shift_s, self.now_s, waits_s[number])))
        return ages


JUMPS_S = [37_600.0, -10_121.7, -90_000.0, 3.0, 0.7, -0.7, -60.0, 1e9]


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_one_time_stamp_that_jumps_makes_no_picture_stale(jump_s):
    camera = Camera()
    ages = [camera.next(jump_s if n == 5 else 0.0) for n in range(50)]
    assert not [age.doubt for age in ages if age.doubt]
    assert max(age.lag_s for age in ages) <= STEP_S + 1e-6
    assert ages[-1].lag_s < 1e-6, "the outlier left a trace"


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_time_stamps_that_jump_for_good_are_followed(jump_s):
    camera = Camera()
    camera.next()
    camera.shift_s = jump_s
    ages = [camera.next() for _ in range(50)]
    assert not [age.doubt for age in ages if age.doubt]
    assert ages[-1].lag_s < 1e-6
    assert not camera.freshness.no_clock


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_queue_is_still_seen_after_time_stamps_jumped(jump_s):
    camera = Camera()
    camera.shift_s = jump_s
    for _ in range(5):
        camera.next()
    queued = list(camera.stall(2.0))
    assert len(queued) > 10
    for true_s, age in queued:
        assert age.lag_s == pytest.approx(true_s, abs=0.01)


@pytest.mark.parametrize("jump_s", JUMPS_S)
@pytest.mark.parametrize("number", [0, 1, 10, 30, 39])
def test_no_picture_of_a_queue_passes_for_younger_than_it_is_when_time_stamps_jump_in_it(jump_s, number):
    camera = Camera()
    camera.next()

    class JumpsAt(Freshness):
        count = 0

        def age(self, stamp_s, arrived_s, waited_s):
            self.count += 1
            return super().age(stamp_s + (jump_s if self.count > number else 0.0), arrived_s, waited_s)

    camera.freshness.__class__ = JumpsAt
    queued = list(camera.stall(2.0))
    assert len(queued) > number
    for true_s, age in queued:
        assert age.lag_s > true_s - 0.01 or abs(jump_s) < 2.0


def test_time_stamps_that_start_again_at_0_are_followed():
    camera = Camera()
    camera.shift_s = -camera.now_s
    assert not [age for _ in range(20) if (age := camera.next()).doubt]


def test_a_slow_camera_loses_a_few_pictures_to_a_jump_and_says_how_old_they_may_be():
    camera = Camera(step_s=1.0)
    camera.next()
    camera.shift_s = 3600.0
    doubts = [camera.next().doubt for _ in range(6)]
    assert doubts[0] == "its time stamp jumped: it may be up to 1.0 s old"
    assert all(doubts[:2])
    assert not any(doubts[2:])


def test_one_wrong_time_stamp_of_a_slow_camera_costs_one_picture():
    camera = Camera(step_s=1.0)
    camera.next()
    assert [bool(camera.next(3600.0 if n == 1 else 0.0).doubt) for n in range(5)] == [False, True, False, False, False]


def test_pictures_that_queue_after_a_jump_are_not_trusted_before_they_are_waited_for():
    camera = Camera()
    camera.next()
    camera.shift_s = 500.0
    ages = camera.stall(1.5)
    assert [bool(age.doubt) for true_s, age in ages if true_s > 0.5] == [True] * 20
    for _ in range(3):
        age = camera.next()
    assert not age.doubt


def test_time_stamps_that_jump_with_every_picture_are_named():
    camera = Camera()
    doubts = [camera.next(37.0 * (n * 7919 % 1009)).doubt for n in range(70)]
    assert camera.freshness.no_clock
    assert "jumped" in doubts[-1]
    assert camera.freshness.trouble()[0] == "time stamps jump from picture to picture"
    assert "timestamps: arrival" in camera.freshness.trouble()[1]


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.1, 1.25, 2.0, 3.0])
def test_time_stamps_at_a_wrong_rate_are_named_and_not_taken_for_a_queue(rate):
    camera = Camera()
    named = False
    for n in range(1, 400):
        age = camera.next(outlier_s=(rate - 1) * n * STEP_S)
        named |= camera.freshness.no_clock or bool(age.doubt)
        assert not age.doubt.startswith("stale")
        if named:
            break
    assert named
    if rate == 3.0:  # then each stamp is further ahead than a picture without delay can be
        ahead = "time stamps run ahead of the clock", "time stamps jump from picture to picture"
        assert camera.freshness.trouble()[0] in ahead
        return
    told = re.match(r"time stamps advance (\S+) s in a second", camera.freshness.trouble()[0])
    assert told
    assert float(told[1]) == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("rate", [0.97, 0.99, 29.97 / 30])
def test_time_stamps_that_run_a_little_slow_are_named_and_not_taken_for_a_queue(rate):
    camera = Camera()
    for n in range(1, 30_000):
        age = camera.next(outlier_s=(rate - 1) * n * STEP_S + (0.02 if n % 3 else 0.0))
        if age.doubt:
            break
    assert age.doubt == "its time stamps fell behind the clock little by little: it may be 0.5 s old"
    assert camera.freshness.trouble()[0] == "time stamps fell behind the clock little by little, by 0.5 s"


def test_a_queue_that_formed_in_a_stall_is_not_taken_for_a_slow_clock():
    camera = Camera()
    for n in range(200):  # 0.1 s in 10 s
        camera.next(outlier_s=-0.01 * n * STEP_S)
    camera.shift_s = -0.1
    doubts = [age.doubt for _, age in camera.stall(2.0)]
    assert doubts[0].startswith("stale: taken 2.0 s")


def test_time_stamps_at_a_wrong_rate_from_the_beginning_are_named():
    freshness = Freshness()
    assert not any(freshness.settle(2.0 * n * STEP_S, 100 + n * STEP_S, STEP_S * 0.9) for n in range(100))
    assert freshness.trouble()[0].startswith("time stamps advance 2.00 s in a second")


def test_a_clock_that_runs_fast_by_half_a_percent_is_no_trouble():
    camera = Camera()
    for n in range(20_000):
        assert not camera.next(outlier_s=0.005 * n * STEP_S).doubt
    assert not camera.freshness.no_clock


def test_pictures_without_time_stamps_are_named():
    camera = Camera()
    assert "without time stamp" in camera.freshness.age(None, camera.now_s, STEP_S).doubt
    assert camera.freshness.trouble() == ("pictures come without time stamps", "set `timestamps: arrival`")


def test_a_stall_while_a_connection_settles_is_seen():
    freshness = Freshness()
    freshness.settle(0.0, 100.0, STEP_S)
    freshness.settle(STEP_S, 100.0 + STEP_S, STEP_S)
    for n in range(2, 60):  # the third picture comes 3 s late, and with it those that queued behind it
        assert not freshness.settle(n * STEP_S, 103.1 + 0.001 * n, 3.0 if n == 2 else 0.0)


@pytest.mark.parametrize("outlier_s", [0.0, 3.0, -60.0, 37_600.0])
def test_a_jump_within_a_queue_does_not_shorten_it(outlier_s):
    camera = Camera()
    for _ in range(5):
        camera.next()
    resumed_s = camera.now_s + 3.0
    for n in range(1, 60):  # the queue empties; in its midst the stamps go 1.5 s ahead, and one of them elsewhere
        taken_s = camera.now_s + n * STEP_S
        arrived_s = resumed_s + 0.001 * n
        shift_s = (1.5 if n > 20 else 0.0) + (outlier_s if n == 30 else 0.0)
        age = camera.freshness.age(taken_s + shift_s, arrived_s, 3.0 if n == 1 else 0.0)
        assert age.lag_s > arrived_s - taken_s - 0.01


class Life:
    """A camera whose network stalls and whose time stamps jump at random, ahead by more than any stall."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.step_s = self.random.choice([0.02, 0.05, 0.1, 0.5])
        self.count = round(100 / self.step_s)
        choose = self.random.choice
        self.stalls: list[tuple[float, float]] = []
        at_s = 5.0
        while at_s < 50:
            at_s += self.random.expovariate(1 / 8)
            self.stalls.append((at_s, at_s + choose([0.2, 0.4, 0.7, 1.5, 4.0])))
            at_s = self.stalls[-1][1]
        self.jumps = [
            (
                int(self.random.uniform(3, 45) / self.step_s),
                choose([37_600, -10_121, 60, -60, -3]),
                choose([1, 3, 10**9]),
            )
            for _ in range(self.random.randrange(6))
        ]

    def pictures(self) -> Iterator[tuple[float, float, float, float]]:
        """When each was taken, its stamp, when it came and how long it was waited for."""
        read_s = 0.0
        for number in range(self.count):
            taken_s = number * self.step_s
            ready_s = taken_s + 0.01 + 0.02 * self.random.random()
            for begin_s, end_s in self.stalls:
                ready_s = end_s if begin_s <= ready_s < end_s else ready_s
            asked_s, read_s = read_s + 0.002, max(ready_s, read_s + 0.002)
            shift_s = sum(jump_s for at, jump_s, length in self.jumps if at <= number < at + length)
            yield taken_s, taken_s + shift_s, read_s, read_s - asked_s


@pytest.mark.parametrize("seed", range(60))
def test_whatever_stalls_and_jumps_no_stale_picture_is_taken_for_fresh_and_fresh_ones_come_again(seed):
    life, freshness, doubted_since_s = Life(seed), Freshness(), None
    for taken_s, stamp_s, arrived_s, waited_s in life.pictures():
        if not freshness.settled:
            freshness.settle(stamp_s, arrived_s, waited_s)
            continue
        age = freshness.age(stamp_s, arrived_s, waited_s)
        if not age.doubt:
            assert arrived_s - taken_s < STALE_S + 0.05
            doubted_since_s = None
        doubted_since_s = doubted_since_s or (arrived_s if age.doubt else None)
        if freshness.no_clock or (doubted_since_s and arrived_s - doubted_since_s > 3.0):
            freshness, doubted_since_s = Freshness(), None  # a new connection
    assert freshness.settled
    assert not age.doubt
