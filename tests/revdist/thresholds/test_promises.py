"""What revdist.thresholds.conformal and revdist.thresholds.pareto_tail promise, held against laws whose true rates
are known. Seeds are fixed."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import stats

from revdist.thresholds import conformal, pareto_tail
from revdist.thresholds.conformal import Calibration, Guarantee

CONTINUOUS = {
    "gumbel": stats.gumbel_r(),
    "gamma": stats.gamma(2),
    "bounded": stats.beta(2, 5),
    "heavy": stats.t(4),
}
DISCRETE = {"coarse": stats.poisson(3), "fine": stats.poisson(60)}  # with many ties, and some
LAWS = CONTINUOUS | DISCRETE
DRAWS = 1500
FEW = 200  # where a tail is fitted to each
# of a share of 0.95 among so many draws: three standard deviations
SLACK = 3 * (0.95 * 0.05 / DRAWS) ** 0.5


@functools.cache
def _calibrations(name: str, n: int, rate: float, guarantee: Guarantee, draws: int = DRAWS) -> list[Calibration]:
    scores = LAWS[name].rvs((draws, n), random_state=np.random.default_rng(n))
    return [conformal.calibrate(each, rate, engine="e", fingerprint="f", guarantee=guarantee) for each in scores]


def _true_rates(law: object, made: list[Calibration]) -> np.ndarray:
    """The false-reject rate of each calibration: sf is P(score > threshold), as `decide` rejects."""
    return np.asarray(law.sf([each.threshold for each in made]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (150, 0.05), (40, 0.1)])
def test_the_promised_rate_holds_on_average_and_the_bound_in_95_of_100(name: str, n: int, rate: float) -> None:
    law = LAWS[name]
    made = _calibrations(name, n, rate, "average")
    rates = _true_rates(law, made)
    error = 3 * rates.std() / DRAWS**0.5
    assert made[0].attained_rate <= rate
    assert rates.mean() <= made[0].attained_rate + error
    covered = (rates <= made[0].bound95).mean()
    assert covered >= 0.95 - SLACK
    if name in CONTINUOUS:  # then both are exact, not only safe
        assert rates.mean() >= made[0].attained_rate - error
        assert covered <= 0.95 + SLACK


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("n", "rate"), [(299, 0.01), (150, 0.05), (60, 0.1)])
def test_the_rate_holds_with_95_percent_confidence_where_that_is_wanted(name: str, n: int, rate: float) -> None:
    law = LAWS[name]
    made = _calibrations(name, n, rate, "confidence")
    assert made[0].enough
    assert made[0].bound95 <= rate
    assert (_true_rates(law, made) <= rate).mean() >= 0.95 - SLACK


def test_the_guarantee_on_average_alone_would_not_hold_with_confidence() -> None:
    rates = _true_rates(LAWS["gamma"], _calibrations("gamma", 299, 0.01, "average"))
    assert 0.4 < (rates <= 0.01).mean() < 0.7


@pytest.mark.parametrize(("name", "most"), [("gumbel", 1.4), ("gamma", 1.5), ("bounded", 1.0), ("heavy", 2.2)])
def test_where_pictures_are_too_few_the_tail_comes_closer_than_the_highest_score(name: str, most: float) -> None:
    """The wanted rate is a fifth of what 100 pictures can promise; the highest score alone misses it by five."""
    law, n, rate = LAWS[name], 100, 0.002
    made = _calibrations(name, n, rate, "average", draws=FEW)
    assert all(each.estimate is not None for each in made)
    mean = _true_rates(law, made).mean() / rate
    highest = np.mean([law.sf(each.scores[-1]) for each in made]) / rate
    assert highest > 4
    assert mean < most
    for each in made:
        assert each.threshold >= each.scores[-1]
        assert (each.basis == "tail") == (each.threshold > each.scores[-1])


@pytest.mark.parametrize(("name", "least"), [("gumbel", 0.92), ("gamma", 0.92), ("bounded", 0.92), ("heavy", 0.85)])
def test_the_intervals_of_the_tail_hold_the_truth(name: str, least: float) -> None:
    law, n, rate = LAWS[name], 100, 0.002
    made = _calibrations(name, n, rate, "average", draws=FEW)
    wanted = law.isf(rate)
    estimates = [each.estimate for each in made if each.estimate is not None]
    rates = zip(estimates, _true_rates(law, made), strict=True)
    assert np.mean([each.rate_interval[0] <= true <= each.rate_interval[1] for each, true in rates]) >= least
    assert np.mean([each.threshold_interval[0] <= wanted <= each.threshold_interval[1] for each in estimates]) >= least


@pytest.mark.parametrize(("name", "least"), [("gumbel", 0.93), ("gamma", 0.92), ("bounded", 0.95), ("heavy", 0.85)])
def test_an_estimate_with_confidence_holds_about_as_often_as_it_says(name: str, least: float) -> None:
    made = _calibrations(name, 150, 0.01, "confidence", draws=FEW)
    assert not made[0].enough
    assert (_true_rates(LAWS[name], made) <= 0.01).mean() >= least


@pytest.mark.parametrize("name", ["gumbel", "gamma"])
def test_estimated_p_values_are_right_on_average(name: str) -> None:
    law = LAWS[name]
    rng = np.random.default_rng(3)
    score = float(law.isf(0.002))
    fitted = [pareto_tail.fit(np.sort(law.rvs(200, random_state=rng))) for _ in range(200)]
    rates = [each.rate(score) for each in fitted if each is not None]
    assert len(rates) == 200
    assert 0.0015 < np.median(rates) < 0.004
