"""A frame's life with a device that hangs or fails, which no real device does on demand: the one stand-in here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from peers import wait_for
from prometheus_client import CollectorRegistry

from rejectd.batcher import Batcher
from rejectd.inspector import InspectorError
from rejectd.ledger import Ledger
from rejectd.messages import Frame, Picture, Pixels, Policy, Result, Verdict
from rejectd.metrics import Metrics
from rejectd.outbox import Outbox
from rejectd.pipeline import EngineBrokenError, Pipeline, Stages

MARGIN_NS = 20_000_000


class Device:
    """Stands in for the device: scores the mean of a picture, hangs while told to, fails at poisonous pictures."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.released = threading.Event()
        self.broken = False

    def prepare(self, pixels: Pixels, _product: str) -> Pixels:
        return pixels

    def inspect(self, frames: Sequence[Frame]) -> list[Result]:
        if self.hangs.is_set():
            assert self.released.wait(20)
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

    def verdict(self, verdict: Verdict) -> None:
        assert verdict.event_id not in self.verdicts, "a frame ends once"
        self.verdicts[verdict.event_id] = (verdict, time.monotonic_ns())

    def wake(self) -> None:
        """The outbox has something."""


class Rig:
    """A pipeline with its threads, as the service starts them."""

    def __init__(self, directory: Path) -> None:
        self.device, self.sent = Device(), Sent()
        self.ledger = Ledger("run", margin_ns=MARGIN_NS)
        self.batcher = Batcher(["c"], max_batch=4, max_wait_ns=1_000_000, queue_per_camera=64, margin_ns=MARGIN_NS)
        self.metrics = Metrics(CollectorRegistry(), cameras=["c"], products=["p"], snapshot=self.ledger.snapshot)
        self.outbox = Outbox(directory / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
        stages = Stages(
            ledger=self.ledger,
            batcher=self.batcher,
            inspector=self.device,  # type: ignore[arg-type]
            publisher=self.sent,  # type: ignore[arg-type]
            outbox=self.outbox,
            evidence=None,
            metrics=self.metrics,
        )
        self.pipeline = Pipeline(stages, line="l")
        self.stop = threading.Event()
        self.error: BaseException | None = None
        bodies: list[Callable[[], None]] = [self._inspect, lambda: self.pipeline.watch_deadlines(self.stop)]
        self._threads = [threading.Thread(target=body) for body in [*bodies, self.pipeline.record]]
        for thread in self._threads:
            thread.start()

    def _inspect(self) -> None:
        try:
            self.pipeline.inspect()
        except EngineBrokenError as error:
            self.error = error

    def show(self, value: int, *, deadline_ms: int = 5000) -> str:
        """One part passes; returns its event."""
        pixels = np.full((4, 4, 3), value, np.uint8)
        picture = Picture(pixels=pixels, captured_ns=time.monotonic_ns(), captured_unix_ns=time.time_ns())
        frame = self.ledger.open(
            picture, camera="c", product="p", policy=Policy.REJECT, deadline_ns=deadline_ms * 1_000_000, pixels=pixels
        )
        assert self.batcher.put(frame)
        return frame.event_id

    def end(self) -> None:
        self.device.released.set()
        self.batcher.close()
        self._threads[0].join(10)
        self.stop.set()
        self.ledger.end()
        self.pipeline.end_records()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self.outbox.close()

    def wait_verdicts(self, count: int) -> None:
        wait_for(lambda: len(self.sent.verdicts) >= count, f"{count} verdicts")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.end()


def test_while_the_device_hangs_every_frame_is_answered_before_its_deadline_and_the_line_recovers(rig: Rig) -> None:
    rig.device.hangs.set()
    events = [rig.show(10, deadline_ms=300) for _ in range(20)]
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


def test_every_verdict_is_in_the_journal_and_every_defect_in_the_outbox(rig: Rig) -> None:
    for value in (10, 150, 20):
        rig.show(value)
    rig.wait_verdicts(3)
    assert rig.pipeline.wait_recorded(10)
    assert rig.outbox.waiting() == 1
