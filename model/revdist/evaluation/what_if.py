"""What other thresholds would do to labelled test pictures: good ones rejected against defective ones missed.

A threshold that is chosen by looking at test pictures proves nothing on the same pictures: it needs others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from revdist.evaluation.sensitivity import wilson

RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the good test pictures that may be rejected
IN_FORCE, ALL_CAUGHT = "in force", "catches all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A threshold and what it does to the test pictures."""

    name: str
    threshold: float
    rejected: int
    good: int
    missed: int
    defective: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the share of good parts that are rejected."""
        return wilson(self.rejected, self.good)

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"interval": list(self.interval)}


def choices(defective: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], threshold: float) -> tuple[Choice, ...]:
    """Return the threshold in force, the highest one that catches all, and one for each of RATES; the highest first.

    `defective`: which of the pictures (n,) are; both kinds are there. Of thresholds that do the same one is kept.
    """
    good, bad = scores[~defective], scores[defective]
    descending = np.sort(good)[::-1]
    named = {IN_FORCE: threshold, ALL_CAUGHT: float(np.nextafter(bad.min(), -np.inf))}
    for rate in RATES:  # at a score, the picture that has it passes
        allowed = int(rate * len(good))
        named[f"{rate:.0%} of good"] = float(descending[allowed]) if allowed < len(good) else float(descending[-1])
    found: dict[tuple[int, int], Choice] = {}
    for name, value in named.items():
        rejected, missed = int((good > value).sum()), int((bad <= value).sum())
        choice = Choice(
            name=name, threshold=value, rejected=rejected, good=len(good), missed=missed, defective=len(bad)
        )
        found.setdefault((rejected, missed), choice)
    return tuple(sorted(found.values(), key=lambda choice: -choice.threshold))


def all_caught(table: tuple[Choice, ...]) -> Choice:
    """Return the choice that misses nothing and rejects the fewest good pictures."""
    return min((choice for choice in table if not choice.missed), key=lambda choice: choice.rejected)
