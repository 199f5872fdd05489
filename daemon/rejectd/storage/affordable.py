"""Decides how much of a verdict's record is kept while the disk is slow: maps go first, then pictures, then passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rejectd.contract.messages import Cause, Decision, Frame, Verdict
from rejectd.metrics import Metrics
from rejectd.storage.defect_events import Record
from rejectd.storage.picture_budget import EVIDENCE, MAP, Memory

MOST_RECORDS = 4096  # that wait
MOST_WITH_PASSES = 3072  # with more records waiting, passes are given up
_MOST_WITH_PICTURES = 256  # with more records waiting, pictures are given up
_MOST_WITH_MAPS = 64  # with more records waiting, anomaly maps are not even fetched from the device


class Affordable:
    """What there is time and memory for. Counts what is given up, but for whole records, which the recorder counts."""

    def __init__(self, memory: Memory, metrics: Metrics, *, evidence: bool) -> None:
        self._memory = memory
        self._metrics = metrics
        self._evidence = evidence

    def maps(self, waiting: int) -> bool:
        """Whether there is time and room for anomaly maps while so many records wait."""
        return waiting < _MOST_WITH_MAPS and self._memory.has_room(MAP)

    def record(
        self, verdict: Verdict, body: Mapping[str, Any], frame: Frame, *, waiting: int, unwritten: int
    ) -> Record | None:
        """The record of a verdict, with its frame and its map if they can be kept; None if it must be given up.

        `waiting`: records in the queue. `unwritten`: these, and those that the disk has not taken yet.
        """
        worth_seeing = verdict.decision is not Decision.PASS and verdict.cause is not Cause.PAUSED
        shown = frame.picture is not None or frame.given_up
        affordable = verdict.cause is not Cause.OVERLOAD and waiting < _MOST_WITH_PICTURES and not frame.given_up
        affordable = affordable and self._memory.has_room(EVIDENCE)
        if worth_seeing and shown and self._evidence and not affordable:
            self._metrics.sacrificed.labels("evidence").inc()
        if unwritten >= (MOST_WITH_PASSES if verdict.decision is Decision.PASS else MOST_RECORDS):
            return None
        shown_frame = frame if worth_seeing and affordable else None
        return Record(verdict=self._lightened(verdict, frame=shown_frame), body=body, frame=shown_frame)

    def _lightened(self, verdict: Verdict, *, frame: Frame | None) -> Verdict:
        """A verdict that keeps its anomaly map only if its frame is kept too, and memory has room for the map."""
        result = verdict.result
        if result is None or result.anomaly_map is None:
            return verdict
        self._memory.count(result.anomaly_map)
        if frame and self._memory.has_room(MAP):
            return verdict
        if frame:
            self._metrics.sacrificed.labels("map").inc()
        return dataclasses.replace(verdict, result=dataclasses.replace(result, anomaly_map=None))
