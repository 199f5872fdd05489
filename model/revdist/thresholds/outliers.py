"""Held-out "good" pictures that may not be good: one bad part among them raises the threshold for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from revdist.thresholds import pareto_tail

SHOWN = 5
FENCE = 3.0  # interquartile ranges over the upper quartile: Tukey's "far out"
SURPRISE = 0.05  # largest expected number of pictures as high among as many good ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One of the held-out pictures with the highest scores."""

    file: str  # relative to the folder of good pictures
    sha256: str
    score: float
    outlier: bool  # far from all others, see `outliers`


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A picture that somebody left out by hand, and its score."""

    file: str
    sha256: str
    score: float


def outliers(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which scores (n,) are far from all others.

    These are scores beyond Tukey's far-out fence (1977). A skewed distribution has many of those, so where the other
    scores suffice to fit a tail, fewer than one in twenty sets of n good pictures must have a score so far out.
    """
    low, high = np.quantile(scores, (0.25, 0.75))
    beyond = scores > high + FENCE * (high - low)
    fitted = pareto_tail.fit(np.sort(scores[~beyond]))
    if fitted is None:
        return np.asarray(beyond)
    rare = [
        far and fitted.rate(float(score)) * len(scores) < SURPRISE for far, score in zip(beyond, scores, strict=True)
    ]
    return np.array(rare)


def find(files: Sequence[str], hashes: Sequence[str], scores: npt.NDArray[np.float64]) -> tuple[Suspect, ...]:
    """Return the pictures with the highest scores, the highest first."""
    far = outliers(scores)
    return tuple(
        Suspect(file=files[row], sha256=hashes[row], score=float(scores[row]), outlier=bool(far[row]))
        for row in np.argsort(-scores, kind="stable")[:SHOWN]
    )
