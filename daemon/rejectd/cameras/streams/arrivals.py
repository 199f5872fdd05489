"""Bounds the age of pictures that come without usable time stamps, from how long the process waited for each.

A picture that the process had to wait for is new. A picture that lay ready in the queue arrived after the last picture
that was waited for, and can be as old as that one. While a process stands still it waits for nothing (standstill.py):
a picture that it finds afterwards can be as old as the standstill. A queue in the camera or on the network cannot be
seen this way.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

from rejectd.cameras.streams.freshness import STALE_S, Age

_WAITED = 0.1  # a wait of this share of the usual interval between pictures counts as a wait
_WAITED_S = 0.02  # a wait of this length counts as a wait, whatever the interval is
_STEADY = 2  # so many pictures in a row that were waited for: the old ones are over
_USUAL = 9  # the usual interval is the median of so many


class Arrivals:
    """Bounds the age of one connection's pictures. Pure: times, waits and standstills are handed in."""

    no_clock = False
    jump_s = 0.0

    def __init__(self, stood_since: Callable[[float], float | None]) -> None:
        """`stood_since` says when the process first stood still after an instant; None if it did not."""
        self.settled = False
        self._stood_since = stood_since
        self._arrived_s: float | None = None  # when the last picture arrived
        self._level_s = 0.0  # the next picture came into the queue no earlier than this instant
        self._steady = 0
        self._intervals_s: deque[float] = deque(maxlen=_USUAL)

    def settle(self, stamp_s: float | None, arrived_s: float, waited_s: float) -> bool:
        """Whether the pictures that lay ready in a new connection are over, so that each must be waited for now."""
        self.age(stamp_s, arrived_s, waited_s)
        self._steady = self._steady + 1 if self._level_s == arrived_s and self._intervals_s else 0
        self.settled = self._steady >= _STEADY
        return self.settled

    def age(self, _stamp_s: float | None, arrived_s: float, waited_s: float) -> Age:
        """The greatest age that the next picture can have."""
        before_s, self._arrived_s = self._arrived_s, arrived_s
        stood_s = self._stood_since(before_s) if before_s is not None else None
        usual_s = statistics.median(self._intervals_s) if self._intervals_s else _WAITED_S / _WAITED
        if before_s is None or waited_s >= min(_WAITED * usual_s, _WAITED_S):
            self._level_s = arrived_s if stood_s is None else stood_s
            if before_s is not None and stood_s is None:
                self._intervals_s.append(arrived_s - before_s)
        lag_s = arrived_s - self._level_s
        return Age(lag_s, f"stale: taken up to {lag_s:.1f} s before it was read" if lag_s > STALE_S else "")

    def trouble(self) -> tuple[str, str]:
        """Why no fresh picture comes, and what a person can do."""
        return (
            "pictures come faster than they can be decoded",
            "lower the camera's rate or resolution, or look at this machine's load",
        )
