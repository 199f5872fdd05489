"""Thresholds from good pictures alone: split conformal prediction.

With n held-out good scores and the threshold at the k-th smallest, a good part is rejected with a probability of at
most (n + 1 - k) / (n + 1) on average over calibrations; for one given calibration the false-reject rate follows
Beta(n + 1 - k, k). Vovk et al., "Algorithmic Learning in a Random World"; Bates et al., Annals of Statistics 2023
(arXiv 2104.08279). Both hold as long as the parts to come are like the held-out ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from revdist.errors import CalibrationError

Scores: TypeAlias = npt.NDArray[np.float64]
Decision: TypeAlias = Literal["pass", "reject"]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """The threshold of one bundle on one engine, and what it promises. Made by `calibrate`."""

    engine: str  # identity of the engine that scored
    scores: Scores  # (n,) held-out good scores, ascending, not writeable
    false_reject_rate: float  # wanted
    threshold: float  # a picture is rejected if and only if its score is greater
    attained_rate: float  # bound of the false-reject rate, on average over calibrations
    bound95: float  # upper 95 % confidence bound of the false-reject rate of this calibration
    fingerprint: str  # of the held-out pictures

    @property
    def enough(self) -> bool:
        """Whether there are pictures enough for the wanted rate (on average)."""
        return len(self.scores) >= needed(self.false_reject_rate)

    def p_value(self, score: float) -> float:
        """Share of good parts at least as anomalous: (1 + number of calibration scores >= score) / (n + 1)."""
        _check_finite(score)
        above = len(self.scores) - int(np.searchsorted(self.scores, score, side="left"))
        return (1 + above) / (len(self.scores) + 1)

    def decide(self, score: float) -> Decision:
        """ "reject" if the score is greater than the threshold, else "pass". Raises CalibrationError for NaN."""
        _check_finite(score)
        return "reject" if score > self.threshold else "pass"

    def to_json(self) -> dict[str, float | int | str]:
        """All but the scores."""
        return {
            "false_reject_rate": self.false_reject_rate,
            "threshold": self.threshold,
            "attained_rate": self.attained_rate,
            "bound95": self.bound95,
            "pictures": len(self.scores),
            "fingerprint": self.fingerprint,
        }

    def advice(self) -> str:
        """In words, what this calibration promises and, where there are too few pictures, how many are needed."""
        n, rate = len(self.scores), self.false_reject_rate
        text = (
            f"{n} held-out good pictures: at most {self.attained_rate:.2%} false rejects on average, "
            f"at most {self.bound95:.2%} with 95 % confidence"
        )
        if self.enough:
            return text
        return (
            f"{text}; too few for {rate:.4g}: the threshold is their highest score. {needed(rate)} pictures promise "
            f"{rate:.4g} on average, {needed_with_confidence(rate)} with 95 % confidence"
        )


def calibrate(scores: npt.ArrayLike, false_reject_rate: float, *, engine: str, fingerprint: str) -> Calibration:
    """Set the threshold for a wanted false-reject rate (0..1, both excluded) from held-out good scores (n,).

    k = ceil((n + 1)(1 - rate)); where k > n there are too few pictures and the highest score is taken: see
    `Calibration.enough` and `advice`. Raises CalibrationError for no scores, NaN, infinity or an impossible rate.
    """
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    n = len(ordered)
    if n == 0:
        raise CalibrationError(
            "there are no scores to calibrate with", hint="held-out pictures of good parts are needed"
        )
    if not np.isfinite(ordered).all():
        raise CalibrationError(
            "a calibration score is not a finite number", hint="train again with a lower learning rate"
        )
    if not 0 < false_reject_rate < 1:
        raise CalibrationError(f"false-reject rate {false_reject_rate} must be greater than 0 and less than 1")
    exact = (n + 1) * (1 - false_reject_rate)
    k = min(n, math.ceil(exact - 1e-9))  # 1e-9: (99 + 1) * (1 - 0.01) is 99, not 99.00000000000001
    ordered.flags.writeable = False
    return Calibration(
        engine=engine,
        scores=ordered,
        false_reject_rate=false_reject_rate,
        threshold=float(ordered[k - 1]),
        attained_rate=(n + 1 - k) / (n + 1),
        bound95=float(special.betaincinv(n + 1 - k, k, CONFIDENCE)),
        fingerprint=fingerprint,
    )


def needed(rate: float) -> int:
    """Pictures that promise a false-reject rate on average."""
    return max(1, math.ceil(1 / rate - 1e-9) - 1)


def needed_with_confidence(rate: float) -> int:
    """Pictures whose highest score promises a false-reject rate with 95 % confidence."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def _check_finite(score: float) -> None:
    if not math.isfinite(score):
        raise CalibrationError(f"the score is {score}, not a finite number")
