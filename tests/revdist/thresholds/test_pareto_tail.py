"""revdist.thresholds.pareto_tail; how often it is right is in test_promises"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from revdist.thresholds import pareto_tail
from revdist.thresholds.pareto_tail import Tail


def _scores(n: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).gamma(2, size=n))


def _fit(n: int, seed: int = 0) -> Tail:
    fitted = pareto_tail.fit(_scores(n, seed))
    assert fitted is not None
    return fitted


@pytest.mark.parametrize("shape", [-0.4, -0.1, 0.2])
def test_with_many_scores_the_law_is_found(shape: float) -> None:
    law = stats.genpareto(shape, scale=2.0)
    fitted = pareto_tail.fit(np.sort(law.rvs(2000, random_state=np.random.default_rng(1))))
    assert fitted is not None
    assert fitted.excesses == 200
    assert float(fitted.weights @ fitted.shapes) == pytest.approx(shape, abs=0.12)
    for rate in (0.02, 0.005, 0.001):
        assert fitted.score(rate) == pytest.approx(law.isf(rate), rel=0.15)


def test_one_pair_of_shape_and_scale_is_a_generalised_pareto_law() -> None:
    for shape in (-0.3, 0.3):
        single = Tail(
            start=2.0, scores=99, excesses=10, shapes=np.array([shape]), scales=np.array([0.5]), weights=np.ones(1)
        )
        law = stats.genpareto(shape, loc=2, scale=0.5)
        for score in (2.0, 2.4, 3.0, 4.0):
            assert single.rate(score) == pytest.approx(0.1 * law.sf(score))
        assert single.score(0.01) == pytest.approx(law.isf(0.1))


def test_rate_and_score_are_each_others_inverse_and_monotone() -> None:
    fitted = _fit(100)
    rates = [0.05, 0.01, 0.002, 0.0005]
    scores = [fitted.score(rate) for rate in rates]
    assert scores == sorted(scores)
    assert [fitted.rate(score) for score in scores] == pytest.approx(rates)
    assert fitted.score(0.5) == fitted.start
    sure = [fitted.score_with(0.002, confidence) for confidence in (0.5, 0.8, 0.95)]
    assert sure == sorted(sure)
    assert sure[-1] > fitted.score(0.002)


def test_an_estimate_lies_in_its_intervals_which_shrink_with_more_scores() -> None:
    few, many = (_fit(n).estimate(_fit(n).score(0.005), 0.005) for n in (60, 1500))
    for each in (few, many):
        assert each.rate == pytest.approx(0.005)
        assert each.rate_interval[0] < each.rate < each.rate_interval[1]
    assert np.ptp(many.threshold_interval) < np.ptp(few.threshold_interval) / 2


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_the_unit_of_the_scores_does_not_matter(scale: float) -> None:
    scaled = pareto_tail.fit(_scores(80) * scale)
    assert scaled is not None
    assert scaled.score(0.004) == pytest.approx(_fit(80).score(0.004) * scale, rel=1e-6)


@pytest.mark.parametrize("n", [1, 49])
def test_too_few_scores_have_no_tail(n: int) -> None:
    assert pareto_tail.fit(_scores(n)) is None


def test_scores_that_are_too_much_alike_have_no_tail() -> None:
    assert pareto_tail.fit(np.sort(np.random.default_rng(0).poisson(3, 200)).astype(float)) is None
    assert pareto_tail.fit(np.ones(200)) is None


def test_a_fit_is_quick_and_the_same_each_time() -> None:
    scores = _scores(5000)
    begun = time.perf_counter()
    first = pareto_tail.fit(scores)
    assert first is not None
    threshold = first.score(1e-5)
    assert time.perf_counter() - begun < 1.0  # some 20 ms where nothing else runs: a bundle fits it at each load
    again = pareto_tail.fit(scores)
    assert again is not None
    assert again.score(1e-5) == threshold
