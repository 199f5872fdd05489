"""Finds the part that a view shows: by the number that came with the picture, else by the time of the exposure.

A number names its part. Without a number, a view belongs to the part whose exposures are near in time. All exposures
of one part lie within the station's tolerance of each other. Exposures of two parts do not, since the tolerance is at
most half the time between two parts. So pictures that a camera missed, or brought late or in another order, do no harm.
Parts that have their verdict are remembered for a while, so that a later view does not open a second part.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field

from rejectd.contract.settings import Station

_REMEMBERED_PARTS = 5_000
_REMEMBERED_NS = 3600 * 10**9
_BEGUN_AGAIN_NS = 60 * 10**9  # a smaller number so long after its part begins a new count, and is no late view


@dataclass(slots=True, eq=False, kw_only=True)
class Trace:
    """A part as pairing remembers it, also after its verdict."""

    number: int
    picture_number: int | None  # the number that came with a picture
    exposed_ns: int  # exposure of the view that opened the part
    earliest_ns: int  # earliest exposure of its views
    latest_ns: int  # latest exposure of its views
    deadline_ns: int
    crowded: bool = False  # closer to another part than the station says
    ended: bool = False
    again: bool = False  # opened by the first view after a counter was set back, or with a number that came again
    decided: bool = False  # its views decided it; False while it is open, or if its time was over first
    shown: Counter[str] = field(default_factory=Counter)  # number of views by camera
    late: Counter[str] = field(default_factory=Counter)  # number of views by camera that came after the part's time


class Pairing:
    """The parts of one station, and which views show them. Not safe for several threads."""

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
        self._newest: dict[str, int] = {}  # by camera: the highest number of its current count
        self._newest_ns: dict[str, int] = {}  # by camera: the exposure that had this number
        self._began_ns: dict[str, int] = {}  # by camera: the exposure with which its current count began
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
        """Open a part that no view has shown before. Its number is 0 if nobody can know it."""
        alone = number is None and self._tolerance_ns is None
        if number is None:
            number, picture_number = (0 if alone else self._last + 1), None
        else:
            picture_number = number
        trace = Trace(
            number=number,
            picture_number=picture_number,
            exposed_ns=exposed_ns,
            earliest_ns=exposed_ns,
            latest_ns=exposed_ns,
            deadline_ns=exposed_ns + self._lifetime_ns,
        )
        if alone:
            return trace
        self._last = number
        if picture_number is not None:
            trace.again = picture_number in self._by_number
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
        if trace.picture_number is None:  # opened by a camera without numbers
            trace.picture_number = number
            self._by_number[number] = trace
        newest, behind = self._newest.get(camera, 0), self._is_behind(camera, number)
        trace.again |= number < newest and not behind and trace.shown.total() == 1
        if trace.shown[camera] == 1 and ((number <= newest and trace.again) or (number < newest and not behind)):
            self._began_ns[camera] = exposed_ns
        if trace.again or not behind:
            self._newest[camera], self._newest_ns[camera] = number, exposed_ns

    def _numbered(self, camera: str, number: int, exposed_ns: int) -> Trace | None:
        """The part with a number; None if there is none, or if the count has begun again since."""
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
        """Whether the number of an ended part now names a new part, since counters wrap and begin again."""
        since_ns = exposed_ns - trace.deadline_ns
        if not trace.ended or since_ns < 0:
            return self._was_set_back(trace, camera, number, exposed_ns)
        if trace.shown[camera] >= self._frames:
            return True  # no camera exposes a part again after its time: this is a new part, and must not pass unseen
        if since_ns < self._lifetime_ns:
            return False
        began_again = number < self._newest.get(camera, 0) and not self._is_behind(camera, number)
        return began_again and since_ns > _BEGUN_AGAIN_NS

    def _was_set_back(self, trace: Trace, camera: str, number: int, exposed_ns: int) -> bool:
        """Whether the number of a part whose time is not over names a new part, since the counter was set back.

        Where times can tell, a view near the part's other exposures shows that part, whatever the count says.
        """
        newest = self._newest.get(camera)
        if newest is None or (self._tolerance_ns is not None and self._fits(trace, exposed_ns)):
            return False
        if trace.shown[camera] >= self._frames:
            return newest != number or trace.ended or self._tolerance_ns is not None
        if trace.again:
            return False
        counted_past = trace.exposed_ns < self._newest_ns[camera]
        began_again = number < newest and not self._is_behind(camera, number)
        return (counted_past and began_again) or trace.exposed_ns < self._began_ns.get(camera, trace.exposed_ns)

    def _fits(self, trace: Trace, exposed_ns: int) -> bool:
        """Whether an exposure lies within the tolerance of all exposures of a part."""
        assert self._tolerance_ns is not None, "only times within a tolerance can tell"
        return trace.latest_ns - self._tolerance_ns <= exposed_ns <= trace.earliest_ns + self._tolerance_ns

    def _is_behind(self, camera: str, number: int) -> bool:
        """Whether the camera has counted past a number, so that the number is late and does not begin a new count."""
        newest = self._newest.get(camera, 0)
        return newest // 2 < number < newest

    def _near(self, exposed_ns: int, number: int | None) -> Trace | None:
        """The part whose exposures all lie within the tolerance of this exposure; None if there is none."""
        if self._tolerance_ns is None:
            return None
        fitting = [
            trace
            for trace in self._between(exposed_ns - self._tolerance_ns, exposed_ns + self._tolerance_ns)
            if self._fits(trace, exposed_ns)
            and (number is None or trace.picture_number is None)  # two numbers are two parts
        ]
        return min(fitting, key=lambda trace: abs(trace.exposed_ns - exposed_ns), default=None)

    def _between(self, from_ns: int, to_ns: int) -> list[Trace]:
        first = bisect_left(self._traces, from_ns, key=_exposed)
        return self._traces[first : bisect_right(self._traces, to_ns, lo=first, key=_exposed)]

    def _forget(self, now_ns: int) -> None:
        """Forget the oldest parts that have ended, when they are too many or too long ago."""
        while self._traces[0].ended and (
            len(self._traces) > _REMEMBERED_PARTS or self._traces[0].exposed_ns < now_ns - _REMEMBERED_NS
        ):
            oldest = self._traces.pop(0)
            self._forgotten_ns = oldest.exposed_ns
            if oldest.picture_number is not None and self._by_number.get(oldest.picture_number) is oldest:
                del self._by_number[oldest.picture_number]


def _exposed(trace: Trace) -> int:
    return trace.exposed_ns
