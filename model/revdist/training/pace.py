"""Keeps a run within its budget though the machine becomes slower than it was when the run was planned.

A run that is late skips steps of its schedule: learning rate, masking and averaging go on to their end, in fewer steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from revdist.training.timing import FEWEST_STEPS, Duration

log = logging.getLogger("revdist")

_NEW_SHARE = 0.2  # weight of the last step in the estimate of a step's time
_TOLD_FROM = 1.1  # steps of the schedule in one step made


class Pace:
    """Tells after each step by how many steps of the schedule the run advances."""

    def __init__(self, planned: Duration, ends_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`ends_s`: when the whole run must end, on the clock."""
        self._planned = planned
        self._ends_s = ends_s
        self._clock = clock
        self._step_s = planned.step_s
        self._last_s: float | None = None
        self._part = 0.0  # of a step, that is still to be advanced
        self._told = False
        self.made = 0

    def begin(self) -> None:
        """Note that the first step begins now."""
        self._last_s = self._clock()

    def advance(self, done: int) -> int:
        """Note that a step was made, after which `done` steps of the schedule are done. Returns how many to skip."""
        assert self._last_s is not None, "begin comes first"
        now_s = self._clock()
        self._step_s += _NEW_SHARE * (now_s - self._last_s - self._step_s)
        self._last_s = now_s
        self.made += 1
        left = self._planned.steps - done
        stride = self._stride(left, now_s)
        if stride > _TOLD_FROM and not self._told:
            self._told = True
            log.warning(
                "slower than planned: to keep the budget, about %d more steps are made in the place of %d",
                max(1, round(left / stride)), left,
            )  # fmt: skip
        self._part += stride - 1
        skipped = min(int(self._part), max(0, left - 1))  # the last step is always made
        self._part -= skipped
        return skipped

    def _stride(self, left: int, now_s: float) -> float:
        """Return how many steps of the schedule one step must stand for; 1 as long as the time suffices."""
        slower = max(1.0, self._step_s / self._planned.step_s)
        left_s = self._ends_s - self._planned.after_s * slower - now_s
        stride = left * self._step_s / max(left_s, self._step_s)
        fewest = FEWEST_STEPS - self.made
        return max(1.0, min(stride, left / fewest) if fewest > 0 else stride)
