"""How old pictures are, told from time stamps and arrivals alone."""

from __future__ import annotations

import pytest

from rejectd.cameras.freshness import DRIFT, Freshness

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
    lags = [freshness.lag_s(stamp_s + n * STEP_S, resumed_s) for n in range(1, 21)]
    assert lags[0] == pytest.approx(0.95, abs=0.01)
    assert lags[-1] == pytest.approx(0.0, abs=0.01)


def test_a_lag_that_stays_is_never_forgiven_quickly():
    freshness, stamp_s, arrived_s = settled()
    for n in range(1, 1200):  # a minute
        lag_s = freshness.lag_s(stamp_s + n * STEP_S, arrived_s + n * STEP_S + 1.0)
    assert lag_s > 0.95


@pytest.mark.parametrize("drift", [-100e-6, 100e-6])
def test_a_camera_clock_that_runs_wrong_by_100_ppm_makes_no_lag(drift):
    assert abs(drift) < DRIFT
    freshness, stamp_s, arrived_s = settled()
    for second in range(1, 36_000):  # ten hours
        lag_s = freshness.lag_s(stamp_s + second, arrived_s + second * (1 + drift))
    assert lag_s < 0.01


def test_a_jump_of_the_time_stamps_back_is_a_lag_and_so_leads_to_a_new_connection():
    freshness, stamp_s, arrived_s = settled()
    assert freshness.lag_s(stamp_s - 60, arrived_s + STEP_S) > 59
