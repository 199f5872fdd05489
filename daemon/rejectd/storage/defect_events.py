"""Builds the defect event of a part that did not pass, with its evidence. An event is sent even without evidence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rejectd.contract.messages import GOLDEN, Decision, Frame, Verdict
from rejectd.contract.payloads import defect_payload, defect_topic
from rejectd.metrics import Metrics
from rejectd.storage.evidence import Evidence, EvidenceError, regions
from rejectd.storage.outbox import Body, NewEvent

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A verdict on its way to the disk, with its frame if evidence shall be kept."""

    verdict: Verdict
    body: Mapping[str, Any]  # of its message
    frame: Frame | None


class Defects:
    """Builds defect events. Owned by the record thread; any thread may read `problem`."""

    def __init__(self, line: str, evidence: Evidence | None, metrics: Metrics) -> None:
        self._line = line
        self._evidence = evidence
        self._metrics = metrics
        self.problem = ""  # why no evidence can be kept now

    def open(self) -> None:
        """Open the evidence folder if that is possible now."""
        if self._evidence:
            try:
                self._evidence.open()
                self.problem = ""
            except EvidenceError as error:
                self._failed(error)

    def event(self, record: Record) -> NewEvent:
        """The defect event of a verdict. Its evidence is on disk when this returns."""
        verdict, frame = record.verdict, record.frame
        evidence, boxes = "", []
        if frame and verdict.result and verdict.result.anomaly_map is not None and frame.picture is not None:
            boxes = regions(verdict.result.anomaly_map, verdict.result.threshold, frame.picture.shape)
        if frame and self._evidence:
            try:
                evidence = self._evidence.keep(frame, verdict.result)
                self.problem = ""
            except EvidenceError as error:
                self._failed(error)
                self._metrics.sacrificed.labels("evidence").inc()
        return defect_event(self._line, record.body, evidence=evidence, regions=boxes)

    def event_of(self, body: Body) -> NewEvent:
        """The defect event of a verdict from an earlier run, of which only the body is left."""
        return defect_event(self._line, body)

    def _failed(self, error: EvidenceError) -> None:
        if str(error) != self.problem:
            log.error("%s", error)
        self.problem = str(error)


def defect_event(
    line: str, body: Mapping[str, Any], *, evidence: str = "", regions: Sequence[Sequence[int]] = ()
) -> NewEvent:
    """The defect event of a verdict with this body."""
    payload = defect_payload(body, evidence=evidence, regions=regions)
    return NewEvent(event_id=body["event_id"], topic=defect_topic(line, body["camera"]), payload=payload)


def is_defect(body: Body) -> bool:
    """Whether a verdict makes a defect event: the part did not pass, and is no known picture."""
    return bool(body["decision"] != Decision.PASS and body["camera"] != GOLDEN)
