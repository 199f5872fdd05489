"""How old the pictures of a stream are when they arrive.

Nothing in a stream tells the age of a picture directly. Its time stamps (PTS) advance with the camera's clock, so
arrival minus time stamp is constant but for the delay on the way. The smallest difference seen is taken as "no delay";
what exceeds it is lag. Pictures that queued in the camera, the network or a stopped process show a lag and are stale.
What this cannot see is a delay that is there from the first picture on and never changes.
"""

from __future__ import annotations

STALE_S = 0.5
DRIFT = 200e-6  # how much slower than ours a camera's clock may run: quartz is good for 100 ppm
_WAITED = 0.25  # of the interval between pictures
_STEADY = 2  # pictures


class Freshness:
    """The lag of one connection's pictures. A new connection needs a new one. Pure: the clock is handed in."""

    def __init__(self) -> None:
        self.settled = False
        self._baseline_s = 0.0  # arrival minus time stamp of an undelayed picture
        self._before: tuple[float, float] | None = None  # time stamp, arrival
        self._steady = 0

    def settle(self, stamp_s: float, arrived_s: float, waited_s: float) -> bool:
        """Whether the pictures now come as they are taken; call it for each until it says so.

        A new connection often begins with pictures from the past. They are over when two in a row had to be waited for
        and did not catch up with the clock.
        """
        before, self._before = self._before, (stamp_s, arrived_s)
        if before is None:
            return False
        interval_s = stamp_s - before[0]
        came_s = arrived_s - before[1]
        waited = interval_s > 0 and waited_s >= _WAITED * interval_s
        self._steady = self._steady + 1 if waited and came_s >= (1 - _WAITED) * interval_s else 0
        if self._steady >= _STEADY:
            self.settled = True
            self._baseline_s = arrived_s - stamp_s
        return self.settled

    def lag_s(self, stamp_s: float, arrived_s: float) -> float:
        """Seconds by which a picture came later than it could have."""
        assert self.settled
        assert self._before is not None
        passed_s = max(0.0, arrived_s - self._before[1])
        self._before = (stamp_s, arrived_s)
        offset_s = arrived_s - stamp_s
        self._baseline_s = min(self._baseline_s + DRIFT * passed_s, offset_s)
        return offset_s - self._baseline_s
