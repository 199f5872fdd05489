"""A frame's life with a device that hangs or fails, which no real device does on demand: the one stand-in here."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from peers import wait_for
from prometheus_client import CollectorRegistry

from rejectd.batching.batcher import Batcher
from rejectd.contract.messages import CameraStatus, Exposure, Frame, Pixels, Policy, Result, Verdict
from rejectd.contract.settings import FolderCamera, Judging, Numbering, Station
from rejectd.inspecting import EngineBrokenError
from rejectd.inspector import Begun, InspectorError
from rejectd.judging import Judged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.pipeline import Pipeline, Stages
from rejectd.stations import Stations
from rejectd.storage.in_flight_file import InFlightFile
from rejectd.storage.outbox import Outbox
from rejectd.storage.picture_budget import Memory
from rejectd.storage.recorder import Recorder
from revdist.engines.lanes import Later, Worker

MS = 1_000_000
MARGIN_NS = 200 * MS  # more than a busy machine needs to wake a thread


ELSEWHERE = 67  # a picture of this brightness has its part elsewhere
BLACK = 66  # a picture of this brightness shows nothing, as the device sees it
SLOW = 99  # a picture of this brightness


class Device:
    """Stands in for the device: scores the mean of a picture, hangs while told to, fails at poisonous pictures."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.released = threading.Event()
        self.broken = False
        self.unload: set[str] = set()  # models
        self.inspected = 0  # frames
        self.prepared: list[str] = []  # products
        self.lane: Worker | None = None  # that goes on with a batch when the device has room for the next one
        self.goes_on = threading.Event()  # with pictures that are slow
        self.room = threading.Event()  # there, where batches go on in the lane
        self._worker = Worker("device")

    def close(self) -> None:
        self._worker.close()
        if self.lane:
            self.lane.close()

    def align(self, pixels: Pixels, product: str) -> Pixels:
        if pixels.max() == ELSEWHERE:
            raise InspectorError("part not found: it lies elsewhere")
        return pixels

    def fault(self, pixels: Pixels, product: str) -> str:
        return "black: as it seems" if pixels.max() == BLACK else ""

    def prepare(self, pixels: Pixels, product: str) -> tuple[Pixels, str]:
        if pixels.shape[0] < 3:
            raise InspectorError("the picture is too small")
        self.prepared.append(product)
        return pixels, f"{product}@1"

    def begin(self, frames: Sequence[Frame], *, maps: bool = True) -> Begun:
        return Begun(self._worker.start(self._begin, frames))

    def _begin(self, frames: Sequence[Frame]) -> Later[list[Result]]:
        if self.lane is None:
            return Later.known(self._inspect(frames))
        done = self.lane.start(self._inspect, frames)

        def wait_for_room() -> bool:
            assert self.room.wait(20)
            return not done.done()

        return Later(done.result, time.perf_counter_ns, wait_for_room)

    def _inspect(self, frames: Sequence[Frame]) -> list[Result]:
        self.inspected += len(frames)
        if self.hangs.is_set():
            assert self.released.wait(20)
        if any(frame.pixels is not None and frame.pixels.max() == SLOW for frame in frames):
            assert self.goes_on.wait(20)
        if any(frame.model in self.unload for frame in frames):
            raise InspectorError("the model has been put away")
        if self.broken or any(frame.pixels is not None and frame.pixels.max() == 255 for frame in frames):
            raise InspectorError("the device failed")
        return [
            Result(score=float(np.mean(frame.pixels)), threshold=100.0, p_value=0.5, bundle="b", engine="e")
            for frame in frames
            if frame.pixels is not None
        ]


class Sent:
    """Takes the verdicts that would go to the broker, with the instant."""

    def __init__(self) -> None:
        self.verdicts: dict[str, tuple[Verdict, int]] = {}
        self.states: list[CameraStatus] = []

    def verdict(self, verdict: Verdict, body: bytes) -> None:
        assert json.loads(body)["event_id"] == verdict.event_id
        assert verdict.event_id not in self.verdicts, "a frame ends once"
        self.verdicts[verdict.event_id] = (verdict, time.monotonic_ns())

    def camera(self, status: CameraStatus) -> None:
        self.states.append(status)

    def of(self, camera: str) -> list[Verdict]:
        """The verdicts of a camera or station in their order."""
        found = [verdict for verdict, _ in list(self.verdicts.values()) if verdict.camera == camera]
        return sorted(found, key=lambda verdict: verdict.seq)


class Rig:
    """A pipeline with its threads, as the service starts them."""

    def __init__(self, directory: Path, stations: dict[str, Station] | None = None) -> None:
        self.directory = directory
        self.device, self.sent = Device(), Sent()
        self.inflight = InFlightFile(directory / "in-flight.bin", line="l", slots=100)
        self.ledger = Ledger("run", margin=Margin(MARGIN_NS), book=self.inflight)
        self.batcher = Batcher(["c", "d"], max_batch=4, max_wait_ns=MS, queue_per_camera=64)
        self.metrics = Metrics(CollectorRegistry(), cameras=["c", "d"], products=["p"], snapshot=self.ledger.snapshot)
        self.memory = Memory(10**9)
        self.outbox = Outbox(directory / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
        parts = Ledger("run", margin=Margin(MARGIN_NS), book=self.inflight)
        self.stations = Stations(stations or {}, parts, numbered=["c", "d"])
        self.recorder = Recorder(
            "l",
            outbox=self.outbox,
            evidence=None,
            inflight=self.inflight,
            memory=self.memory,
            metrics=self.metrics,
            more_events=lambda: None,
            marked=lambda _numbers: None,
        )
        stages = Stages(
            ledger=self.ledger,
            batcher=self.batcher,
            inspector=self.device,  # type: ignore[arg-type]
            stations=self.stations,
            publisher=self.sent,  # type: ignore[arg-type]
            recorder=self.recorder,
            memory=self.memory,
            metrics=self.metrics,
            drift=lambda _part: None,
        )
        self.pipeline = Pipeline(stages, line="l", products={"c": "p", "d": "p"}, judged=Judged(Judging(), ["c", "d"]))
        self.stop = threading.Event()
        self.error: BaseException | None = None
        bodies: list[Callable[[], None]] = [
            self._inspect,
            self.pipeline.decide,
            lambda: self.pipeline.watch_deadlines(self.stop),
            lambda: self.pipeline.watch_parts(self.stop),
            self.recorder.run,
        ]
        self._threads = [threading.Thread(target=body) for body in bodies]
        for thread in self._threads:
            thread.start()

    def _inspect(self) -> None:
        try:
            self.pipeline.inspect()
        except EngineBrokenError as error:
            self.error = error

    def show(self, value: int, *, deadline_ms: int = 5000, model: str = "p@1") -> str:
        """One part passes; returns its event."""
        pixels = np.full((4, 4, 3), value, np.uint8)
        exposure = Exposure(captured_ns=time.monotonic_ns(), captured_unix_ns=time.time_ns())
        frame = self.ledger.open(
            exposure,
            camera="c",
            product="p",
            policy=Policy.REJECT,
            deadline_ns=deadline_ms * MS,
            pixels=pixels,
            model=model,
        )
        assert self.batcher.put(frame)
        return frame.event_id

    def capture(self, *pictures: int | bytes, camera: str = "c", **settings: Any) -> None:
        """A camera shows uniform pictures of these values, or files with these bytes, to the end."""
        folder = self.directory / f"{camera}-{time.monotonic_ns()}"
        folder.mkdir()
        for number, picture in enumerate(pictures, 1):
            path = folder / f"{number:03}.png"
            if isinstance(picture, bytes):
                path.write_bytes(picture)
            else:
                cv2.imwrite(str(path), np.full((4, 4, 3), picture, np.uint8))
        replay = FolderCamera(product="p", path=folder, **{"rate_hz": 500, "deadline_ms": 5000, **settings})
        self.pipeline.capture(camera, replay, self.stop)

    def end(self) -> None:
        self.device.released.set()
        self.batcher.close()
        self._threads[0].join(10)
        self.stop.set()
        self.ledger.end()
        self.stations.ledger.end()
        self.recorder.end()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self.outbox.close()
        self.inflight.close()
        self.device.close()

    def wait_verdicts(self, count: int) -> None:
        wait_for(lambda: len(self.sent.verdicts) >= count, f"{count} verdicts")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.end()


def test_while_the_device_hangs_every_frame_is_answered_before_its_deadline_and_the_line_recovers(rig: Rig) -> None:
    rig.device.hangs.set()
    events = [rig.show(10, deadline_ms=600) for _ in range(20)]
    rig.wait_verdicts(20)
    for event in events:
        verdict, sent_ns = rig.sent.verdicts[event]
        assert verdict.cause in ("late", "overload")
        assert sent_ns < verdict.deadline_ns
    rig.device.hangs.clear()
    rig.device.released.set()
    judged = rig.show(10)
    rig.wait_verdicts(21)
    assert rig.sent.verdicts[judged][0].decision == "pass"
    assert rig.metrics.too_late.labels("c")._value.get() > 0, "what came too late is counted, not published"
    assert rig.ledger.snapshot().account.balanced


def test_the_device_has_the_next_batch_while_the_verdicts_of_the_last_are_given(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, sent = threading.Event(), rig.sent.verdict

    def slow(verdict: Verdict, body: bytes) -> None:
        assert goes_on.wait(20)
        sent(verdict, body)

    monkeypatch.setattr(rig.sent, "verdict", slow)
    rig.show(10)
    wait_for(lambda: rig.device.inspected == 1, "the first frame was on the device")
    rig.show(20)
    wait_for(lambda: rig.device.inspected == 2, "the second was too")
    assert rig.sent.verdicts == {}
    goes_on.set()
    rig.wait_verdicts(2)
    assert [verdict.decision for verdict in rig.sent.of("c")] == ["pass", "pass"]


def test_a_device_that_has_room_before_it_has_ended_a_batch_gets_the_next_one(rig: Rig) -> None:
    rig.device.lane = Worker("lane")
    rig.device.hangs.set()
    first = rig.show(10)
    wait_for(lambda: rig.device.inspected == 1, "the lane has the first frame")
    second = rig.show(150)
    time.sleep(0.05)
    assert rig.batcher.waiting() == 1, "there is no room yet"
    rig.device.room.set()
    wait_for(lambda: rig.batcher.waiting() == 0, "the device has the second one as well")
    third = rig.show(20)
    time.sleep(0.05)
    assert (rig.batcher.waiting(), rig.sent.verdicts) == (1, {}), "it has no more than two"
    rig.device.hangs.clear()
    rig.device.released.set()
    rig.wait_verdicts(3)
    ends = [rig.sent.verdicts[event][0].decision for event in (first, second, third)]
    assert ends == ["pass", "reject", "pass"]
    wait_for(lambda: rig.pipeline.inspecting.busy_since_ns is None, "it has nothing to do")


def test_while_the_device_hangs_with_the_second_of_two_batches_it_is_known_since_when(rig: Rig) -> None:
    rig.device.lane = Worker("lane")
    rig.device.hangs.set()
    rig.show(10)
    wait_for(lambda: rig.device.inspected == 1, "the lane has the first frame")
    first = rig.pipeline.inspecting.busy_since_ns
    rig.show(SLOW)
    time.sleep(0.05)  # longer than it waits for company
    rig.device.room.set()
    wait_for(lambda: rig.batcher.waiting() == 0, "the device has the second as well")
    rig.device.released.set()
    rig.wait_verdicts(1)
    assert first is not None
    assert rig.pipeline.inspecting.busy_since_ns is not None
    assert rig.pipeline.inspecting.busy_since_ns > first
    rig.device.goes_on.set()
    rig.wait_verdicts(2)


def test_a_device_that_always_fails_ends_the_thread_after_all_that_it_has_is_answered(rig: Rig) -> None:
    rig.device.lane, rig.device.broken = Worker("lane"), True
    rig.device.hangs.set()
    rig.show(10)
    wait_for(lambda: rig.device.inspected == 1, "the lane has the first frame")
    for _ in range(60):  # in batches of four at most
        rig.show(10)
    time.sleep(0.05)
    rig.device.room.set()
    rig.device.hangs.clear()
    rig.device.released.set()
    wait_for(lambda: rig.error is not None, "the inspect thread gives up")
    taken = 61 - rig.batcher.waiting()
    assert taken < 61
    rig.wait_verdicts(taken)
    assert [each.cause for each in rig.sent.of("c")] == ["engine_fault"] * taken


def test_a_batch_whose_device_has_room_is_settled_though_no_other_follows(rig: Rig) -> None:
    rig.device.lane = Worker("lane")
    rig.device.hangs.set()
    rig.device.room.set()
    rig.show(10)
    wait_for(lambda: rig.device.inspected == 1, "the lane has it")
    rig.device.released.set()
    begun = time.monotonic()
    rig.wait_verdicts(1)
    assert time.monotonic() - begun < 0.9, "the batcher waits a second for frames"


@pytest.mark.parametrize("poison", [0, 1])
def test_a_batch_that_fails_beside_another_does_not_take_it_with_it(rig: Rig, poison: int) -> None:
    rig.device.lane = Worker("lane")
    rig.device.hangs.set()
    events = [rig.show(10 if poison else 255)]
    wait_for(lambda: rig.device.inspected == 1, "the lane has the first frame")
    events += [rig.show(255 if poison else 10)]
    time.sleep(0.05)  # longer than it waits for company
    rig.device.room.set()
    wait_for(lambda: rig.batcher.waiting() == 0, "the device has the second as well")
    events += [rig.show(20)]
    rig.device.hangs.clear()
    rig.device.released.set()
    rig.wait_verdicts(3)
    causes = [rig.sent.verdicts[event][0].cause for event in events]
    assert causes == ["engine_fault" if place == poison else None for place in range(3)]


def test_one_frame_that_the_device_cannot_take_does_not_take_others_with_it(rig: Rig) -> None:
    rig.device.hangs.set()  # so that all of them come in batches
    first = rig.show(1)
    events = {value: rig.show(value) for value in (50, 255, 150)}
    rig.device.hangs.clear()
    rig.device.released.set()
    rig.wait_verdicts(4)
    assert rig.sent.verdicts[first][0].decision == "pass"
    assert rig.sent.verdicts[events[50]][0].decision == "pass"
    assert rig.sent.verdicts[events[150]][0].decision == "reject"
    poisoned = rig.sent.verdicts[events[255]][0]
    assert (poisoned.cause, poisoned.detail) == ("engine_fault", "the device failed")


def test_a_device_that_always_fails_ends_the_thread_so_that_the_service_is_restarted(rig: Rig) -> None:
    rig.device.broken = True
    for count in range(1, 11):
        rig.show(10)
        rig.wait_verdicts(count)
    wait_for(lambda: rig.error is not None, "the inspect thread gives up")
    assert "10 batches in a row failed" in str(rig.error)


def test_nothing_is_made_a_text_of_but_an_error_and_of_a_batch_the_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[Result] = []
    monkeypatch.setattr(Result, "__repr__", lambda result: f"{printed.append(result)}")
    rig.device.hangs.set()  # so that the others come in one batch, which begins with a reject
    rig.show(10)
    for value in (150, 255, 20):
        rig.show(value)
    rig.device.hangs.clear()
    rig.device.released.set()
    rig.wait_verdicts(4)
    assert printed == [], "an anomaly map takes half a millisecond to print"
    assert rig.pipeline.inspecting.fault == "the device failed"
    rig.show(150)
    rig.wait_verdicts(5)
    assert rig.pipeline.inspecting.fault == ""


def test_every_verdict_is_in_the_journal_and_every_defect_in_the_outbox(rig: Rig) -> None:
    for value in (10, 150, 20):
        rig.show(value)
    rig.wait_verdicts(3)
    assert rig.recorder.wait(10)
    assert rig.outbox.waiting() == 1


def test_while_garbage_is_collected_all_the_time_and_the_device_hangs_every_frame_is_answered_in_time(rig: Rig) -> None:
    gc.collect()
    gc.freeze()  # as the service does when it starts
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    over = threading.Event()

    def collect() -> None:
        while not over.is_set():
            gc.collect()

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        rig.device.hangs.set()
        events = [rig.show(10, deadline_ms=900) for _ in range(30)]
        rig.wait_verdicts(30)
    finally:
        over.set()
        collector.join(10)
        gc.unfreeze()
        sys.setswitchinterval(interval_s)
    for event in events:
        verdict, sent_ns = rig.sent.verdicts[event]
        assert sent_ns < verdict.deadline_ns


def test_a_frame_whose_model_was_put_away_ends_as_the_engines_fault_and_the_others_are_judged(rig: Rig) -> None:
    rig.device.hangs.set()  # so that all of them come in one batch
    rig.show(1)
    rig.device.unload.add("p@0")
    events = [rig.show(value, model=model) for value, model in ((50, "p@1"), (60, "p@0"), (150, "p@1"))]
    rig.device.hangs.clear()
    rig.device.released.set()
    rig.wait_verdicts(4)
    first, gone, last = (rig.sent.verdicts[event][0] for event in events)
    assert (first.decision, last.decision) == ("pass", "reject")
    assert (gone.decision, gone.cause, gone.detail) == ("unjudged", "engine_fault", "the model has been put away")


# from the camera on


def test_each_exposure_ends_in_one_verdict_with_its_number_and_its_source(rig: Rig) -> None:
    rig.capture(10, 150, b"no picture", 20)
    rig.wait_verdicts(4)
    ends = [(each.seq, each.trigger, each.decision, each.cause, each.source) for each in rig.sent.of("c")]
    assert ends == [
        (1, 1, "pass", None, "001.png"),
        (2, 2, "reject", None, "002.png"),
        (3, 3, "unjudged", "camera_fault", "003.png"),
        (4, 4, "pass", None, "004.png"),
    ]
    assert [status.state for status in rig.sent.states] == ["starting", "up", "ended"]
    assert rig.pipeline.states["c"].state == "ended"
    latest = rig.pipeline.latest["c"]
    assert latest.source == "004.png"


def test_a_picture_that_shows_nothing_is_the_cameras_fault_and_is_kept_counted_and_told(rig: Rig) -> None:
    rig.capture(10, BLACK, BLACK, BLACK, 10)
    rig.wait_verdicts(5)
    verdicts = rig.sent.of("c")
    assert [verdict.cause for verdict in verdicts] == [None, *["camera_fault"] * 3, None]
    assert [verdict.detail for verdict in verdicts[1:4]] == ["black: as it seems"] * 3
    assert rig.metrics.unhealthy.labels("c", "black")._value.get() == 3
    assert ("degraded", "black: as it seems") in [(status.state, status.reason) for status in rig.sent.states]
    assert rig.ledger.snapshot().account.balanced


def test_a_part_that_is_not_found_is_the_cameras_fault(rig: Rig) -> None:
    rig.capture(10, ELSEWHERE)
    rig.wait_verdicts(2)
    assert [(verdict.cause, verdict.detail) for verdict in rig.sent.of("c")] == [
        (None, ""),
        ("camera_fault", "part not found: it lies elsewhere"),
    ]


def test_a_camera_may_judge_whatever_it_sees(rig: Rig) -> None:
    rig.capture(BLACK, image_health=False)
    rig.wait_verdicts(1)
    assert rig.sent.of("c")[0].decision == "pass"


def test_a_picture_that_no_model_can_see_is_the_cameras_fault(rig: Rig) -> None:
    good, small = (cv2.imencode(".png", np.zeros((rows, 4, 3), np.uint8))[1].tobytes() for rows in (4, 2))
    rig.capture(good, small)
    rig.wait_verdicts(2)
    _, verdict = rig.sent.of("c")
    assert (verdict.cause, verdict.detail) == ("camera_fault", "the picture is too small")


@pytest.mark.parametrize(("action", "expected"), [(None, "stop"), (Policy.PASS, "pass"), (Policy.REJECT, "reject")])
def test_a_paused_camera_is_not_inspected_and_each_exposure_is_answered_at_once(
    rig: Rig, action: Policy | None, expected: str
) -> None:
    rig.pipeline.paused["c"] = action
    rig.capture(150, 10, b"no picture", policy=Policy.STOP)
    rig.capture(150, camera="d", policy=Policy.STOP)
    rig.wait_verdicts(4)
    paused = rig.sent.of("c")
    assert [(each.decision, each.cause, each.action) for each in paused] == [("unjudged", "paused", expected)] * 3
    assert [each.decision for each in rig.sent.of("d")] == ["reject"], "the other camera is not paused"
    assert rig.device.prepared == ["p"]
    assert rig.pipeline.latest["c"].source == "003.png", "a person may look at what passes meanwhile"
    del rig.pipeline.paused["c"]
    rig.capture(150)
    rig.wait_verdicts(5)
    resumed = rig.sent.of("c")[-1]
    assert (resumed.decision, resumed.seq, resumed.trigger) == ("reject", 4, 4), "the count of exposures went on"


def test_a_changeover_holds_from_the_next_exposure_on(rig: Rig) -> None:
    rig.capture(10)
    rig.pipeline.products["c"] = "q"
    rig.capture(10)
    rig.wait_verdicts(2)
    assert [verdict.product for verdict in rig.sent.of("c")] == ["p", "q"]
    assert rig.device.prepared == ["p", "q"]


def test_beyond_the_queue_exposures_are_answered_as_overload_before_any_work_is_put_into_them(rig: Rig) -> None:
    rig.device.hangs.set()
    rig.show(10)
    wait_for(lambda: rig.pipeline.inspecting.busy_since_ns is not None, "the device has it")
    rig.capture(*[20] * 70)
    overload = [each for each in rig.sent.of("c") if each.cause == "overload"]
    assert len(overload) == 6
    assert overload[0].detail == "too many frames wait"
    assert len(rig.device.prepared) == 64


def test_after_the_batcher_is_closed_what_still_comes_ends_as_stopping(rig: Rig) -> None:
    rig.batcher.close()
    rig.capture(20)
    (verdict,) = rig.sent.of("c")
    assert (verdict.decision, verdict.cause) == ("unjudged", "stopping")


def test_who_waits_for_the_verdict_of_a_frame_gets_it(rig: Rig) -> None:
    rig.device.hangs.set()
    rig.show(10)
    event = rig.show(150)
    heard: list[Verdict] = []
    rig.pipeline.watchers[event] = heard.append
    rig.device.released.set()
    wait_for(lambda: heard, "the verdict is told")
    assert (heard[0].event_id, heard[0].decision) == (event, "reject")


def test_when_pictures_take_more_memory_than_they_may_views_go_first_then_evidence_and_verdicts_never(rig: Rig) -> None:
    rig.capture(10)
    rig.wait_verdicts(1)
    assert rig.memory.held_bytes == 48, "the view of the camera"
    assert rig.pipeline.latest["c"].pixels is not None
    rig.memory._budget_bytes = 90
    rig.capture(20)
    rig.wait_verdicts(2)
    assert rig.pipeline.latest["c"].pixels is None
    assert "memory_mb" in rig.pipeline.latest["c"].fault
    rig.memory._budget_bytes = 0
    rig.capture(150)
    rig.wait_verdicts(3)
    assert [verdict.decision for verdict in rig.sent.of("c")] == ["pass", "pass", "reject"]
    wait_for(lambda: rig.memory.held_bytes == 0, "nobody holds a picture any more")


# stations


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Rig]:
    """Two cameras that see one part."""
    made = Rig(tmp_path, {"gate": Station(cameras=("c", "d"), deadline_ms=1500, policy=Policy.STOP)})
    yield made
    made.end()


def test_the_views_of_a_part_end_in_one_verdict_beside_their_own(gate: Rig) -> None:
    gate.capture(10, 20, camera="c", trigger=Numbering.NAME)
    gate.capture(30, 150, camera="d", trigger=Numbering.NAME)
    gate.wait_verdicts(6)
    parts = gate.sent.of("gate")
    assert [(part.trigger, part.decision, part.action) for part in parts] == [
        (1, "pass", "pass"),
        (2, "reject", "reject"),
    ]
    assert [frame.decision for frame in (*gate.sent.of("c"), *gate.sent.of("d"))] == ["pass", "pass", "pass", "reject"]
    assert parts[0].views == ("run-c-1", "run-d-1")
    assert gate.recorder.wait(10)
    assert gate.outbox.waiting() == 2, "a defect of the frame and one of the part"
    assert gate.metrics.too_late.labels("gate")._value.get() == 0


def test_a_part_with_a_missing_view_is_answered_before_its_deadline(gate: Rig) -> None:
    gate.capture(10, trigger=Numbering.NAME)
    gate.wait_verdicts(2)
    verdict, sent_ns = gate.sent.verdicts["run-gate-1"]
    assert (verdict.cause, verdict.detail, verdict.action) == ("missing_view", "missing: d", "stop")
    assert sent_ns < verdict.deadline_ns


def test_while_the_device_hangs_parts_are_answered_before_their_deadline_too(gate: Rig) -> None:
    gate.device.hangs.set()
    gate.capture(10, 20, trigger=Numbering.NAME)
    gate.capture(10, 20, camera="d", trigger=Numbering.NAME)
    gate.wait_verdicts(6)
    for verdict, sent_ns in gate.sent.verdicts.values():
        assert verdict.decision == "unjudged"
        assert sent_ns < verdict.deadline_ns
    assert gate.stations.ledger.snapshot().account.balanced


def test_at_the_end_of_the_service_frames_and_parts_in_flight_end_as_stopping(gate: Rig) -> None:
    gate.device.hangs.set()
    gate.capture(10)
    gate.pipeline.answer_all()
    assert [each.cause for each in (*gate.sent.of("c"), *gate.sent.of("gate"))] == ["stopping", "stopping"]
    for ledger in (gate.ledger, gate.stations.ledger):
        assert ledger.in_flight() == []
        assert ledger.snapshot().account.balanced


def test_what_a_killed_service_had_in_flight_is_found_by_the_next_start(rig: Rig, tmp_path: Path) -> None:
    rig.device.hangs.set()
    hanging = rig.show(10)
    wait_for(lambda: rig.pipeline.inspecting.busy_since_ns is not None, "the device has it")
    copy = tmp_path / "copy.bin"  # what the kernel would have kept of a process that was killed now
    copy.write_bytes((tmp_path / "in-flight.bin").read_bytes())
    book = InFlightFile(copy, line="l")
    left = book.left
    book.close()
    assert [(body["event_id"], body["decision"], body["cause"]) for body in left] == [(hanging, "unjudged", "stopping")]
    rig.device.hangs.clear()
    rig.device.released.set()
    rig.wait_verdicts(1)
    assert rig.recorder.wait(10)
    copy.write_bytes((tmp_path / "in-flight.bin").read_bytes())
    book = InFlightFile(copy, line="l")
    assert book.left == [], "what is in the journal is nowhere else"
    book.close()
