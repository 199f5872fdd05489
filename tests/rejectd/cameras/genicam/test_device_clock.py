"""A camera's clock: its drift, the delays on the way, and jumps."""

from __future__ import annotations

import random

import pytest

from rejectd.cameras.genicam.device_clock import DeviceClock

MS = 1_000_000
WAY_NS = 2 * MS  # the shortest way of a picture, which nothing can see


def _arrivals(
    count: int, period_ns: int, drift: float, *, delay_ms: float = 5.0, zero_ns: int = 10**15
) -> list[tuple[int, int, int]]:
    """(taken, stamp, arrived) of pictures: `taken` and `arrived` by our clock, `stamp` by the camera's."""
    rng = random.Random(3)
    pictures, arrived = [], 0
    for number in range(count):
        taken = 10**12 + number * period_ns
        arrived = max(arrived + 1, taken + WAY_NS + round(rng.expovariate(1 / (delay_ms * MS))))
        pictures.append((taken, zero_ns + round((taken - 10**12) * (1 - drift)), arrived))
    return pictures


@pytest.mark.parametrize("drift", [-100e-6, 0.0, 100e-6])
def test_ten_minutes_of_drift_and_delays_leave_the_time_of_a_picture_true_to_a_millisecond(drift: float) -> None:
    clock = DeviceClock()
    errors = []
    for taken, stamp, arrived in _arrivals(18_000, 33 * MS, drift):
        errors.append(clock.captured(stamp, arrived).captured_ns - taken - WAY_NS)
    assert max(abs(error) for error in errors[600:]) < 1 * MS
    assert clock.drift == pytest.approx(drift, abs=5e-6)


def test_pictures_that_queued_during_a_stall_keep_the_time_at_which_they_were_taken() -> None:
    clock = DeviceClock()
    pictures = _arrivals(600, 33 * MS, 50e-6)
    for _, stamp, arrived in pictures[:500]:
        clock.captured(stamp, arrived)
    stalled_until = pictures[599][0] + 10 * MS
    for taken, stamp, _ in pictures[500:]:
        captured = clock.captured(stamp, stalled_until)
        assert not captured.jumped
        assert abs(captured.captured_ns - taken) < 5 * MS


@pytest.mark.parametrize("by_ns", [-(10**14), -3_000 * MS, 500 * MS, 10**14])
def test_a_clock_that_is_set_is_noticed_and_followed_from_then_on(by_ns: int) -> None:
    clock = DeviceClock()
    jumps = []
    for number, (taken, stamp, arrived) in enumerate(_arrivals(400, 33 * MS, 0)):
        captured = clock.captured(stamp + (by_ns if number >= 200 else 0), arrived)
        if captured.jumped:
            jumps.append(number)
        assert captured.captured_ns <= arrived
        assert captured.captured_ns > taken - 5 * MS
    assert jumps == [200]


def test_times_never_run_backwards_and_never_lie_in_the_future() -> None:
    clock = DeviceClock()
    before = 0
    for _, stamp, arrived in _arrivals(2000, 10 * MS, 80e-6, delay_ms=30):
        captured_ns = clock.captured(stamp, arrived).captured_ns
        assert before <= captured_ns <= arrived
        before = captured_ns


def test_a_triggered_line_that_stands_for_an_hour_keeps_its_times() -> None:
    clock = DeviceClock()
    for _, stamp, arrived in _arrivals(3000, 40 * MS, 60e-6):
        clock.captured(stamp, arrived)
    taken = 10**12 + 3000 * 40 * MS + 3600 * 10**9
    stamp = 10**15 + round((taken - 10**12) * (1 - 60e-6))
    captured = clock.captured(stamp, taken + 4 * MS)
    assert not captured.jumped
    assert taken - 20 * MS < captured.captured_ns <= taken + 4 * MS


def test_first_pictures_that_were_delayed_are_no_jump_of_the_clock() -> None:
    clock = DeviceClock()
    ages = []
    for number, (taken, stamp, arrived) in enumerate(_arrivals(60, 100 * MS, 0, delay_ms=1)):
        captured = clock.captured(stamp, arrived + (700 * MS if number < 3 else 0))
        assert not captured.jumped
        ages.append(captured.captured_ns - taken)
    assert max(ages[10:]) < 20 * MS
