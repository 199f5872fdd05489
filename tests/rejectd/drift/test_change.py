"""rejectd.drift.change: how often it is wrong while nothing changes, and how soon it sees a change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejectd.drift.change import DOWN, UP, Change, Share

YEAR = 3e7 * 4  # parts in a year at one a second, for one of four signs


def parts_until(change: Change, values: np.ndarray, limit: float) -> int | None:
    """How many values it takes until an alarm."""
    for number, value in enumerate(values, 1):
        change.observe(np.atleast_1d(value), limit)
        if change.share(limit).max() >= 1:
            return number
    return None


def false_alarms(rng: np.random.Generator, draw: str, size: int, limit: float, parts: int) -> int:
    """Alarms in so many parts that are like their reference; a new line with a new reference begins after each."""
    alarms, left = 0, parts
    while left > 0:
        values = getattr(rng, draw)(size=(min(left, 3000), 1))
        number = parts_until(Change(getattr(rng, draw)(size=(size, 1))), values, limit)
        alarms += number is not None
        left -= number or len(values)
    return alarms


@pytest.mark.parametrize("size", [8, 16, 60, 300])
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential", "standard_cauchy"])
def test_false_alarms_are_no_more_than_is_said_whatever_the_distribution(draw: str, size: int) -> None:
    limit, parts = 500.0, 15_000
    assert false_alarms(np.random.default_rng(size), draw, size, limit, parts) <= parts / limit


def test_a_lower_limit_alarms_more_often_so_that_the_rate_is_what_it_sets() -> None:
    often, seldom = (false_alarms(np.random.default_rng(1), "standard_normal", 60, limit, 12_000) for limit in (5, 500))
    assert often > 5 * max(seldom, 1)


@pytest.mark.parametrize(("shift", "most"), [(1.5, 150), (3.0, 40), (6.0, 15)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_is_seen_the_sooner_the_larger_it_is(shift: float, most: int, sign: int) -> None:
    rng = np.random.default_rng(2)
    change = Change(rng.standard_normal((60, 1)))
    assert parts_until(change, rng.standard_normal(200), YEAR) is None
    number = parts_until(change, sign * shift + rng.standard_normal(2 * most), YEAR)
    assert number
    assert number <= most
    up, down = change.share(YEAR)[[UP, DOWN], 0]
    assert (up > down) == (sign > 0)


def test_evidence_is_over_some_time_after_the_change_is() -> None:
    rng = np.random.default_rng(3)
    change = Change(rng.standard_normal((60, 1)))
    assert parts_until(change, 6 + rng.standard_normal(1000), YEAR)
    for value in rng.standard_normal(400):
        change.observe(np.array([value]), YEAR)
    assert change.share(YEAR).max() < 0.5


@given(
    reference=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    values=st.lists(st.integers(-5, 5), max_size=40),
)
@settings(max_examples=50, deadline=None)
def test_equal_values_and_values_far_outside_never_break_it(reference: list[int], values: list[int]) -> None:
    change = Change(np.array(reference, float)[:, np.newaxis])
    for value in values:
        change.observe(np.array([value * 1e300]), YEAR)
    assert np.isfinite(change.evidence).all()
    assert (change.share(YEAR) >= 0).all()


@given(size=st.integers(1, 40), power=st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_no_bet_pays_more_than_one_on_average_over_the_ranks(size: int, power: int) -> None:
    """Each rank once: values between the reference values."""
    reference = np.arange(size, dtype=float)[:, np.newaxis]
    paid = []
    for rank in range(size + 1):
        change = Change(reference)
        change.observe(np.array([rank - 0.5]), YEAR)  # from no evidence the first part leaves what it was paid
        paid.append(change.evidence[:, power, 0])
    assert (np.mean(paid, axis=0) <= 1 + 1e-9).all()


def test_a_constant_reference_says_nothing_while_nothing_changes() -> None:
    change = Change(np.full((60, 1), 7.0))
    assert parts_until(change, np.full(2000, 7.0), 100.0) is None
    assert parts_until(change, np.full(60, 7.5), YEAR) is not None


def test_series_share_the_allowance() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((3000, 256))
    change = Change(rng.standard_normal((300, 256)))
    assert not any(change.observe(row, 10_000.0) or change.share(10_000.0).max() >= 1 for row in values)


@pytest.mark.parametrize(("usual", "now", "most"), [(0.0, 0.1, 300), (0.01, 0.2, 120), (0.05, 0.4, 80)])
def test_more_rejects_are_seen_and_the_usual_number_is_not(usual: float, now: float, most: int) -> None:
    rng = np.random.default_rng(5)
    share = Share(int((rng.random(500) < usual).sum()), 500)
    for _ in range(3000):
        share.observe(bool(rng.random() < usual), YEAR)
        assert share.share(YEAR) < 1
    for _ in range(most):
        share.observe(bool(rng.random() < now), YEAR)
    assert share.share(YEAR) >= 1


def test_false_alarms_of_the_share_are_no_more_than_is_said() -> None:
    rng, limit, parts, alarms = np.random.default_rng(6), 300.0, 20_000, 0
    share = Share(int((rng.random(300) < 0.05).sum()), 300)
    for _ in range(parts):
        share.observe(bool(rng.random() < 0.05), limit)
        if share.share(limit) >= 1:
            alarms += 1
            share = Share(int((rng.random(300) < 0.05).sum()), 300)
    assert alarms <= parts / limit
