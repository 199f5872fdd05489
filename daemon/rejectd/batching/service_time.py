"""How long a batch takes on this engine, by its size, learned from the batches that were run.

The batcher asks `expect` before it decides how large a batch may be and which frames can still be judged in time.
`expect` is cautious: the mean plus three mean absolute deviations. Sizes that were never run are estimated from those
that were, so that no size is shut out by one slow measurement.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

_GAIN = 0.1  # weight of the next measurement in the mean
_SOON = 0.5  # its weight if it is clearly shorter: what slowed the others down is over
_HOPE = 0.9  # a batch larger than any before is expected to take this part of proportional time, so that it is tried


class ServiceTime:
    """Learns from measured batches, and says what a batch of any size is expected to take."""

    def __init__(self) -> None:
        self._mean: dict[int, float] = {}  # ns
        self._deviation = 0.05  # mean absolute deviation, as a part of the mean: noise belongs to the engine
        self._seen: Counter[int] = Counter()
        self._sizes: list[int] = []
        self._bounds: list[float] = []  # ns, for each of the sizes

    def as_now(self) -> Callable[[int], int]:
        """A copy of what `expect` returns now, unchanged by later measurements."""
        return copy.deepcopy(self).expect

    def learn(self, size: int, elapsed_ns: int) -> None:
        """Learn from one measurement. One long batch (a hang) moves the mean little; many in a row (a trend) move it.

        If the first measurement of a size was a hang, the next one replaces it.
        """
        elapsed_ns = max(1, elapsed_ns)
        if size not in self._mean or self._mean[size] > 4 * elapsed_ns:
            self._mean[size] = float(elapsed_ns)
        else:
            error = min(elapsed_ns / self._mean[size] - 1, max(0.2, 3 * self._deviation), 3.0)
            self._mean[size] *= 1 + (_SOON if error < -2 * self._deviation else _GAIN) * error
            self._deviation += _GAIN * (abs(error) - self._deviation)
        self._seen[size] += 1
        self._bound()

    def _bound(self) -> None:
        """Bound each size: no slower than its frames in smaller batches, and no slower than a larger batch.

        So one bad measurement shuts no size out. A size that was far too slow the first time counts as never tried.
        """
        sizes: list[int] = []
        bounds: list[float] = []
        self._sizes, self._bounds = sizes, bounds
        for size in sorted(self._mean):
            bound = self._mean[size] * (1 + 3 * self._deviation)
            in_parts = bounds[-1] * size / sizes[-1] if sizes else bound
            if bound <= 1.5 * in_parts or self._seen[size] > 1:
                sizes.append(size)
                bounds.append(min(bound, in_parts))
        for place in reversed(range(len(sizes) - 1)):
            bounds[place] = min(bounds[place], bounds[place + 1])

    def expect(self, size: int) -> int:
        """A time in ns that a batch of this size rarely exceeds: mean plus three mean absolute deviations.

        A size that was never run lies on the straight line between its neighbours. Beyond the largest, see `_HOPE`.
        """
        place = bisect_left(self._sizes, size)
        if place == 0:
            return int(self._bounds[0]) if self._bounds else 0
        less, less_ns = self._sizes[place - 1], self._bounds[place - 1]
        if place == len(self._sizes):
            return int(less_ns * max(1.0, _HOPE * size / less))
        part = (size - less) / (self._sizes[place] - less)
        return int(less_ns + part * (self._bounds[place] - less_ns))
