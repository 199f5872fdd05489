"""Which part a view shows: by the number that came with the picture, else by the time of the exposure.

A number names its part. Without one, a view belongs to the part whose exposures are near its own: all exposures of one
part lie within the station's tolerance of each other, and those of two parts do not, since the tolerance is at most
half the time between two parts. What a camera missed, or brought late or in another order, changes nothing in that.
Parts that have their verdict are remembered for a while, so that a view that comes later opens no second one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field

from rejectd.contract.settings import Station

_REMEMBERED_PARTS = 5_000
_REMEMBERED_NS = 3600 * 10**9
_BEGUN_AGAIN_NS = 60 * 10**9  # a number that falls so long after its part is the first of a new count, not a late view


@dataclass(slots=True, eq=False, kw_only=True)
class Trace:
    """What is remembered of a part, also after its verdict."""

    number: int
    given: int | None  # the number that came with a picture
    exposed_ns: int  # of the view that opened it
    earliest_ns: int  # of all its views
    latest_ns: int
    deadline_ns: int
    crowded: bool = False  # closer to another part than the station says
    ended: bool = False
    decided: bool = False  # it ended by what its views showed, not because its time was over
    shown: Counter[str] = field(default_factory=Counter)  # views by camera
    late: Counter[str] = field(default_factory=Counter)  # those of them that came after the part's time


class Pairing:
    """The parts of one station, as far as it is known which exposures show them. Not safe for several threads."""

    def __init__(self, station: Station) -> None:
        self._frames = station.frames
        self._lifetime_ns = station.deadline_ms * 1_000_000
        self._pitch_ns = round((station.pitch_ms or 0) * 1e6)
        self._tolerance_ns: int | None = None
        if station.tolerance_ms is not None:
            self._tolerance_ns = round(station.tolerance_ms * 1e6)
            if self._pitch_ns:  # at exactly half the pitch a view would lie as near to either part
                self._tolerance_ns = min(self._tolerance_ns, (self._pitch_ns - 1) // 2)
        self._traces: list[Trace] = []  # in the order of their exposure
        self._by_number: dict[int, Trace] = {}  # by the number that came with a picture
        self._newest: dict[str, int] = {}  # number that each camera has come to
        self._last = 0  # number of the part that was opened last
        self._forgotten_ns: int | None = None  # exposure of the newest part that is no longer remembered

    def find(self, camera: str, number: int | None, exposed_ns: int) -> Trace | None:
        """The part that a view shows; None if the view is the first of its part."""
        trace = None if number is None else self._numbered(camera, number, exposed_ns)
        return trace or self._near(exposed_ns, number)

    def forgotten(self, number: int | None, exposed_ns: int) -> bool:
        """Whether a view that fits no part is so old that its part may have been forgotten."""
        timed = number is None and self._tolerance_ns is not None
        return timed and self._forgotten_ns is not None and exposed_ns <= self._forgotten_ns

    def open(self, number: int | None, exposed_ns: int) -> Trace:
        """A part that nobody has shown before. Its number is 0 if nobody can know it."""
        alone = number is None and self._tolerance_ns is None
        if number is None:
            number, picture_number = (0 if alone else self._last + 1), None
        else:
            picture_number = number
        trace = Trace(
            number=number,
            given=picture_number,
            exposed_ns=exposed_ns,
            earliest_ns=exposed_ns,
            latest_ns=exposed_ns,
            deadline_ns=exposed_ns + self._lifetime_ns,
        )
        if alone:
            return trace
        self._last = number
        if picture_number is not None:
            self._by_number[picture_number] = trace
        if self._tolerance_ns is not None:
            least_ns = self._pitch_ns - self._tolerance_ns
            trace.crowded = bool(self._between(exposed_ns - least_ns + 1, exposed_ns + least_ns - 1))
        insort(self._traces, trace, key=_exposed)
        self._forget(exposed_ns)
        return trace

    def enter(self, trace: Trace, camera: str, number: int | None, exposed_ns: int) -> None:
        """Note a view of a part."""
        trace.shown[camera] += 1
        trace.earliest_ns = min(trace.earliest_ns, exposed_ns)
        trace.latest_ns = max(trace.latest_ns, exposed_ns)
        if number is None:
            return
        if trace.given is None:  # opened by a camera without numbers
            trace.given = number
            self._by_number[number] = trace
        if not self._is_behind(camera, number):
            self._newest[camera] = number

    def _numbered(self, camera: str, number: int, exposed_ns: int) -> Trace | None:
        """The part with a number, unless its count has begun again since."""
        trace = self._by_number.get(number)
        if trace is None or not self._came_again(trace, camera, number, exposed_ns):
            return trace
        self._by_number = {
            old_number: old_trace
            for old_number, old_trace in self._by_number.items()
            if old_number < number or not old_trace.ended or exposed_ns < old_trace.deadline_ns + self._lifetime_ns
        }
        return None

    def _came_again(self, trace: Trace, camera: str, number: int, exposed_ns: int) -> bool:
        """Whether a number that an ended part had is that of a new part, since counters wrap and begin again."""
        since_ns = exposed_ns - trace.deadline_ns
        if not trace.ended or since_ns < 0:
            return False
        if trace.shown[camera] >= self._frames:
            return True  # nobody exposes a part once more when its time is over: this one must not pass unseen
        if since_ns < self._lifetime_ns:
            return False
        began_again = number < self._newest.get(camera, 0) and not self._is_behind(camera, number)
        return began_again and since_ns > _BEGUN_AGAIN_NS

    def _is_behind(self, camera: str, number: int) -> bool:
        """Whether a number is one that the camera has passed by, rather than one of a count that began again."""
        newest = self._newest.get(camera, 0)
        return newest // 2 < number < newest

    def _near(self, exposed_ns: int, number: int | None) -> Trace | None:
        """The part whose exposures all lie within the tolerance of this one."""
        if self._tolerance_ns is None:
            return None
        fitting = [
            trace
            for trace in self._between(exposed_ns - self._tolerance_ns, exposed_ns + self._tolerance_ns)
            if trace.latest_ns - self._tolerance_ns <= exposed_ns <= trace.earliest_ns + self._tolerance_ns
            and (number is None or trace.given is None)  # two numbers are two parts
        ]
        return min(fitting, key=lambda trace: abs(trace.exposed_ns - exposed_ns), default=None)

    def _between(self, from_ns: int, to_ns: int) -> list[Trace]:
        first = bisect_left(self._traces, from_ns, key=_exposed)
        return self._traces[first : bisect_right(self._traces, to_ns, lo=first, key=_exposed)]

    def _forget(self, now_ns: int) -> None:
        """The oldest parts, when they are many or long ago."""
        while self._traces[0].ended and (
            len(self._traces) > _REMEMBERED_PARTS or self._traces[0].exposed_ns < now_ns - _REMEMBERED_NS
        ):
            oldest = self._traces.pop(0)
            self._forgotten_ns = oldest.exposed_ns
            if oldest.given is not None and self._by_number.get(oldest.given) is oldest:
                del self._by_number[oldest.given]


def _exposed(trace: Trace) -> int:
    return trace.exposed_ns
