"""revdist.thresholds.conformal"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from revdist.data.lots import Block
from revdist.errors import CalibrationError
from revdist.thresholds import conformal
from revdist.thresholds.conformal import Calibration, Guarantee
from revdist.thresholds.outliers import Excluded, Suspect


def _calibrate(scores: object, rate: float, guarantee: Guarantee = "average") -> Calibration:
    return conformal.calibrate(
        np.asarray(scores, float), rate, engine="torch-cpu-float32", fingerprint="f", guarantee=guarantee
    )


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
    assert calibration.advice(0.2) == (
        "Proven with 20 pictures: 4.76 % false rejects on average, 13.91 % with 95 % confidence. "
        "For 1 %: 99 held-out pictures (about 500 in all). Until then the threshold is their highest score"
    )
    confident = _calibrate(np.arange(20), 0.01, "confidence").advice(0.5)
    assert "For 1 % with 95 % confidence: 299 held-out pictures (about 600 in all)" in confident
    assert "For" not in _calibrate(np.arange(99), 0.01).advice(0.2)
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


@pytest.mark.parametrize(("n", "over"), [(299, 0), (300, 0), (500, 1), (1000, 4), (3000, 20), (10000, 83)])
def test_with_confidence_fewer_scores_lie_over_the_threshold(n: int, over: int) -> None:
    calibration = _calibrate(np.arange(n), 0.01, "confidence")
    assert calibration.enough
    assert (calibration.scores > calibration.threshold).sum() == over
    assert calibration.bound95 <= 0.01
    more = 1 + over
    assert stats.beta.cdf(0.01, over + 1, n - over) >= 0.95 > stats.beta.cdf(0.01, more + 1, n - more)


@pytest.mark.parametrize("rate", [0.3, 0.05, 0.01, 0.003])
@pytest.mark.parametrize("guarantee", ["average", "confidence"])
def test_the_number_that_is_needed_is_the_first_that_is_enough(rate: float, guarantee: Guarantee) -> None:
    count = conformal.needed(rate) if guarantee == "average" else conformal.needed_with_confidence(rate)
    enough, lacking = (_calibrate(np.arange(n), rate, guarantee) for n in (count, count - 1) if n)
    assert enough.enough
    assert (enough.attained_rate if guarantee == "average" else enough.bound95) <= rate
    assert not lacking.enough
    assert (lacking.attained_rate if guarantee == "average" else lacking.bound95) > rate


def test_too_few_pictures_get_an_estimate_above_their_highest_score_that_says_so() -> None:
    scores = np.random.default_rng(0).gamma(2, size=60)
    average, sure = (_calibrate(scores, 0.01, guarantee) for guarantee in ("average", "confidence"))
    assert scores.max() < average.threshold < sure.threshold
    assert average.basis == sure.basis == "tail"
    assert average.estimate is not None
    assert average.estimate.rate == pytest.approx(0.01)
    assert average.attained_rate == pytest.approx(1 / 61)  # what is proven does not change
    told = "Until then the threshold is an estimate, above their highest score: 1 % false rejects (95 % interval"
    assert told in average.advice(0.2)
    assert "Until then the threshold is an estimate" in sure.advice(0.2)


def test_the_highest_score_stays_where_the_tail_has_the_wanted_rate_below_it() -> None:
    scores = np.append(np.random.default_rng(0).gamma(2, size=59), 9.0)
    made = _calibrate(scores, 0.01)
    assert (made.basis, made.threshold) == ("conformal", 9.0)
    assert made.estimate is not None
    assert made.estimate.rate < 0.01
    assert "Until then the threshold is their highest score; by estimate" in made.advice(0.2)


def test_where_pictures_are_enough_nothing_is_estimated() -> None:
    made = _calibrate(np.random.default_rng(0).gamma(2, size=200), 0.01)
    assert (made.basis, made.estimate) == ("conformal", None)
    assert "estimate" not in made.advice(0.2)


def test_a_rate_out_of_reach_of_any_estimate_gets_the_furthest_one() -> None:
    scores = np.random.default_rng(0).gamma(2, size=60)
    furthest = _calibrate(scores, 1 / 610)
    beyond = _calibrate(scores, 1e-6)
    assert beyond.threshold == furthest.threshold
    assert beyond.estimate is not None
    assert beyond.estimate.rate == pytest.approx(1 / 610)
    assert "For 0.0001 %: 999999 held-out pictures (about 5000000 in all)" in beyond.advice(0.2)


def test_a_p_value_that_is_too_coarse_is_estimated() -> None:
    made = _calibrate(np.random.default_rng(0).gamma(2, size=100), 0.05)
    highest = float(made.scores[-1])
    assert made.p_estimate(highest) is None
    estimates = [made.p_estimate(highest + more) for more in (0.01, 1, 2, 100)]
    assert estimates == sorted(estimates, reverse=True)  # type: ignore[type-var]
    assert estimates[0] is not None
    assert estimates[0] <= made.p_value(highest + 0.01) == pytest.approx(1 / 101)
    assert estimates[-1] == pytest.approx(1 / 1010), "further out a tail is a guess"
    assert _calibrate(np.arange(20), 0.1).p_estimate(1000) is None
    with pytest.raises(CalibrationError, match="not a finite number"):
        made.p_estimate(float("nan"))


@pytest.mark.parametrize("guarantee", ["average", "confidence"])
@pytest.mark.parametrize("n", [20, 60, 200])
def test_what_is_written_is_restored(n: int, guarantee: Guarantee) -> None:
    made = dataclasses.replace(
        _calibrate(np.random.default_rng(n).gamma(2, size=n), 0.01, guarantee),
        blocks=(Block(name="mon", pictures=n, rejected=1),),
        suspects=(Suspect(file="a.png", sha256="s", score=9.0, outlier=True),),
        excluded=(Excluded(file="b.png", sha256="t", score=8.0),),
    )
    written = json.loads(json.dumps(made.to_json(), allow_nan=False))
    restored = conformal.restore(made.scores, written, engine=made.engine)
    for field in dataclasses.fields(Calibration):
        assert np.array_equal(getattr(restored, field.name), getattr(made, field.name)), field.name


@pytest.mark.parametrize("change", [{"threshold": 1.0}, {"basis": "conformal"}, {"guarantee": "confidence"}])
def test_an_estimated_threshold_that_does_not_follow_from_its_scores_is_refused(change: dict[str, object]) -> None:
    made = _calibrate(np.random.default_rng(0).gamma(2, size=60), 0.01)
    assert made.basis == "tail"
    with pytest.raises(ValueError, match="does not follow from its scores"):
        conformal.restore(made.scores, made.to_json() | change, engine="e")


def test_another_machines_last_digits_of_a_fit_do_not_change_a_threshold() -> None:
    made = _calibrate(np.random.default_rng(0).gamma(2, size=60), 0.01)
    there = made.threshold * (1 + 1e-9)
    assert conformal.restore(made.scores, made.to_json() | {"threshold": there}, engine="e").threshold == there
