"""Has the device inspect one batch after another. A batch that fails is tried frame by frame.

The inspect thread runs `Inspecting.run`. The verdict thread takes what it has inspected from the queue `inspected`.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rejectd.batching.batcher import Batch, Batcher
from rejectd.contract.messages import Frame, Result
from rejectd.inspector import Begun, Inspector, InspectorError
from rejectd.metrics import Metrics

log = logging.getLogger(__name__)

_BATCHES_WAITING = 4  # for their verdicts: the device waits if these take longer than it does
_VERDICTS_S = 60.0  # longer than the verdicts of a batch ever take
_ENGINE_FAULTS = 10  # failed batches in a row after which only a restart helps


class EngineBrokenError(RuntimeError):
    """The device failed so often in a row that the service must be restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """A batch that has been inspected."""

    frames: Sequence[Frame]
    results: Sequence[Result | InspectorError]
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that the device computes."""

    frames: Sequence[Frame]
    maps: bool  # whether they are wanted
    started_ns: int
    batch: Begun


class Inspecting:
    """Keeps the device busy. `busy_since_ns` tells any thread since when the device has its oldest batch."""

    def __init__(
        self,
        batcher: Batcher,
        inspector: Inspector,
        metrics: Metrics,
        *,
        maps_affordable: Callable[[], bool],
        clock: Callable[[], int],
    ) -> None:
        self._batcher = batcher
        self._inspector = inspector
        self._metrics = metrics
        self._maps_affordable = maps_affordable
        self._clock = clock
        self.inspected: queue.Queue[Inspected | Batch | None] = queue.Queue(_BATCHES_WAITING)  # None: the end
        self.busy_since_ns: int | None = None  # when the device got the oldest batch that it has now
        self._failures = 0  # batches in a row
        self.fault = ""  # why the last batch failed; empty if it did not
        self._held_up: _Running | None = None  # what the device had beside a batch whose frames were tried one by one

    def run(self) -> None:
        """Run the inspect thread until the batcher is closed and empty.

        If the device has room before it has finished a batch, the next batch is begun first, and then this one settled.
        """
        batcher = self._batcher
        before: _Running | None = None
        try:
            while (batch := batcher.take(wait=before is None)) or before:
                if batch and batch.hopeless:
                    self.inspected.put(batch, timeout=_VERDICTS_S)
                begun = self._begin(batch.frames) if batch and batch.frames else None
                if before:
                    self._settle(before, begun)
                before = begun
                if begun and (not begun.batch.wait_for_room() or self._failures >= _ENGINE_FAULTS):
                    self._settle(begun, None)
                    before = None
                if self._failures >= _ENGINE_FAULTS:
                    raise EngineBrokenError(f"{self._failures} batches in a row failed: {self.fault}")
                batch = begun = None  # their pictures need not wait for the next ones
        finally:
            self.inspected.put(None, timeout=_VERDICTS_S)

    def _begin(self, frames: Sequence[Frame]) -> _Running:
        maps = self._maps_affordable()
        started_ns = self._clock()
        if self.busy_since_ns is None:
            self.busy_since_ns = started_ns
        return _Running(frames, maps, started_ns, self._inspector.begin(frames, maps=maps))

    def _settle(self, begun: _Running, following: _Running | None) -> None:
        """Wait for the results of a batch, pass them on, and learn how long that took, beside others as it was."""
        results = self._results(begun)
        self.busy_since_ns = following.started_ns if following else None
        ended_ns = self._clock()
        self.inspected.put(
            Inspected(frames=begun.frames, results=results, started_ns=begun.started_ns, ended_ns=ended_ns),
            timeout=_VERDICTS_S,
        )
        whole = all(isinstance(result, Result) for result in results)
        if whole and begun is not self._held_up:
            self._batcher.service_time.learn(len(results), ended_ns - begun.started_ns)
        self._held_up = None if whole else following
        self._failures = 0 if any(isinstance(result, Result) for result in results) else self._failures + 1
        self.fault = next((str(result) for result in results if isinstance(result, InspectorError)), "")

    def _results(self, begun: _Running) -> list[Result | InspectorError]:
        """The results of a batch. If it fails, each frame is tried alone, so that one cannot spoil the others."""
        try:
            results = begun.batch.results()
        except InspectorError as error:
            log.error("%s", error)
            if len(begun.frames) == 1:
                return [error]
            return [result for frame in begun.frames for result in self._results(self._begin([frame]))]
        if not begun.maps:
            rejects = sum(result.score > result.threshold for result in results)
            self._metrics.sacrificed.labels("map").inc(rejects)
        return list(results)
