"""Whether other programs use the processors while a team of threads computes.

A team of threads shares the work of each operation and waits at the end of each for its slowest thread. So one other
program on one of two processors makes a picture ten times as slow (efficientnet_lite0: 131 ms instead of 12 ms), where
a single thread would move to the free processor and take twice as long. The team's leading thread shows which case
holds: it computes all the time while no other program uses the processors, and else sleeps most of the time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

_COMPUTES = 0.6  # least share of its time that the leading thread computes while its team is undisturbed
_SHORTEST_S = 0.002  # shorter runs are not measured
_IN_A_ROW = 2  # disturbed runs before teams pause: one may be chance
_FIRST_PAUSE_S = 5.0  # s without a team, before a team is tried again
_LONGEST_PAUSE_S = 60.0


class Crowd:
    """Learns from a team's runs whether to run a team again. Owned by the thread that leads the team."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, computed_s: Callable[[], float] = time.thread_time
    ) -> None:
        """`computed_s`: the processor time of the calling thread."""
        self._clock = clock
        self._computed_s = computed_s
        self._disturbed = 0  # runs in a row
        self._pause_s = _FIRST_PAUSE_S
        self._until = -1.0  # no team computes before this time

    @property
    def around(self) -> bool:
        """Whether single threads are better now; after a pause a team is tried again."""
        return self._clock() < self._until

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A context to run a team in; it measures the leading thread."""
        began_s, computed_s = self._clock(), self._computed_s()
        yield
        took_s, computed_s = self._clock() - began_s, self._computed_s() - computed_s
        if took_s >= _SHORTEST_S:
            self._learn(disturbed=computed_s < _COMPUTES * took_s)

    def _learn(self, *, disturbed: bool) -> None:
        if not disturbed:
            self._disturbed, self._pause_s = 0, _FIRST_PAUSE_S
            return
        self._disturbed += 1
        if self._disturbed >= _IN_A_ROW:  # and stays so: the first run after the pause decides
            self._until = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
