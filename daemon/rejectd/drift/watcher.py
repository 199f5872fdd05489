"""Runs the drift thread: takes judged parts, says in metrics and `problems` what has changed, and keeps its state.

A verdict never waits for it: parts are put into a short queue, and those that find it full are skipped and counted.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rejectd.contract.messages import DriftCause
from rejectd.contract.settings import Drift as DriftSettings
from rejectd.drift.causes import cause
from rejectd.drift.part import Part, Reference, cells
from rejectd.drift.watched import DAMAGED, LARGEST_BYTES, Watched
from rejectd.inspector import Model, looks
from rejectd.metrics import Metrics
from revdist.files.folders import write_file

log = logging.getLogger(__name__)

_WAITING = 16  # parts; at most some megabytes of prepared pictures
_TICK_S = 0.5
_KEEP_S = 60.0  # between two writes of the state
_YEAR_S = 365.25 * 86_400
_LEAST_RATE_HZ = 0.01  # parts of a line that has hardly begun
_RATE_AFTER_S = 60.0  # until then the rate is not measured, but taken to be
_RATE_AT_FIRST_HZ = 10.0
_SURE = 20  # parts in a row that must speak for another cause before it is named instead
_OVER = 0.5  # a change is over when no sign has this share of the evidence for an alarm


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """What has changed at a camera."""

    product: str
    cause: DriftCause
    sentence: str


class DriftWatcher:
    """What has changed at each camera. `put` and `problems` are for any thread, `run` is the life of one."""

    def __init__(
        self,
        settings: DriftSettings,
        folder: Path,
        *,
        loaded: Callable[[str], Model | None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` for the state; `loaded` gives the model of a key, None if it has been put away."""
        self._settings = settings
        self._folder = folder
        self._loaded = loaded
        self._metrics = metrics
        self._clock = clock
        self._queue: queue.Queue[Part | None] = queue.Queue(_WAITING)
        self._watched: dict[tuple[str, str], Watched] = {}  # by camera and product
        self._changed: dict[tuple[str, str], Drifted] = {}
        self._otherwise: Counter[tuple[str, str]] = Counter()  # parts in a row that spoke for another cause
        self._counts: Counter[str] = Counter()
        self._since_s: dict[str, float] = {}
        self._written_s = clock()
        self._ended = False

    def put(self, part: Part) -> None:
        """Hand over a judged part. Never waits."""
        if not self._settings.enabled or self._ended:
            return
        try:
            self._queue.put_nowait(part)
        except queue.Full:
            self._metrics.drift_skipped.labels(part.camera).inc()

    def end(self) -> None:
        """Let `run` finish the parts that wait, keep the state and return."""
        self._ended = True

    def run(self) -> None:
        """Watch until `end`."""
        while not (self._ended and self._queue.empty()):
            try:
                part = self._queue.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if part:
                self.take(part)
            if self._clock() - self._written_s >= _KEEP_S:
                self.keep()
        if self._settings.enabled:
            self.keep()

    def problems(self) -> list[str]:
        """A sentence for each camera and product that has changed: what, and what to do."""
        return [
            f"camera {camera}, product {product}: drift ({changed.cause}): {changed.sentence}"
            for (camera, product), changed in sorted(self._changed.items())
        ]

    def take(self, part: Part) -> None:
        """Look at a part."""
        watched = self._of(part)
        if watched is None:
            return
        limit = self._limit(part.camera)
        watched.observe(part.score, part.threshold, looks(part.pixels), cells(part.pixels), limit)
        self._show(part, watched, limit)

    def _of(self, part: Part) -> Watched | None:
        """Who watches the product at the camera, begun anew for another bundle; None if its bundle has gone."""
        key = part.camera, part.product
        watched = self._watched.get(key)
        if watched and watched.model == part.model:
            return watched
        model = self._loaded(part.model)
        if model is None:
            return None
        reference = Reference(scores=model.calibration.scores, looks=model.looks)
        watched = Watched(part.model, reference, self._settings.learning_parts)
        if key not in self._watched:  # else the file is that of the other bundle
            self._restore(key, watched)
        self._watched[key] = watched
        return watched

    def _limit(self, camera: str) -> float:
        """The number of parts in the time in which one false alarm is allowed, at the rate at which they come."""
        now = self._clock()
        since = self._since_s.setdefault(camera, now)
        self._counts[camera] += 1
        passed_s = now - since
        rate_hz = self._counts[camera] / passed_s if passed_s >= _RATE_AFTER_S else _RATE_AT_FIRST_HZ
        return max(rate_hz, _LEAST_RATE_HZ) * _YEAR_S * self._settings.years_between_false_alarms

    def _show(self, part: Part, watched: Watched, limit: float) -> None:
        key = part.camera, part.product
        before = self._changed.get(key)
        signs = watched.signs(limit)
        for sign, share in signs.shares.items():
            self._metrics.drift_evidence.labels(part.camera, sign).set(share)
        named = cause(signs, _OVER if before else 1.0)
        now = Drifted(product=part.product, cause=named[0], sentence=named[1]) if named else None
        if before and now and now.cause is not before.cause:
            self._otherwise[key] += 1
            now = now if self._otherwise[key] > _SURE else before
        if not before or not now or now is not before:
            self._otherwise.pop(key, None)
        for possible in DriftCause:
            self._metrics.drift.labels(part.camera, possible).set(now is not None and now.cause is possible)
        others = {other: changed for other, changed in self._changed.items() if other[0] != part.camera}
        self._changed = {**others, key: now} if now else others  # another product may have left its own there
        if now and (before is None or before.cause is not now.cause):
            log.warning("camera %s, product %s: drift (%s): %s", *key, now.cause, now.sentence)
        elif before and not now:
            log.info("camera %s, product %s: no drift any more", *key)

    def _file(self, key: tuple[str, str]) -> Path:
        return self._folder / f"{key[0]}.{key[1]}.npz"

    def _restore(self, key: tuple[str, str], watched: Watched) -> None:
        """Go on where an earlier run was; a file that cannot be used is left, and replaced later."""
        file = self._file(key)
        try:
            with file.open("rb") as stream:
                content = stream.read(LARGEST_BYTES + 1)
            if len(content) > LARGEST_BYTES:
                raise ValueError(f"more than {LARGEST_BYTES} bytes")
            if not watched.restore(content):
                log.info("%s: of another bundle; drift is watched anew", file)
        except FileNotFoundError:
            return
        except DAMAGED as error:
            log.warning("%s: cannot be used, drift is watched anew: %s", file, error)

    def keep(self) -> None:
        """Write the state."""
        self._written_s = self._clock()
        for key, watched in self._watched.items():
            try:
                write_file(self._file(key), watched.saved())
            except OSError as error:
                log.warning("%s: what drift has learnt cannot be kept: %s", self._file(key), error.strerror)
