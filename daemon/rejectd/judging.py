"""Tells whether parts are judged at all, from how the last parts of each camera or station ended.

A line whose parts all end as `late` answers in time, but inspects nothing. So too large a share of unjudged parts is a
problem, which names the likely cause. While most parts are unjudged, the line's status does not say `judging`.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable

from rejectd.contract.messages import Cause, Verdict
from rejectd.contract.settings import Judging as JudgingSettings

log = logging.getLogger(__name__)

_FEW = 3  # fewer unjudged parts, or fewer judged parts in a row, prove nothing yet
_GOES_ON = 0.5  # with this share of unjudged parts or more, a camera or the line does not judge
_NOT_COUNTED = (Cause.PAUSED, Cause.STOPPING)  # parts that somebody wanted unjudged
_OF_THE_ENGINE = (Cause.LATE, Cause.OVERLOAD, Cause.ENGINE_FAULT)  # causes that hit all cameras
_HELP = {
    Cause.LATE: "the processors may be busy with other programs: free them, calibrate bundles that run on torch for "
    "openvino, set engine.threads: 1, or raise deadline_ms",
    Cause.OVERLOAD: "parts come faster than the engine judges: calibrate the bundles for a coarser precision, train "
    "with a smaller teacher, or raise deadline_ms",
    Cause.CAMERA_FAULT: "look at the camera's status and the log",
    Cause.ENGINE_FAULT: "look at the log; try engine.device: cpu and engine.precision: float32",
    Cause.MISSING_VIEW: "look at the cameras of the station",
}


class Judged:
    """How the last parts of each camera or station ended. Safe for any number of threads."""

    def __init__(self, settings: JudgingSettings, cameras: Iterable[str], stations: Iterable[str] = ()) -> None:
        """`cameras`: those in no station, since each of their frames is a part; `stations`: for all other cameras."""
        self._share = settings.unjudged_share
        self._names = {name: f"camera {name}" for name in cameras} | {name: f"station {name}" for name in stations}
        self._ends: dict[str, deque[Cause | None]] = {name: deque(maxlen=settings.parts) for name in self._names}
        self._lock = threading.Lock()
        self._said: set[str] = set()  # cameras and stations whose problem was logged

    def ended(self, verdict: Verdict) -> None:
        """Note the verdict of a part; known pictures and the single views of a station do not count."""
        if verdict.camera not in self._ends or verdict.cause in _NOT_COUNTED:
            return
        with self._lock:
            self._ends[verdict.camera].append(verdict.cause)

    @property
    def going_on(self) -> bool:
        """Whether parts are judged: no camera loses half of its parts to the engine, nor the line more than half."""
        with self._lock:
            ends = {camera: list(causes) for camera, causes in self._ends.items()}
        busy = [causes for causes in ends.values() if causes and not _recovered(causes)]
        if any(_many([cause in _OF_THE_ENGINE for cause in causes], _GOES_ON) for causes in busy):
            return False
        unjudged = [cause is not None for causes in ends.values() for cause in causes]
        return not (busy and _many(unjudged, _GOES_ON) and sum(unjudged) > _GOES_ON * len(unjudged))

    def problems(self) -> list[str]:
        """A problem for each camera or station with too many unjudged parts: the likely cause, and what may help."""
        with self._lock:
            ends = {camera: list(causes) for camera, causes in self._ends.items()}
        problems = {name: _problem(self._names[name], causes, self._share) for name, causes in ends.items()}
        for name, problem in problems.items():
            if problem and name not in self._said:
                self._said.add(name)
                log.warning("%s", problem)
            elif not problem and name in self._said:
                self._said.discard(name)
                log.info("%s: its parts are judged again", self._names[name])
        return [problem for problem in problems.values() if problem]


def _problem(whose: str, causes: list[Cause | None], share: float) -> str:
    if not _many([cause is not None for cause in causes], share):
        return ""
    counts = Counter(cause for cause in causes if cause is not None)
    cause, _ = counts.most_common(1)[0]
    return (
        f"{whose}: {counts.total()} of its last {len(causes)} parts were not judged, mostly {cause}; "
        f"{_HELP.get(cause, 'look at the log')}"
    )


def _many(unjudged: list[bool], share: float) -> bool:
    return sum(unjudged) >= _FEW and sum(unjudged) >= share * len(unjudged)


def _recovered(causes: list[Cause | None]) -> bool:
    return len(causes) >= _FEW and all(cause is None for cause in causes[-_FEW:])
