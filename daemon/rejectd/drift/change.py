"""Tells when measured values no longer come from where a reference came from. Pure.

A value is ranked among n reference values. Until something changes, each of the n + 1 ranks is equally likely, whatever
the distribution. A bet pays `e` for a rank, at most 1 on average, and more for high ranks (or for low ones). The
evidence of a bet is R = (1 + R) e, the Shiryaev-Roberts statistic: R less the number of values so far falls on average,
so the mean time until R reaches A is A values or more. Evidence forgets: without a change it stays near 1 / (1 - e).
Vovk et al., "Retrain or not retrain: conformal test martingales for change-point detection", PMLR 152 (2021).

That holds on average over references. One reference of n values may lie unluckily, so that a bet pays more than 1
forever. So each bet is divided by what it pays with 99 % of the references (the weights of the ranks are
Dirichlet-distributed). A small reference then needs a larger change, and does not cry wolf.

n reference values of each of K series, B bets, 2 directions: up and down
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float64]

# A bet stakes a share of its evidence on a p-value within a bound. No rank pays more than 20, so that some odd parts
# among many are no change: it takes about each third part beyond the last bound, or two of three beyond the middle.
_BETS = ((0.5, 0.5), (0.25, 0.7), (0.1, 0.8), (0.04, 0.8))  # bound, stake
_UNLUCKY = 2.33  # standard deviations that 99 % of references stay under
_KEPT = 20.0  # evidence over the limit that is kept: more would only make the all-clear come later
UP, DOWN = 0, 1


class Change:
    """Watches K series against their reference."""

    def __init__(self, reference: Values, evidence: Values | None = None) -> None:
        """`reference` (n, K), n > 0; `evidence` (2, B, K) of an earlier run."""
        self._sorted = np.sort(np.asarray(reference, np.float64), axis=0)
        self._paid = _paid(len(self._sorted))  # (B, n + 2)
        shape = (2, len(_BETS), self._sorted.shape[1])
        fits = evidence is not None and evidence.shape == shape
        self.evidence = np.array(evidence, np.float64) if fits else np.zeros(shape)

    @property
    def series(self) -> int:
        """How many series there are."""
        return int(self._sorted.shape[1])

    def observe(self, values: Values, limit: float) -> None:
        """Take one value of each series (K,). `limit`: mean number of values until a false alarm of all of them."""
        below = (self._sorted < values).sum(axis=0)
        above = (self._sorted > values).sum(axis=0)
        n = len(self._sorted)
        pays = np.stack([self._pays(above, n - below), self._pays(below, n - above)])  # (2, B, K)
        self.evidence = np.minimum((1.0 + self.evidence) * pays, self._each(limit) * _KEPT)

    def share(self, limit: float) -> Values:
        """How near each series is to an alarm, up and down (2, K): logarithm of its evidence by that of its limit."""
        mean = self.evidence.mean(axis=1)
        return np.asarray(np.log(np.maximum(mean, 1.0)) / math.log(self._each(limit)), np.float64)

    def _each(self, limit: float) -> float:
        """The limit of one series in one direction, so that all of them together keep `limit`."""
        return max(limit, 2.0) * 2 * self.series

    def _pays(self, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> Values:
        """What the bets pay for ranks from `first` to `last` (K,), which are several where values are equal: (B, K)."""
        return (self._paid[:, last + 1] - self._paid[:, first]) / (last + 1 - first)


def _paid(n: int) -> Values:
    """What each bet pays for the first ranks together (B, n + 2), after the division for unlucky references."""
    ranks = np.arange(n + 2) / (n + 1)
    paid = (n + 1) * np.stack([(1 - stake) * ranks + stake * np.minimum(ranks / bound, 1) for bound, stake in _BETS])
    unlucky = 1 + _UNLUCKY * np.diff(paid, axis=1).std(axis=1, keepdims=True) / math.sqrt(n + 2)
    return np.asarray(paid / unlucky, np.float64)


class Share:
    """Watches how often something happens against how often it happened in a reference."""

    _FACTORS = (1.5, 3.0)  # the changes that are bet on

    def __init__(self, happened: int, of: int) -> None:
        """`happened` of so many."""
        usual = _upper(happened, of)
        self._odds = [
            (changed / usual, (1 - changed) / (1 - usual))
            for factor in self._FACTORS
            for changed in (min(factor * usual, (1 + usual) / 2),)
        ]
        self.evidence = [0.0] * len(self._odds)

    def observe(self, happens: bool, limit: float) -> None:
        """Take one. `limit`: mean number until a false alarm."""
        self.evidence = [
            min((1 + before) * (yes if happens else no), limit * _KEPT)
            for before, (yes, no) in zip(self.evidence, self._odds, strict=True)
        ]

    def share(self, limit: float) -> float:
        """How near it is to an alarm: logarithm of its evidence by that of its limit."""
        return math.log(max(sum(self.evidence) / len(self.evidence), 1.0)) / math.log(max(limit, 2.0))


def _upper(happened: int, of: int) -> float:
    """The upper 99 % bound of a share (Wilson), so that an unlucky reference does not cry wolf."""
    z2 = _UNLUCKY**2
    middle = happened + z2 / 2
    spread = _UNLUCKY * math.sqrt(happened * (of - happened) / of + z2 / 4)
    return min((middle + spread) / (of + z2), 0.9)
