"""Maps the time stamps of a camera to this machine's monotonic clock.

A camera's clock starts anywhere and runs a little faster or slower than ours. The arrival of a picture minus its stamp
is the difference of the two clocks plus the delay on the way, and the delay is never negative. So the difference is the
line under these points: the lower hull, and of it the edge over the middle of the points (Moon, Skelly and Towsley,
"Estimation and removal of clock skew from network delay measurements", INFOCOM 1999). Points are gathered in intervals,
of which only the lowest counts. The shortest delay on the way stays in the result; nothing here can see it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

DRIFT = 500e-6  # the clocks of cameras are good for 100 ppm; more is a stamp that is no clock
_INTERVAL_NS = 500_000_000  # one point for each
_POINTS = 240  # two minutes, so that a clock whose rate changes with its temperature is followed
_COURSE_NS = 5_000_000_000  # over a shorter course a rate says little
_AHEAD_NS = 50_000_000  # a stamp that lies so far in the future has jumped
_SLACK_NS = 200_000_000  # a stamp that is so much older than the way of the picture allows has jumped

Point: TypeAlias = tuple[int, int]  # stamp, arrival minus stamp


@dataclass(frozen=True, slots=True)
class Captured:
    """When a picture was taken, by our monotonic clock."""

    captured_ns: int
    jumped: bool = False  # the camera's clock was set, and the mapping began anew


@dataclass(frozen=True, slots=True)
class _Taken:
    stamp_ns: int
    captured_ns: int


class DeviceClock:
    """The clock of one camera while it is connected. Pure: times are handed in."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._interval: int | None = None
        self._line: tuple[int, int, float] = (0, 0, 0.0)  # stamp, difference there, change of it with the stamp
        self._before: _Taken | None = None

    @property
    def drift(self) -> float:
        """How much faster our clock runs than the camera's."""
        return self._line[2]

    def captured(self, stamp_ns: int, arrived_ns: int) -> Captured:
        """When the picture with this stamp was taken: not after it arrived, and not before the one before it."""
        steady = _course_ns(self._points) >= _COURSE_NS  # before that, the pictures so far may have been delayed
        self._take(stamp_ns, arrived_ns)
        captured_ns = min(self._mapped(stamp_ns), arrived_ns)
        before = self._before
        jumped = False
        if before is not None and _has_jumped(before, stamp_ns, captured_ns, arrived_ns):
            jumped = steady
            self._points.clear()
            self._interval = None
            self._take(stamp_ns, arrived_ns)
            captured_ns = arrived_ns
        elif before is not None:
            captured_ns = max(captured_ns, before.captured_ns)
        self._before = _Taken(stamp_ns, captured_ns)
        return Captured(captured_ns, jumped)

    def _mapped(self, stamp_ns: int) -> int:
        at_ns, difference_ns, drift = self._line
        return stamp_ns + difference_ns + round(drift * (stamp_ns - at_ns))

    def _take(self, stamp_ns: int, arrived_ns: int) -> None:
        """Take a point, and draw the line anew where it is the lowest of its interval."""
        point = (stamp_ns, arrived_ns - stamp_ns)
        interval = stamp_ns // _INTERVAL_NS
        if interval != self._interval:
            self._interval = interval
            self._points.append(point)
        elif point[1] < self._points[-1][1]:
            self._points[-1] = point
        else:
            return
        self._line = _under(list(self._points))


def _course_ns(points: Sequence[Point]) -> int:
    return points[-1][0] - points[0][0] if points else 0


def _has_jumped(before: _Taken, stamp_ns: int, captured_ns: int, arrived_ns: int) -> bool:
    """Whether the camera's clock was set between two pictures, which arrive in the order in which they were taken."""
    ahead_ns = (stamp_ns - before.stamp_ns) - (arrived_ns - before.captured_ns)
    return captured_ns < before.captured_ns - _SLACK_NS or ahead_ns > _AHEAD_NS


def _under(points: list[Point]) -> tuple[int, int, float]:
    """The line under all points: through the lowest, or along the edge of their lower hull over their middle."""
    lowest = min(points, key=lambda point: point[1])
    if _course_ns(points) < _COURSE_NS:
        return (*lowest, 0.0)
    hull = _lower_hull(points)
    middle = (points[0][0] + points[-1][0]) // 2
    left, right = next(
        ((one, other) for one, other in itertools.pairwise(hull) if one[0] <= middle <= other[0]),
        (hull[0], hull[-1]),
    )
    drift = (right[1] - left[1]) / (right[0] - left[0]) if right[0] > left[0] else 0.0
    if abs(drift) > DRIFT:
        return (*points[-1], 0.0)
    return (*left, drift)


def _lower_hull(points: list[Point]) -> list[Point]:
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _turns_down(one: Point, other: Point, third: Point) -> bool:
    return (other[1] - one[1]) * (third[0] - one[0]) >= (third[1] - one[1]) * (other[0] - one[0])
