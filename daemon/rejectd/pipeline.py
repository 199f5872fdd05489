"""A frame's life.

    capture   a camera delivers a picture; it is prepared for the model, and the ledger opens it as a frame
    batcher   frames of all cameras wait for a batch that can still be judged in time
    inspect   one pass of the teacher for the batch, each product's student on its own frames, a verdict for each
    deadlines closes as `late` what would otherwise miss its deadline, also while the device hangs
    finish    the ledger closes the frame; who is first publishes
    record    journal, evidence and the defect event follow behind, and can never delay a verdict

Each method named after a stage is the whole life of one thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rejectd.batcher import Batch, Batcher
from rejectd.cameras import pictures
from rejectd.decision import decide, unjudged
from rejectd.evidence import Evidence, EvidenceError, regions
from rejectd.inspector import Inspector, InspectorError
from rejectd.ledger import Ledger
from rejectd.messages import (
    CameraState,
    CameraStatus,
    Cause,
    Decision,
    Frame,
    Picture,
    Result,
    Verdict,
    defect_payload,
    defect_topic,
)
from rejectd.metrics import Metrics
from rejectd.mqtt import Publisher
from rejectd.outbox import NewEvent, Outbox, OutboxError
from rejectd.settings import AnyCamera

log = logging.getLogger(__name__)

_RECORDS = 1024  # verdicts that wait for the disk
_RECORDS_WITH_EVIDENCE = 64  # above this the pictures are given up
_ENGINE_FAULTS = 10  # failed batches in a row after which only a restart helps
_GROUP = 64  # records in one transaction
_PRUNE_S = 60.0


class EngineBrokenError(RuntimeError):
    """The device failed so often in a row that the service must be restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A verdict on its way to the disk, with its frame if evidence is to be kept."""

    verdict: Verdict
    frame: Frame | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What a frame passes through. Each is owned by one thread; the ledger and the batcher are safe for all."""

    ledger: Ledger
    batcher: Batcher
    inspector: Inspector
    publisher: Publisher
    outbox: Outbox
    evidence: Evidence | None
    metrics: Metrics


class Pipeline:
    """Moves frames through the stages."""

    def __init__(self, stages: Stages, *, line: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._stages = stages
        self._line = line
        self._clock = clock
        self._records: queue.Queue[Record | int | None] = queue.Queue(maxsize=_RECORDS)
        self.busy_since_ns: int | None = None  # when the device got the batch that it has now

    def capture(self, name: str, camera: AnyCamera, stop: threading.Event) -> None:
        """The life of one camera thread."""

        def report(state: CameraState, reason: str) -> None:
            level = logging.WARNING if state in (CameraState.DOWN, CameraState.DEGRADED) else logging.INFO
            log.log(level, "camera %s %s%s", name, state, f": {reason}" if reason else "")
            self._stages.metrics.camera_state(name, state)
            status = CameraStatus(camera=name, state=state, reason=reason, since_unix_ns=time.time_ns())
            self._stages.publisher.camera(status)

        report(CameraState.STARTING, "")
        for picture in pictures(camera, stop, report):
            self._enter(name, camera, picture)

    def _enter(self, name: str, camera: AnyCamera, picture: Picture) -> None:
        """Make a frame of a picture and queue it, or answer it at once."""
        stages = self._stages
        pixels = None
        has_room = stages.batcher.has_room(name)  # this thread alone adds to it, so that room stays room
        if picture.pixels is not None and not picture.fault and has_room:
            started = self._clock()
            try:
                pixels = stages.inspector.prepare(picture.pixels, camera.product)
            except InspectorError as error:
                picture = dataclasses.replace(picture, fault=str(error))
            stages.metrics.stage.labels("prepare").observe((self._clock() - started) / 1e9)
        frame = stages.ledger.open(
            picture,
            camera=name,
            product=camera.product,
            policy=camera.policy,
            deadline_ns=camera.deadline_ms * 1_000_000,
            pixels=pixels,
        )
        if frame.fault or frame.picture is None:
            self._finish(frame, unjudged(frame, Cause.CAMERA_FAULT, self._clock(), detail=frame.fault))
        elif frame.pixels is None or not stages.batcher.put(frame):
            cause = Cause.STOPPING if stages.batcher.closed else Cause.OVERLOAD
            self._finish(
                frame,
                unjudged(frame, cause, self._clock(), detail="too many frames wait" if cause is Cause.OVERLOAD else ""),
            )

    def inspect(self) -> None:
        """The life of the inspect thread; ends when the batcher is closed and empty."""
        failures = 0
        for batch in self._stages.batcher:
            self._answer_hopeless(batch)
            if not batch.frames:
                continue
            started = self.busy_since_ns = self._clock()
            results = self._inspect(batch.frames)
            self.busy_since_ns = None
            now = self._clock()
            for frame, result in zip(batch.frames, results, strict=True):
                if isinstance(result, Result):
                    self._finish(frame, decide(frame, result, now))
                else:
                    self._finish(frame, unjudged(frame, Cause.ENGINE_FAULT, now, detail=str(result)))
            if all(isinstance(result, Result) for result in results):
                self._measure(batch, started, now)
            failures = 0 if any(isinstance(result, Result) for result in results) else failures + 1
            if failures >= _ENGINE_FAULTS:
                raise EngineBrokenError(f"{failures} batches in a row failed: {results[0]}")

    def _inspect(self, frames: Sequence[Frame]) -> list[Result | InspectorError]:
        """Judge a batch. If it fails each frame is tried by itself, so that one cannot take others with it."""
        try:
            return list(self._stages.inspector.inspect(frames))
        except InspectorError as error:
            log.error("%s", error)
            if len(frames) == 1:
                return [error]
        return [result for frame in frames for result in self._inspect([frame])]

    def _answer_hopeless(self, batch: Batch) -> None:
        for frame in batch.hopeless:
            self._finish(frame, unjudged(frame, Cause.OVERLOAD, self._clock(), detail="no time left to inspect it"))

    def _measure(self, batch: Batch, started: int, ended: int) -> None:
        """What the batch teaches about the engine. After the verdicts, so that it delays none."""
        metrics = self._stages.metrics
        self._stages.batcher.service_time.learn(len(batch.frames), ended - started)
        metrics.batch.observe(len(batch.frames))
        metrics.stage.labels("inspect").observe((ended - started) / 1e9)
        for frame in batch.frames:
            metrics.stage.labels("wait").observe((started - frame.captured_ns) / 1e9)

    def watch_deadlines(self, stop: threading.Event) -> None:
        """The life of the deadline thread: nothing stays without an answer until it is too late."""
        while not stop.is_set():
            for frame in self._stages.ledger.wait_due(timeout_s=0.5):
                self._finish(frame, unjudged(frame, Cause.LATE, self._clock()))

    def answer_all(self) -> None:
        """End every frame that is still in flight, since the service stops."""
        for frame in self._stages.ledger.in_flight():
            self._finish(frame, unjudged(frame, Cause.STOPPING, self._clock()))

    def _finish(self, frame: Frame, verdict: Verdict) -> None:
        """Close a frame and send its verdict on its way. What comes second is counted, never published."""
        stages = self._stages
        if not stages.ledger.close(verdict):
            if verdict.result:
                stages.metrics.too_late.labels(frame.camera).inc()
            return
        stages.publisher.verdict(verdict)
        if verdict.result and verdict.result.threshold > 0:
            stages.metrics.ratio.labels(frame.product).observe(verdict.result.score / verdict.result.threshold)
        wanted = verdict.decision is not Decision.PASS
        affordable = verdict.cause is not Cause.OVERLOAD and self._records.qsize() < _RECORDS_WITH_EVIDENCE
        if wanted and not affordable:
            stages.metrics.sacrificed.labels("evidence").inc()
        try:
            self._records.put_nowait(Record(verdict=verdict, frame=frame if wanted and affordable else None))
        except queue.Full:
            stages.metrics.sacrificed.labels("journal").inc()

    def acknowledge(self, event_seq: int) -> None:
        """Note that the broker has an event. If there is no room the event is sent once more after a restart."""
        try:
            self._records.put_nowait(event_seq)
        except queue.Full:
            log.debug("acknowledgement of event %d not noted", event_seq)

    def record(self) -> None:
        """The life of the record thread; ends at `end_records`, when everything before it is on disk."""
        next_prune = 0.0
        while True:
            group = self._next_group()
            self._write([item for item in group if item is not None])
            for _ in group:
                self._records.task_done()
            if None in group:
                return
            if time.monotonic() >= next_prune:
                next_prune = time.monotonic() + _PRUNE_S
                self._prune()

    def _prune(self) -> None:
        try:
            lost = self._stages.outbox.prune()
        except OutboxError as error:
            log.error("%s", error)
        else:
            if lost:
                log.error("journal full: %d defect events given up before the broker had them", lost)

    def wait_recorded(self, timeout_s: float) -> bool:
        """Wait until all records are on disk."""
        until = time.monotonic() + timeout_s
        while self._records.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)
        return not self._records.unfinished_tasks

    def end_records(self) -> None:
        """Let `record` end after what is queued; if there is no room for that word it is left behind."""
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=1)

    def _next_group(self) -> list[Record | int | None]:
        """At least one record, and whatever else waits, up to a group."""
        try:
            group = [self._records.get(timeout=1.0)]
        except queue.Empty:
            return []
        while len(group) < _GROUP and group[-1] is not None:
            try:
                group.append(self._records.get_nowait())
            except queue.Empty:
                break
        return group

    def _write(self, group: list[Record | int]) -> None:
        """One transaction for the group. If the disk is full the service goes on and counts what it could not keep."""
        stages = self._stages
        records = [item for item in group if isinstance(item, Record)]
        acknowledged = [item for item in group if isinstance(item, int)]
        if group:
            events = [self._event(record) for record in records if record.verdict.decision is not Decision.PASS]
            verdicts = [(item.verdict, (item.verdict.decided_ns - item.verdict.captured_ns) / 1e6) for item in records]
            try:
                stages.outbox.write(verdicts, events, acknowledged)
                stages.metrics.outbox.set(stages.outbox.waiting())
            except OutboxError as error:
                log.error("%s", error)
                stages.metrics.sacrificed.labels("journal").inc(len(records))
            if events:
                stages.publisher.wake()

    def _event(self, record: Record) -> NewEvent:
        """The defect event of a verdict, with its evidence on disk before it goes out."""
        verdict, frame = record.verdict, record.frame
        evidence, boxes = "", []
        if frame and verdict.result and verdict.result.anomaly_map is not None and frame.picture is not None:
            boxes = regions(verdict.result.anomaly_map, verdict.result.threshold, frame.picture.shape)
        if frame and self._stages.evidence:
            try:
                evidence = self._stages.evidence.keep(frame, verdict.result)
            except EvidenceError as error:
                log.error("%s", error)
                self._stages.metrics.sacrificed.labels("evidence").inc()
        payload = defect_payload(self._line, verdict, evidence=evidence, regions=boxes)
        return NewEvent(event_id=verdict.event_id, topic=defect_topic(self._line, verdict.camera), payload=payload)
