"""Combines the verdicts of all frames that show a part into one verdict of the part.

pairing.py finds the part that a frame shows. The first frame of a part opens the part in a ledger for parts, and sets
the deadline of the part and of all its frames. One rejected view rejects the part at once. If all views passed, the
part passes. If a view is missing or unjudged when the part is due, the part is unjudged. A view that comes after its
part has a verdict is counted and reported, and opens no part.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from rejectd.contract.messages import CameraState, CameraStatus, Cause, Decision, Exposure, Frame, Verdict
from rejectd.contract.settings import Station
from rejectd.decision import unjudged
from rejectd.ledger import Ledger
from rejectd.pairing import Pairing, Trace

_RECENT = 20  # parts that `problems` speaks about
_UNSETTLED = 10_000  # parts whose deadline is still to come

_WORST_FIRST = (CameraState.DOWN, CameraState.ENDED, CameraState.STARTING, CameraState.DEGRADED, CameraState.UP)

_Key: TypeAlias = tuple[str, int, int]  # station, number of the part, its deadline


class Fate(StrEnum):
    """What became of a view for its part."""

    USED = "used"
    DECIDED = "decided"  # the view came after another view had rejected the part
    LATE = "late"  # the view came after the part's time was over
    SURPLUS = "surplus"  # the camera had shown the part as often as it should already
    MISSED = "missed"  # the view did not come by the part's deadline


@dataclass(slots=True)
class _Part:
    """A part that has no verdict yet."""

    frame: Frame
    trace: Trace
    keys: list[_Key]
    verdicts: list[Verdict] = field(default_factory=list)


class Stations:
    """The stations of a line. Safe for any number of threads. A caller that gets a part's verdict must close the part.

    Parts are closed in `ledger`, the ledger for parts.
    """

    def __init__(
        self,
        stations: Mapping[str, Station],
        ledger: Ledger,
        *,
        numbered: Collection[str] = (),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`numbered`: cameras whose pictures come with the number of their part."""
        self.ledger = ledger
        self._stations = stations
        self._of = {camera: name for name, station in stations.items() for camera in station.cameras}
        self._numbered = frozenset(numbered)
        self._clock = clock
        self._lock = threading.Lock()
        self._pairings = {name: Pairing(station) for name, station in stations.items()}
        self._parts: dict[_Key, _Part] = {}
        self._unsettled: dict[str, deque[Trace]] = {name: deque(maxlen=_UNSETTLED) for name in stations}
        self._recent: dict[str, deque[Trace]] = {name: deque(maxlen=_RECENT) for name in stations}
        self._fates: Counter[tuple[str, Fate]] = Counter({(camera, fate): 0 for camera in self._of for fate in Fate})
        self._reporting = threading.Lock()  # guards what follows, and the order of reports
        self._cameras: dict[str, CameraStatus] = {}
        self._reported: dict[str, CameraStatus] = {}  # by station

    def __contains__(self, name: str) -> bool:
        """Whether a name is that of a station."""
        return name in self._stations

    def join(self, camera: str, product: str, exposure: Exposure, count: int) -> tuple[int, int] | None:
        """Find the part that an exposure belongs to; open the part if the exposure is its first.

        Args:
            camera: the camera that noticed the exposure.
            product: the product that passes that camera.
            exposure: the exposure as the camera noticed it.
            count: number of the exposure; used if its camera is alone in a station without numbers or tolerance.

        Returns:
            Trigger number and deadline (monotonic ns) of the exposure's frame; None if the camera is in no station.
        """
        name = self._of.get(camera)
        if name is None:
            return None
        exposed_ns, pairing = exposure.captured_ns, self._pairings[name]
        own_deadline_ns = exposed_ns + self._stations[name].deadline_ms * 1_000_000
        with self._lock:
            self._settle()
            number = self._number(camera, exposure, count)
            trace = pairing.find(camera, number, exposed_ns)
            if trace is None and pairing.forgotten(number, exposed_ns):
                self._fates[camera, Fate.LATE] += 1
                return 0, own_deadline_ns
            trace = trace or self._open(name, product, exposure, number)
            fate = self._fate(trace, camera)
            self._fates[camera, fate] += 1
            pairing.enter(trace, camera, number, exposed_ns)
            trace.late[camera] += fate is Fate.LATE
            if trace.ended:
                return trace.number, own_deadline_ns
            self._hasten(self._parts[name, trace.number, trace.deadline_ns], exposure)
            return trace.number, trace.deadline_ns

    def take(self, verdict: Verdict) -> tuple[Frame, Verdict] | None:
        """Note the verdict of a frame. Returns the frame of its part and the part's verdict, if that is certain now."""
        name = self._of.get(verdict.camera, "")
        key = (name, verdict.trigger, verdict.deadline_ns)
        with self._lock:
            part = self._parts.get(key)
            if part is None:
                return None  # too late for its part, though a later part may have the same number
            part.verdicts.append(verdict)
            station = self._stations[name]
            judged = Counter(view.camera for view in part.verdicts)
            complete = all(judged[camera] >= station.frames for camera in station.cameras)
            if verdict.decision is not Decision.REJECT and not complete:
                return None
            part.trace.decided = True
            self._end(part)
        return part.frame, self._combined(part)

    def overdue(self, frame: Frame) -> Verdict | None:
        """The verdict of a part that is due; None if `take` has returned its verdict already."""
        key = (frame.camera, frame.trigger, frame.deadline_ns)
        with self._lock:
            part = self._parts.get(key)
            if part is None or part.frame is not frame:
                return None
            self._end(part)
            station = self._stations[frame.camera]
            missing = [camera for camera in station.cameras if part.trace.shown[camera] < station.frames]
        cause = Cause.MISSING_VIEW if missing else Cause.LATE
        detail = f"missing: {', '.join(missing)}" if missing else ""
        return self._with_views(unjudged(frame, cause, self._clock(), detail=detail), part.verdicts)

    def report(self, status: CameraStatus, publish: Callable[[CameraStatus], None]) -> None:
        """Publish the state of a camera's station, if it changes; a station is in the state of its worst camera."""
        name = self._of.get(status.camera)
        if name is None:
            return
        with self._reporting:
            self._cameras[status.camera] = status
            starting = replace(status, state=CameraState.STARTING, reason="")
            statuses = [
                self._cameras.get(camera, replace(starting, camera=camera)) for camera in self._stations[name].cameras
            ]
            worst = min(statuses, key=lambda camera: _WORST_FIRST.index(camera.state))
            reason = f"camera {worst.camera}: {worst.reason}" if worst.reason else ""
            station = replace(status, camera=name, state=worst.state, reason=reason)
            before = self._reported.get(name)
            if before is None or (before.state, before.reason) != (station.state, station.reason):
                self._reported[name] = station
                publish(station)

    def problems(self) -> list[str]:
        """What is wrong with the views of the last parts, for people."""
        with self._lock:
            self._settle()
            return [problem for name in self._stations for problem in self._problems(name)]

    def views(self) -> Mapping[tuple[str, str], int]:
        """The number of views by camera and fate."""
        with self._lock:
            self._settle()
            return {(camera, str(fate)): count for (camera, fate), count in self._fates.items()}

    def _number(self, camera: str, exposure: Exposure, count: int) -> int | None:
        """The number that identifies the part; None if the time of the exposure must."""
        station = self._stations[self._of[camera]]
        if exposure.trigger is not None or camera in self._numbered:
            return exposure.trigger  # None if the picture of a numbering camera has none: its part is unknown then
        counts = len(station.cameras) == 1 and station.tolerance_ms is None
        return (count - 1) // station.frames + 1 if counts else None

    def _open(self, name: str, product: str, exposure: Exposure, number: int | None) -> Trace:
        trace = self._pairings[name].open(number, exposure.captured_ns)
        while (name, trace.number, trace.deadline_ns) in self._parts:
            trace.deadline_ns -= 1  # two parts without number in the same instant
        frame = self.ledger.open(
            replace(exposure, trigger=trace.number),
            camera=name,
            product=product,
            policy=self._stations[name].policy,
            deadline_ns=trace.deadline_ns - exposure.captured_ns,
        )
        key = (name, trace.number, trace.deadline_ns)
        self._parts[key] = _Part(frame, trace, [key])
        if trace.number or trace.picture_number is not None:
            self._unsettled[name].append(trace)
        return trace

    def _hasten(self, part: _Part, exposure: Exposure) -> None:
        """Move a part's time to this exposure if it is earlier, though another was noticed first."""
        if exposure.captured_ns >= part.frame.captured_ns:
            return
        part.frame = self.ledger.hasten(part.frame, exposure)
        part.trace.deadline_ns = part.frame.deadline_ns
        key = (part.frame.camera, part.frame.trigger, part.frame.deadline_ns)
        self._parts[key] = part
        part.keys.append(key)  # views that came before keep the former deadline

    def _end(self, part: _Part) -> None:
        part.trace.ended = True
        for key in part.keys:
            del self._parts[key]

    def _fate(self, trace: Trace, camera: str) -> Fate:
        """The fate of a view that arrives now."""
        if trace.shown[camera] >= self._stations[self._of[camera]].frames:
            return Fate.SURPLUS
        if not trace.ended:
            return Fate.USED
        return Fate.DECIDED if trace.decided and self._clock() < trace.deadline_ns else Fate.LATE

    def _settle(self) -> None:
        """Count missed views of the parts whose deadline is over. The caller holds the lock."""
        now = self._clock()
        for name, station in self._stations.items():
            unsettled = self._unsettled[name]
            while unsettled and unsettled[0].deadline_ns <= now:
                trace = unsettled.popleft()
                self._recent[name].append(trace)
                for camera in station.cameras:
                    in_time = trace.shown[camera] - trace.late[camera]
                    self._fates[camera, Fate.MISSED] += max(0, station.frames - in_time)

    def _problems(self, name: str) -> list[str]:
        recent, frames = self._recent[name], self._stations[name].frames
        where, of_parts = f"station {name}", f"of the last {len(recent)} parts"
        problems = []
        for camera in self._stations[name].cameras:
            missed = sum(trace.shown[camera] < frames for trace in recent)
            late = sum(trace.late[camera] > 0 for trace in recent)
            surplus = sum(trace.shown[camera] > frames for trace in recent)
            if missed:
                problems.append(f"{where}: camera {camera} missed {missed} {of_parts}")
            if late:
                hint = "raise deadline_ms, or look for what delays its pictures"
                problems.append(f"{where}: camera {camera} showed {late} {of_parts} after their time; {hint}")
            if surplus:
                hint = "it is triggered too often, its times are coarse, or parts come closer than pitch_ms"
                problems.append(f"{where}: camera {camera} showed {surplus} {of_parts} too often; {hint}")
        if crowded := sum(trace.crowded for trace in recent):
            hint = "parts come closer, or the views of one part lie further apart than tolerance_ms"
            problems.append(f"{where}: {crowded} {of_parts} were exposed within pitch_ms of another; {hint}")
        return problems

    def _combined(self, part: _Part) -> Verdict:
        """The verdict of a part whose views decide it."""
        rejected = [view for view in part.verdicts if view.decision is Decision.REJECT]
        unknown = [view for view in part.verdicts if view.decision is Decision.UNJUDGED]
        if unknown and not rejected:
            detail = f"{unknown[0].camera}: {unknown[0].detail or unknown[0].cause}"
            verdict = unjudged(part.frame, unknown[0].cause or Cause.LATE, self._clock(), detail=detail)
            return self._with_views(verdict, part.verdicts)
        worst = max(rejected or part.verdicts, key=_ratio)
        frame = part.frame
        decided = replace(
            worst,
            event_id=frame.event_id,
            camera=frame.camera,
            product=frame.product,
            seq=frame.seq,
            captured_ns=frame.captured_ns,
            captured_unix_ns=frame.captured_unix_ns,
            deadline_ns=frame.deadline_ns,
            decided_ns=self._clock(),
            policy=frame.policy,
            source=frame.source,
            result=replace(worst.result, anomaly_map=None) if worst.result else None,
        )
        return self._with_views(decided, part.verdicts)

    @staticmethod
    def _with_views(verdict: Verdict, views: Sequence[Verdict]) -> Verdict:
        return replace(verdict, views=tuple(view.event_id for view in views))


def _ratio(verdict: Verdict) -> float:
    result = verdict.result
    return result.score / result.threshold if result and result.threshold else 0.0
