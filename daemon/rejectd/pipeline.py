"""A frame's life.

    enter     a camera notices an exposure; the ledger opens it as a frame, before anything is read
    capture   its picture is read and prepared for the model
    batcher   frames of all cameras wait for a batch that can still be judged in time
    inspect   one pass of the teacher for the batch, each product's student on its own frames
    decide    a verdict for each, while the device has the next batch already
    deadlines closes as `late` what would otherwise miss its deadline, also while the device hangs
    finish    the ledger closes the frame; who is first publishes, and the frame's station may know its part's verdict
    record    journal, evidence and the defect event follow behind, and can never delay a verdict (recorder.py)

`capture`, `inspect`, `decide`, `watch_deadlines` and `watch_parts` are the whole life of a thread each. `_open_frame`
runs in the thread that waits for a camera's exposures, `_finish` in the one that ends the frame.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from rejectd.batching.batcher import Batch, Batcher
from rejectd.cameras import Driver, Remark, driver, pictures
from rejectd.contract.messages import (
    CameraState,
    CameraStatus,
    Cause,
    Decision,
    Exposure,
    Frame,
    Picture,
    Pixels,
    Policy,
    Result,
    Verdict,
)
from rejectd.contract.payloads import encode, verdict_payload
from rejectd.contract.settings import AnyCamera
from rejectd.decision import decide, unjudged
from rejectd.drift.part import Part
from rejectd.inspecting import Inspected, Inspecting
from rejectd.inspector import Inspector, InspectorError
from rejectd.judging import Judged
from rejectd.ledger import Ledger
from rejectd.metrics import Metrics
from rejectd.mqtt import Publisher
from rejectd.stations import Stations
from rejectd.storage.picture_budget import EVIDENCE, VIEW, Memory
from rejectd.storage.recorder import Recorder

log = logging.getLogger(__name__)

_NO_VIEW = "no picture is kept for viewing: those that wait for their verdict or the disk take the memory (memory_mb)"


@dataclass(frozen=True, slots=True)
class Ended:
    """A frame or part that has its verdict, as people may look at it."""

    verdict: Verdict  # without its anomaly map where memory is short
    picture: Pixels | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The stages that a frame passes through. One thread owns each; ledger, batcher and stations are safe for all."""

    ledger: Ledger
    batcher: Batcher
    inspector: Inspector
    stations: Stations
    publisher: Publisher
    recorder: Recorder
    memory: Memory
    metrics: Metrics
    drift: Callable[[Part], None]  # takes a judged part, and never waits


class Pipeline:
    """Moves frames through the stages."""

    def __init__(
        self,
        stages: Stages,
        *,
        line: str,
        products: Mapping[str, str],
        judged: Judged,
        opener: Callable[[str, AnyCamera], Driver] = lambda _, settings: driver(settings),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`products` of each camera at the start; `judged` is told how frames end; `opener` makes drivers by name."""
        self._stages = stages
        self._line = line
        self._clock = clock
        self._opener = opener
        self.judged = judged
        self._exposures: Counter[str] = Counter()
        self.inspecting = Inspecting(
            stages.batcher,
            stages.inspector,
            stages.metrics,
            maps_affordable=lambda: stages.recorder.maps_affordable,
            clock=clock,
        )
        self.products = dict(products)  # what passes each camera; changed by a changeover, in one step
        self.paused: dict[str, Policy | None] = {}  # cameras that are not inspected, and what to do with their parts
        self.latest: dict[str, Picture] = {}  # of each camera
        self.ended: dict[str, Ended] = {}  # the last of each camera and station
        self.states: dict[str, CameraStatus] = {}
        self.watchers: dict[str, Callable[[Verdict], None]] = {}  # who waits for the verdict of a frame

    def capture(self, name: str, camera: AnyCamera, stop: threading.Event) -> None:
        """Run one camera thread."""

        def report(state: CameraState, reason: str) -> None:
            level = logging.WARNING if state in (CameraState.DOWN, CameraState.DEGRADED) else logging.INFO
            log.log(level, "camera %s %s%s", name, state, f": {reason}" if reason else "")
            self._stages.metrics.camera_state(name, state)
            status = CameraStatus(camera=name, state=state, reason=reason, since_unix_ns=time.time_ns())
            self.states[name] = status
            self._stages.publisher.camera(status)
            self._stages.stations.report(status, self._stages.publisher.camera)

        def enter(exposure: Exposure) -> Frame:
            return self._open_frame(name, camera, exposure)

        def remark(of_driver: Remark) -> None:
            self._stages.metrics.rewritten.labels(name).inc(of_driver.rewritten)
            self._stages.metrics.not_seen.labels(name).inc(of_driver.missed)
            if of_driver.stream:
                self._stages.metrics.stream_counted(name, of_driver.stream)

        def examine(pixels: Pixels) -> str:
            return self._stages.inspector.fault(pixels, self.products[name]) if camera.image_health else ""

        report(CameraState.STARTING, "")
        for frame, picture in pictures(
            camera, stop, report, enter, remark=remark, opener=partial(self._opener, name), examine=examine
        ):
            self._show(frame, picture)

    def _open_frame(self, name: str, camera: AnyCamera, exposure: Exposure) -> Frame:
        """Make a frame of an exposure when it is noticed. From here on, the frame gets its verdict in time."""
        stages = self._stages
        self._exposures[name] += 1
        product, paused = self.products[name], name in self.paused
        part = stages.stations.join(name, product, exposure, self._exposures[name])
        trigger, deadline_ns = part or (None, exposure.captured_ns + camera.deadline_ms * 1_000_000)
        frame = stages.ledger.open(
            exposure,
            camera=name,
            product=product,
            policy=self.paused.get(name) or camera.policy,
            deadline_ns=deadline_ns - exposure.captured_ns,
            trigger=trigger,
        )
        if paused:
            self._finish(frame, unjudged(frame, Cause.PAUSED, self._clock()))
        return frame

    def _show(self, frame: Frame, picture: Picture) -> None:
        """Prepare the picture of a frame and queue it, or answer the frame at once."""
        stages = self._stages
        picture = self._aligned(frame, picture)
        fault = picture.fault
        stages.metrics.picture_fault(frame.camera, fault)
        frame = self._keep(frame, picture)
        if not stages.ledger.fill(frame):
            return  # it was answered already: paused, or while its picture was read
        has_room = stages.batcher.has_room(frame.camera)  # this thread alone adds to it, so that room stays room
        if picture.pixels is not None and not fault and has_room:
            started = self._clock()
            try:
                pixels, model = stages.inspector.prepare(picture.pixels, frame.product)
            except InspectorError as error:
                fault = str(error)
            else:
                frame = dataclasses.replace(frame, pixels=pixels, model=model, prepared_ns=self._clock())
                stages.ledger.fill(frame)
            stages.metrics.stage.labels("prepare").observe((self._clock() - started) / 1e9)
        if fault or picture.pixels is None:
            cause = Cause.CAMERA_FAULT if self._clock() < frame.due_ns else Cause.LATE
            self._finish(frame, unjudged(frame, cause, self._clock(), detail=fault))
        elif frame.pixels is None or not stages.batcher.put(frame):
            cause = Cause.STOPPING if stages.batcher.closed else Cause.OVERLOAD
            detail = "too many frames wait" if cause is Cause.OVERLOAD else ""
            self._finish(frame, unjudged(frame, cause, self._clock(), detail=detail))

    def _aligned(self, frame: Frame, picture: Picture) -> Picture:
        """Bring the part to its reference position: evidence, heat map and regions are those of that position."""
        if picture.pixels is None or picture.fault:
            return picture
        try:
            return dataclasses.replace(picture, pixels=self._stages.inspector.align(picture.pixels, frame.product))
        except InspectorError as error:
            return dataclasses.replace(picture, fault=str(error))

    def _keep(self, frame: Frame, picture: Picture) -> Frame:
        """Keep a picture for viewing and for evidence, as far as memory allows; its verdict needs neither."""
        memory = self._stages.memory
        if picture.pixels is not None:
            memory.count(picture.pixels)
        affordable = memory.has_room(EVIDENCE)
        viewable = memory.has_room(VIEW)
        self.latest[frame.camera] = picture if viewable else dataclasses.replace(picture, pixels=None, fault=_NO_VIEW)
        pixels = picture.pixels if affordable else None
        return dataclasses.replace(frame, picture=pixels, given_up=picture.pixels is not None and not affordable)

    def enter(self, frame: Frame) -> None:
        """Queue a frame that comes from no camera, such as a known picture. The ledger has opened it already."""
        if not self._stages.batcher.put(frame):
            self._finish(frame, unjudged(frame, Cause.OVERLOAD, self._clock(), detail="too many frames wait"))

    def inspect(self) -> None:
        """Run the inspect thread until the batcher is closed and empty."""
        self.inspecting.run()

    def decide(self) -> None:
        """Run the verdict thread until the inspect thread has ended."""
        while self._decide_next():
            continue

    def _decide_next(self) -> bool:
        """Decide the frames of one batch. Returns False at the end. No frame is held while the thread waits."""
        batch = self.inspecting.inspected.get()
        if batch is None:
            return False
        if isinstance(batch, Batch):
            for frame in batch.hopeless:
                detail = "no time left to inspect it"
                self._finish(frame, unjudged(frame, Cause.OVERLOAD, self._clock(), detail=detail))
            return True
        for frame, result in zip(batch.frames, batch.results, strict=True):
            if isinstance(result, Result):
                self._finish(frame, decide(frame, result, batch.ended_ns))
            else:
                self._finish(frame, unjudged(frame, Cause.ENGINE_FAULT, batch.ended_ns, detail=str(result)))
        self._measure(batch)
        return True

    def _measure(self, batch: Inspected) -> None:
        """Put a batch into the metrics. Called after its verdicts, so that it delays none."""
        metrics = self._stages.metrics
        metrics.batch_ended(len(batch.frames), batch.ended_ns - batch.started_ns)
        for frame in batch.frames:
            metrics.stage.labels("wait").observe((batch.started_ns - frame.captured_ns) / 1e9)

    def watch_deadlines(self, stop: threading.Event) -> None:
        """Run the deadline thread: answer frames that would otherwise miss their deadline."""
        while not stop.is_set():
            for frame in self._stages.ledger.wait_due(timeout_s=0.5):
                self._finish(frame, unjudged(frame, Cause.LATE, self._clock()))

    def watch_parts(self, stop: threading.Event) -> None:
        """Run the deadline thread of parts."""
        stations = self._stages.stations
        while not stop.is_set():
            for part in stations.ledger.wait_due(timeout_s=0.5):
                verdict = stations.overdue(part)
                if verdict:
                    self._finish(part, verdict)

    def answer_all(self) -> None:
        """End all frames and parts that are still in flight, since the service stops."""
        for frame in self._stages.ledger.in_flight():
            self._finish(frame, unjudged(frame, Cause.STOPPING, self._clock()))
        for part in self._stages.stations.ledger.in_flight():
            self._finish(part, unjudged(part, Cause.STOPPING, self._clock()))

    def _finish(self, frame: Frame, verdict: Verdict) -> None:
        """Close a frame or part, and publish and record its verdict. A second verdict is counted, never published."""
        stages = self._stages
        is_part = frame.camera in stages.stations
        body = verdict_payload(self._line, verdict)
        encoded = encode(body)
        if not (stages.stations.ledger if is_part else stages.ledger).close(verdict, encoded):
            if verdict.result and not is_part:
                stages.metrics.too_late.labels(frame.camera).inc()
            return
        stages.recorder.verdict(verdict, body, frame)  # before its acknowledgement can come
        stages.publisher.verdict(verdict, encoded)
        self.judged.ended(verdict)
        self.ended[frame.camera] = self._viewable(frame, verdict)
        if is_part:
            return
        if verdict.result and verdict.result.threshold > 0:
            rejected = {"event_id": verdict.event_id} if verdict.decision is Decision.REJECT else None
            ratio = verdict.result.score / verdict.result.threshold
            stages.metrics.ratio.labels(frame.product).observe(ratio, rejected)
        if verdict.result and frame.pixels is not None and frame.camera in self.products:
            self._stages.drift(_part(frame, frame.pixels, verdict.result))
        if frame.event_id in self.watchers:
            self.watchers[frame.event_id](verdict)
        decided = stages.stations.take(verdict)
        if decided:
            self._finish(*decided)

    def _viewable(self, frame: Frame, verdict: Verdict) -> Ended:
        """What people may see of a frame, as far as memory allows."""
        if self._stages.memory.has_room(VIEW):
            return Ended(verdict, frame.picture)
        if verdict.result is not None:
            verdict = dataclasses.replace(verdict, result=dataclasses.replace(verdict.result, anomaly_map=None))
        return Ended(verdict, None)


def _part(frame: Frame, pixels: Pixels, result: Result) -> Part:
    return Part(
        camera=frame.camera,
        product=frame.product,
        model=frame.model,
        pixels=pixels,
        score=result.score,
        threshold=result.threshold,
    )
