"""Combines frames that show one part into one verdict of the part.

Frames belong to a part by their trigger number. The first of them opens the part in a ledger of its own, and sets the
deadline of the part and of all its frames. Any reject rejects at once; all views passed is a pass; a view that is
missing or unjudged when the part is due leaves it unjudged.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from rejectd.decision import unjudged
from rejectd.ledger import Ledger
from rejectd.messages import Cause, Decision, Exposure, Frame, Verdict
from rejectd.settings import Station

_REMEMBERED = 10_000  # parts that have ended, so that a frame that comes too late opens none of them again

_Key: TypeAlias = tuple[str, int]  # station, trigger


@dataclass(slots=True)
class _Part:
    """A part that has no verdict yet."""

    frame: Frame
    opened: Counter[str] = field(default_factory=Counter)  # frames by camera
    verdicts: list[Verdict] = field(default_factory=list)


class Stations:
    """Safe for any number of threads. Whoever gets a part's verdict from here must close it in the parts' ledger."""

    def __init__(
        self, stations: Mapping[str, Station], ledger: Ledger, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.ledger = ledger
        self._stations = stations
        self._of = {camera: name for name, station in stations.items() for camera in station.cameras}
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: dict[_Key, _Part] = {}
        self._ended: OrderedDict[_Key, int] = OrderedDict()  # with the instant from which the number may come again

    def __contains__(self, name: str) -> bool:
        """Whether a name is that of a station."""
        return name in self._stations

    def join(self, camera: str, product: str, exposure: Exposure, number: int) -> tuple[int, int] | None:
        """The part that an exposure belongs to; it is opened if the exposure is its first.

        Args:
            camera: who noticed the exposure.
            product: what passes that camera.
            exposure: as noticed.
            number: of the exposure, for cameras that do not number their triggers.

        Returns:
            Trigger number and deadline (monotonic ns) of the exposure's frame; None if the camera is in no station.
        """
        name = self._of.get(camera)
        if name is None:
            return None
        station = self._stations[name]
        trigger = (number - 1) // station.frames + 1 if exposure.trigger is None else exposure.trigger
        with self._lock:
            part = self._parts.get((name, trigger))
            if part is None:
                lifetime_ns = station.deadline_ms * 1_000_000
                if self._ended.get((name, trigger), 0) > exposure.captured_ns:
                    return trigger, exposure.captured_ns + lifetime_ns  # too late for its part
                opening = replace(exposure, trigger=trigger)
                frame = self.ledger.open(
                    opening, camera=name, product=product, policy=station.policy, deadline_ns=lifetime_ns
                )
                part = self._parts[name, trigger] = _Part(frame)
            part.opened[camera] += 1
            return trigger, part.frame.deadline_ns

    def take(self, verdict: Verdict) -> tuple[Frame, Verdict] | None:
        """Take in the verdict of a frame. Returns the part and its verdict, if that is certain now."""
        key = (self._of.get(verdict.camera, ""), verdict.trigger)
        with self._lock:
            part = self._parts.get(key)
            if part is None or part.frame.deadline_ns != verdict.deadline_ns:
                return None  # too late for its part, though a later part may have the same number
            part.verdicts.append(verdict)
            station = self._stations[key[0]]
            complete = all(
                sum(each.camera == camera for each in part.verdicts) >= station.frames for camera in station.cameras
            )
            if verdict.decision is not Decision.REJECT and not complete:
                return None
            self._end(key)
        return part.frame, self._combined(part)

    def overdue(self, frame: Frame) -> Verdict | None:
        """The verdict of a part that must have one now; None if whoever took its last view has it."""
        key = (frame.camera, frame.trigger)
        with self._lock:
            part = self._parts.get(key)
            if part is None or part.frame is not frame:
                return None
            self._end(key)
        station = self._stations[frame.camera]
        missing = [camera for camera in station.cameras if part.opened[camera] < station.frames]
        cause = Cause.MISSING_VIEW if missing else Cause.LATE
        detail = f"missing: {', '.join(missing)}" if missing else ""
        return self._with_views(unjudged(frame, cause, self._clock(), detail=detail), part.verdicts)

    def _end(self, key: _Key) -> None:
        part = self._parts.pop(key, None)
        if part is not None:
            self._ended[key] = part.frame.deadline_ns + (part.frame.deadline_ns - part.frame.captured_ns)
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    def _combined(self, part: _Part) -> Verdict:
        """The verdict of a part of which enough is known."""
        rejected = [each for each in part.verdicts if each.decision is Decision.REJECT]
        unknown = [each for each in part.verdicts if each.decision is Decision.UNJUDGED]
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
