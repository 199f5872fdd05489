"""Whether a set of pictures looks like the pictures that a student was trained with.

A threshold's promise holds for parts that look like the held-out ones. Two tests warn where it may not hold, for each
measure of the appearance: Wilcoxon's rank sum test for a shift, and an exact test of how many pictures lie beyond all
training pictures. Neither test assumes a distribution. If both sets are drawn at random from the same pictures, a
comparison warns with a probability of at most FALSE_ALARMS. Differences too small to matter are not reported, however
significant they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from revdist.data.appearance import ASPECT, BRIGHTNESS, CONTRAST, SHARPNESS, Appearance, Values

log = logging.getLogger("revdist")

FALSE_ALARMS = 0.001
FEWEST = 5  # pictures that a set needs for a comparison
APART = 0.7  # a shift counts from here: the probability that a picture of one set has more than one of the other
BEYOND = 0.1  # share of the pictures that must lie beyond all others to count
HINT = "the promise does not hold for them: mend light, lens and position, or train with pictures of both kinds"
_TESTS = 3  # a shift, too many below, too many above
_MAD = 1.4826  # median absolute deviations in a standard deviation, of a normal distribution
_WORDS = {  # less, more; the least difference of medians that matters
    BRIGHTNESS: ("darker", "brighter", 3.0),
    CONTRAST: ("of lower contrast", "of higher contrast", 3.0),
    SHARPNESS: ("less sharp", "sharper", 0.05),
    ASPECT: ("narrower", "wider", 0.02),
}
_UNNAMED = ("", "", 0.0)  # what a teacher sees has neither words nor a unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure in which a set differs from the pictures trained with."""

    measure: str
    more: bool  # than those trained with
    beyond: int  # pictures that have less, or more, than every picture trained with
    pictures: int
    median: float
    trained: tuple[float, float, float]  # lowest, median, highest of the pictures trained with
    standardised: float  # difference of medians in robust standard deviations of those trained with

    def sentence(self, who: str) -> str:
        """Say the difference to a person, such as 'the good test pictures are all darker than ...'."""
        if self.measure not in _WORDS:
            return f"{who} look unlike the pictures trained with, as the teacher sees them{self._deviations()}"
        word = _WORDS[self.measure][self.more]
        low, middle, high = self.trained
        if self.beyond == self.pictures:
            told = f"{who} are all {word} than every picture trained with"
        elif self.beyond >= max(1, BEYOND * self.pictures):
            told = f"{self.beyond} of {self.pictures} of {who} are {word} than every picture trained with"
        else:
            told = f"{who} are {word} than the pictures trained with"
        if self.measure in (SHARPNESS, ASPECT):
            low, middle, high = (math.exp(value) for value in (low, middle, high))
        median = math.exp(self.median) if self.measure in (SHARPNESS, ASPECT) else self.median
        figures = f"{self.measure} {median:.3g} in the middle, trained {low:.3g} to {high:.3g}, {middle:.3g}"
        return f"{told} ({figures}{self._deviations()})"

    def _deviations(self) -> str:
        if not math.isfinite(self.standardised):
            return ""
        return f", {abs(self.standardised):.1f} robust standard deviations apart"


def differences(trained: Appearance, others: Appearance) -> list[Difference]:
    """Return the measures in which other pictures differ from training pictures; none where a set is too small."""
    named = [name for name in trained if name in others]
    plain = sum(name in _WORDS for name in named)
    told = []
    for name in named:
        # One half of the false alarms is for the four plain measures, one for those of the teacher together.
        level = FALSE_ALARMS / 2 / _TESTS / (plain if name in _WORDS else len(named) - plain)
        difference = _difference(name, np.sort(trained[name]), np.sort(others[name]), level)
        told += [difference] if difference else []
    strange = [difference for difference in told if difference.measure not in _WORDS]
    worst = sorted(strange, key=lambda difference: -abs(difference.standardised))[:1]
    return [difference for difference in told if difference.measure in _WORDS] + worst


def warnings(trained: Appearance, others: Appearance, who: str) -> list[str]:
    """Return the differences as sentences about `who`."""
    return [difference.sentence(who) for difference in differences(trained, others)]


def warn(told: Sequence[str]) -> None:
    """Log such sentences, and what to do."""
    for sentence in told:
        log.warning("WARNING: %s", sentence)
    if told:
        log.warning("  %s", HINT)


def _difference(name: str, trained: Values, others: Values, level: float) -> Difference | None:
    if min(len(trained), len(others)) < FEWEST:
        return None
    least = _WORDS.get(name, _UNNAMED)[2]
    gap = float(np.median(others) - np.median(trained))
    below, above = int((others < trained[0] - least).sum()), int((others > trained[-1] + least).sum())
    ahead, p_shift = _rank_sum(trained, others)
    shifted = p_shift <= level and abs(gap) >= least and max(ahead, 1 - ahead) >= APART
    outside = [
        count >= BEYOND * len(others) and _p_beyond(count, len(others), len(trained)) <= level
        for count in (below, above)
    ]
    if not shifted and not any(outside):
        return None
    more = gap > 0 if shifted else outside[1]
    spread = _MAD * float(np.median(np.abs(trained - np.median(trained))))
    return Difference(
        measure=name,
        more=more,
        beyond=above if more else below,
        pictures=len(others),
        median=float(np.median(others)),
        trained=(float(trained[0]), float(np.median(trained)), float(trained[-1])),
        standardised=gap / spread if spread > 0 else math.inf,
    )


def _rank_sum(trained: Values, others: Values) -> tuple[float, float]:
    """Return the probability that another value is higher than a trained one, and the two-sided p-value of no shift.

    Mann and Whitney 1947; normal approximation, corrected for ties.
    """
    n, m = len(trained), len(others)
    lower, upper = (np.searchsorted(trained, others, side) for side in ("left", "right"))
    ahead = float((lower + upper).sum() / 2)
    _, ties = np.unique(np.concatenate([trained, others]), return_counts=True)
    whole = n + m
    variance = n * m / 12 * (whole + 1 - float((ties**3 - ties).sum()) / (whole * (whole - 1)))
    if variance <= 0:
        return 0.5, 1.0
    deviation = max(0.0, abs(ahead - n * m / 2) - 0.5) / math.sqrt(variance)
    return ahead / (n * m), float(2 * ndtr(-deviation))


def _p_beyond(count: int, others: int, trained: int) -> float:
    """Return the probability that at least `count` other values lie above all trained ones, if all are of one kind."""
    steps: Sequence[float] = [(others - place) / (others + trained - place) for place in range(count)]
    return math.prod(steps)
