"""Thresholds from good pictures alone: split conformal prediction, and beyond its reach an estimate.

With n held-out good scores and the threshold at the k-th smallest, a good part is rejected with a probability of at
most (n + 1 - k) / (n + 1) on average over calibrations; for one given calibration the false-reject rate follows
Beta(n + 1 - k, k). Vovk et al., "Algorithmic Learning in a Random World"; Bates et al., Annals of Statistics 2023
(arXiv 2104.08279). Both statements hold as long as future parts are like the held-out ones. Where n is too small for
the wanted rate, a fitted tail (pareto_tail.py) may put the threshold above the highest score, never below.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from revdist.data.lots import Block
from revdist.errors import CalibrationError
from revdist.thresholds import pareto_tail
from revdist.thresholds.guarantee import CONFIDENCE as CONFIDENCE
from revdist.thresholds.guarantee import Guarantee as Guarantee
from revdist.thresholds.outliers import Excluded, Suspect
from revdist.thresholds.pareto_tail import Estimate, Tail

Scores: TypeAlias = npt.NDArray[np.float64]
Decision: TypeAlias = Literal["pass", "reject"]
Basis: TypeAlias = Literal["conformal", "tail"]
_SAME = 1e-6  # relative difference that a tail's threshold may have when another machine fits the tail


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """The threshold of one bundle on one engine, and what it promises. `calibrate` makes it."""

    engine: str  # identity of the engine that scored the pictures
    scores: Scores  # (n,) held-out good scores, ascending, not writeable
    false_reject_rate: float  # the wanted rate, 0..1
    guarantee: Guarantee  # the rate holds on average over calibrations, or for this calibration with 95 % confidence
    threshold: float  # a picture is rejected if and only if its score is greater
    basis: Basis  # conformal: the threshold is one of the scores; tail: an estimate above all scores
    attained_rate: float  # bound of the false-reject rate, on average over calibrations
    bound95: float  # upper 95 % confidence bound of the false-reject rate of this calibration
    fingerprint: str  # of the held-out pictures
    estimate: Estimate | None = None  # the tail's estimate for the threshold, where the scores prove too little
    blocks: tuple[Block, ...] = ()  # how each block fares at a threshold from the others; empty without blocks
    suspects: tuple[Suspect, ...] = ()  # the pictures with the highest scores
    excluded: tuple[Excluded, ...] = ()  # pictures left out by hand
    held_out: tuple[str, ...] = ()  # SHA-256 of each score's picture; empty where an older revdist wrote the bundle
    unconfirmed: tuple[Excluded, ...] = ()  # outliers that count only once a person confirms them

    @property
    def enough(self) -> bool:
        """Whether there are enough pictures for the wanted guarantee."""
        count = needed if self.guarantee == "average" else needed_with_confidence
        return len(self.scores) >= count(self.false_reject_rate)

    @property
    def median(self) -> float:
        return float(np.median(self.scores))

    def p_value(self, score: float) -> float:
        """Share of good parts at least as anomalous: (1 + number of calibration scores >= score) / (n + 1)."""
        _check_finite(score)
        above = len(self.scores) - int(np.searchsorted(self.scores, score, side="left"))
        return (1 + above) / (len(self.scores) + 1)

    def p_estimate(self, score: float) -> float | None:
        """Estimate the p-value of a score above all others from a tail, because 1 / (n + 1) is too coarse there.

        The estimate is at least a tenth of 1 / (n + 1): further out a tail is a guess. Returns None where `p_value`
        suffices or there are too few scores to fit a tail. Takes some milliseconds.
        """
        _check_finite(score)
        fitted = pareto_tail.fit(self.scores) if score > self.scores[-1] else None
        n = len(self.scores)
        return min(1 / (n + 1), max(pareto_tail.lowest_rate(n), fitted.rate(score))) if fitted else None

    def decide(self, score: float) -> Decision:
        """ "reject" if the score is greater than the threshold, else "pass". Raises CalibrationError for NaN."""
        _check_finite(score)
        return "reject" if score > self.threshold else "pass"

    def to_json(self) -> dict[str, Any]:
        """Return all fields but the engine and the scores."""
        left_out = ("engine", "scores", "estimate", "blocks", "suspects", "excluded", "held_out", "unconfirmed")
        plain = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in left_out
        }
        return plain | {
            "pictures": len(self.scores),
            "estimate": dataclasses.asdict(self.estimate) if self.estimate else None,
            "blocks": [dataclasses.asdict(block) for block in self.blocks],
            "suspects": [dataclasses.asdict(suspect) for suspect in self.suspects],
            "excluded": [dataclasses.asdict(picture) for picture in self.excluded],
            "held_out": list(self.held_out),
            "unconfirmed": [dataclasses.asdict(picture) for picture in self.unconfirmed],
        }

    def with_unconfirmed(self) -> Calibration:
        """Calibrate as if the outliers that nobody has confirmed were good parts."""
        scores = [*self.scores, *(outlier.score for outlier in self.unconfirmed)]
        return calibrate(
            scores,
            self.false_reject_rate,
            engine=self.engine,
            fingerprint=self.fingerprint,
            guarantee=self.guarantee,
        )

    def advice(self, held_out_share: float) -> str:
        """Say what this calibration promises and, where there are too few pictures, how many are needed.

        `held_out_share`: share of all good pictures (0..1) that training holds out for the calibration.
        """
        proven = f"Proven with {len(self.scores)} pictures: {self.proven()}"
        return proven if self.enough else f"{proven}. {self.wanted(held_out_share)}. {self._until_then()}"

    def proven(self) -> str:
        """Say which false-reject rates the held-out pictures prove."""
        return (
            f"{100 * self.attained_rate:.2f} % false rejects on average, "
            f"{100 * self.bound95:.2f} % with 95 % confidence"
        )

    def wanted(self, held_out_share: float) -> str:
        """Say how many pictures the wanted rate needs: held out, and in all, with those to train with."""
        confident = self.guarantee == "confidence"
        count = needed_with_confidence(self.false_reject_rate) if confident else needed(self.false_reject_rate)
        sure = " with 95 % confidence" if confident else ""
        in_all = _about(count / held_out_share)
        return f"For {100 * self.false_reject_rate:.4g} %{sure}: {count} held-out pictures (about {in_all} in all)"

    def _until_then(self) -> str:
        """Say how the threshold is set where there are too few pictures."""
        if self.estimate is None:
            return "Until then the threshold is their highest score"
        low, high = self.estimate.rate_interval
        rate = f"{100 * self.estimate.rate:.2g} % false rejects (95 % interval {100 * low:.2g} to {100 * high:.2g} %)"
        if self.basis == "conformal":
            return f"Until then the threshold is their highest score; by estimate {rate}"
        return f"Until then the threshold is an estimate, above their highest score: {rate}"


def calibrate(
    scores: npt.ArrayLike,
    false_reject_rate: float,
    *,
    engine: str,
    fingerprint: str,
    guarantee: Guarantee = "average",
) -> Calibration:
    """Set the threshold for a wanted false-reject rate (0..1, both excluded) from held-out good scores (n,).

    "average": k = ceil((n + 1)(1 - rate)). "confidence": the least k whose rate, Beta(n + 1 - k, k), is within the
    wanted rate with 95 % confidence. Where there is no such k, there are too few pictures: the threshold is the highest
    score, or a tail's estimate if that is higher; see `Calibration.enough`, `basis` and `advice`.
    Raises CalibrationError for no scores, NaN, infinity or an impossible rate.
    """
    calibration, fitted = _set(_ordered(scores), false_reject_rate, guarantee, engine, fingerprint)
    if fitted is None:
        return calibration
    return dataclasses.replace(calibration, estimate=fitted.estimate(calibration.threshold, _tail_rate(calibration)))


def restore(scores: npt.ArrayLike, entry: Mapping[str, Any], *, engine: str) -> Calibration:
    """Rebuild a calibration from `to_json` and its scores. Raises ValueError if the threshold does not follow."""
    calibration, _ = _set(
        _ordered(scores), entry["false_reject_rate"], entry["guarantee"], engine, entry["fingerprint"]
    )
    tolerance = _SAME if calibration.basis == "tail" else 0.0
    if calibration.basis != entry["basis"] or not math.isclose(
        calibration.threshold, entry["threshold"], rel_tol=tolerance
    ):
        raise ValueError(f"threshold of {engine} does not follow from its scores")
    held_out = tuple(entry.get("held_out", ()))
    if held_out and len(held_out) != len(calibration.scores):
        raise ValueError(f"{len(held_out)} held-out pictures have {len(calibration.scores)} scores on {engine}")
    return dataclasses.replace(
        calibration,
        threshold=entry["threshold"],
        estimate=Estimate.from_json(entry["estimate"]) if entry["estimate"] else None,
        blocks=tuple(Block(**block) for block in entry["blocks"]),
        suspects=tuple(Suspect(**suspect) for suspect in entry["suspects"]),
        excluded=tuple(Excluded(**picture) for picture in entry["excluded"]),
        held_out=held_out,
        unconfirmed=tuple(Excluded(**picture) for picture in entry.get("unconfirmed", ())),
    )


def _ordered(scores: npt.ArrayLike) -> Scores:
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    if len(ordered) == 0:
        raise CalibrationError(
            "there are no scores to calibrate with", hint="held-out pictures of good parts are needed"
        )
    if not np.isfinite(ordered).all():
        raise CalibrationError(
            "a calibration score is not a finite number", hint="train again with a lower learning rate"
        )
    ordered.flags.writeable = False
    return ordered


def _set(
    ordered: Scores, rate: float, guarantee: Guarantee, engine: str, fingerprint: str
) -> tuple[Calibration, Tail | None]:
    """Return the calibration without `estimate`, and a fitted tail where there are too few scores."""
    if not 0 < rate < 1:
        raise CalibrationError(f"false-reject rate {rate} must be greater than 0 and less than 1")
    n = len(ordered)
    k = min(n, _rank(n, rate, guarantee))
    proven = Calibration(
        engine=engine,
        scores=ordered,
        false_reject_rate=rate,
        guarantee=guarantee,
        threshold=float(ordered[k - 1]),
        basis="conformal",
        attained_rate=(n + 1 - k) / (n + 1),
        bound95=float(special.betaincinv(n + 1 - k, k, CONFIDENCE)),
        fingerprint=fingerprint,
    )
    fitted = None if proven.enough else pareto_tail.fit(ordered)
    if fitted is None:
        return proven, None
    wanted = _tail_rate(proven)
    far = fitted.score(wanted) if guarantee == "average" else fitted.score_with(wanted, CONFIDENCE)
    if far > proven.threshold:
        return dataclasses.replace(proven, threshold=far, basis="tail"), fitted
    return proven, fitted


def _rank(n: int, rate: float, guarantee: Guarantee) -> int:
    """Return the rank (1: smallest) of the score that keeps the guarantee as threshold; over n if no score does."""
    if guarantee == "average":
        return math.ceil((n + 1) * (1 - rate) - 1e-9)  # 1e-9: (99 + 1) * (1 - 0.01) is 99, not 99.00000000000001
    ranks = np.arange(1, n + 1)
    kept = special.betainc(n + 1 - ranks, ranks, rate) >= CONFIDENCE  # false, ..., false, true, ..., true
    return n + 1 - int(kept.sum())


def _tail_rate(calibration: Calibration) -> float:
    return max(calibration.false_reject_rate, pareto_tail.lowest_rate(len(calibration.scores)))


def needed(rate: float) -> int:
    """Return how many held-out pictures prove a false-reject rate on average."""
    return max(1, math.ceil(1 / rate - 1e-9) - 1)


def needed_with_confidence(rate: float) -> int:
    """Return how many held-out pictures prove a false-reject rate with 95 % confidence."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def _about(count: float) -> int:
    """Round a number up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / unit - 1e-9) * unit)


def _check_finite(score: float) -> None:
    if not math.isfinite(score):
        raise CalibrationError(f"the score is {score}, not a finite number")
