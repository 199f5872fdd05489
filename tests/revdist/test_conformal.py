"""revdist.conformal"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from revdist import conformal
from revdist.conformal import Calibration
from revdist.errors import CalibrationError


def _calibrate(scores: object, rate: float) -> Calibration:
    return conformal.calibrate(np.asarray(scores, float), rate, engine="torch-cpu-float32", fingerprint="f")


@pytest.mark.parametrize(
    ("n", "rate", "rejected"), [(99, 0.01, 0), (100, 0.01, 0), (199, 0.01, 1), (999, 0.01, 9), (19, 0.1, 1)]
)
def test_the_threshold_is_the_order_statistic_of_split_conformal_prediction(n: int, rate: float, rejected: int) -> None:
    calibration = _calibrate(np.arange(n)[::-1], rate)
    assert calibration.enough
    assert calibration.threshold == n - 1 - rejected
    assert calibration.attained_rate <= rate
    assert sum(calibration.decide(score) == "reject" for score in range(n)) == rejected


@pytest.mark.parametrize(("n", "bound"), [(20, 0.139), (60, 0.049), (100, 0.0295), (200, 0.015), (300, 0.0099)])
def test_the_bound_is_the_one_of_the_beta_law(n: int, bound: float) -> None:
    calibration = _calibrate(np.arange(n), 0.001)  # too few: the maximum, or more
    assert calibration.threshold >= n - 1
    assert calibration.bound95 == pytest.approx(bound, rel=0.01)
    assert calibration.bound95 == pytest.approx(1 - 0.05 ** (1 / n))


def test_too_few_pictures_are_told_with_the_number_that_is_needed() -> None:
    calibration = _calibrate(np.arange(20), 0.01)
    assert not calibration.enough
    assert "99 pictures promise 0.01 on average, 299 with 95 % confidence" in calibration.advice()
    assert "too few" not in _calibrate(np.arange(99), 0.01).advice()
    assert conformal.needed(0.001) == 999
    assert conformal.needed_with_confidence(0.001) == 2995


def test_p_values_count_the_calibration_scores_that_are_as_high() -> None:
    calibration = _calibrate([1, 2, 2, 3], 0.2)
    assert [calibration.p_value(score) for score in (0, 1, 2, 2.5, 3, 4)] == [1, 1, 0.8, 0.4, 0.4, 0.2]


def test_decisions_and_p_values_agree() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.01, 0.05, 0.1):
        calibration = _calibrate(rng.gamma(2, size=237), rate)
        for score in rng.gamma(2, size=500):
            assert (calibration.decide(score) == "reject") == (calibration.p_value(score) <= rate)


def test_the_promised_rates_hold_in_a_simulation() -> None:
    rng = np.random.default_rng(1)
    n, rate = 199, 0.05
    made = [_calibrate(rng.gumbel(size=n), rate) for _ in range(2000)]
    rates = np.array([stats.gumbel_r.sf(each.threshold) for each in made])  # the true false-reject rate of each
    assert rates.mean() == pytest.approx(made[0].attained_rate, rel=0.03)
    assert (rates <= made[0].bound95).mean() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [1.0, float("inf")]])
def test_unusable_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(CalibrationError):
        _calibrate(scores, 0.1)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(CalibrationError, match="greater than 0 and less than 1"):
        _calibrate([1.0, 2.0], rate)


def test_a_score_that_is_no_number_is_never_a_pass() -> None:
    calibration = _calibrate([1.0, 2.0], 0.5)
    for score in (float("nan"), float("inf")):
        with pytest.raises(CalibrationError, match="not a finite number"):
            calibration.decide(score)
        with pytest.raises(CalibrationError, match="not a finite number"):
            calibration.p_value(score)


def test_calibration_scores_are_read_only() -> None:
    assert not _calibrate([2.0, 1.0], 0.5).scores.flags.writeable
