"""Sends known pictures through the whole path, from the ledger to the broker's acknowledgement, checked and timed.

The pictures travel as frames of a camera that does not exist, share the device fairly with the other cameras, and are
published on a topic of their own. They reveal a line that looks healthy but judges nothing.

They prove two things. The scores are those of the machine that made the bundle. And the threshold in force decides as
the bundle's own calibration does on this engine. Usually a known good picture must pass and a defect must be rejected.
But a calibration for more false rejects may lie below the score of a known good picture; then its reject is right. So a
calibration never forbids a changeover. A threshold from an order or from the settings does, if it rejects a good
picture or lets a defect pass and the calibration would not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from typing import TypeVar

from rejectd.contract.messages import GOLDEN, Decision, Exposure, Frame, Policy, Verdict
from rejectd.inspector import GoldenPicture, Model
from rejectd.ledger import Ledger
from rejectd.pipeline import Pipeline

Answer = TypeVar("Answer")

_TIME_NS = 10_000_000_000  # from a picture to its verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one known picture ended."""

    product: str
    kind: str
    expected: float  # score on the machine that made the bundle
    score: float | None  # None if the picture was not judged
    decision: Decision
    latency_ms: float | None  # until the broker had the verdict; None if it never had it
    agrees: bool  # the score is the expected one, within its tolerance
    calibrated_otherwise: bool = False  # the bundle's own calibration decides, or may decide, against the kind

    @property
    def right(self) -> tuple[Decision, ...]:
        """The decisions that are right for this picture."""
        usual, opposite = (Decision.PASS, Decision.REJECT) if self.kind == "good" else (Decision.REJECT, Decision.PASS)
        return (usual, opposite) if self.calibrated_otherwise else (usual,)

    @property
    def good(self) -> bool:
        """Whether the path works and a part like this gets the right verdict."""
        return self.agrees and self.decision in self.right


class GoldenCheck:
    """Sends known pictures. Any thread may call `challenge`; the publish thread calls `delivered`."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline) -> None:
        self._ledger = ledger
        self._pipeline = pipeline
        self._delivered: dict[str, Future[int]] = {}

    def warm(self, model: Model, count: int, stop: threading.Event) -> None:
        """Show the model `count` pictures at once, so that the first parts do not wait for its set-up."""
        pictures = [model.golden[index % len(model.golden)] for index in range(count)] if model.golden else []
        for frame, verdict, _ in [self._send(model, picture) for picture in pictures]:
            self._wait(verdict, stop)
            self._forget(frame)

    def challenge(self, model: Model, stop: threading.Event) -> list[Outcome]:
        """Show the model its known pictures one by one."""
        return [self._outcome(model, picture, stop) for picture in model.golden]

    def delivered(self, verdict: Verdict, now_ns: int) -> None:
        """Note that the broker has a verdict."""
        delivered_future = self._delivered.pop(verdict.event_id, None)
        if delivered_future:
            delivered_future.set_result(now_ns)

    def _outcome(self, model: Model, picture: GoldenPicture, stop: threading.Event) -> Outcome:
        frame, verdict_future, delivered_future = self._send(model, picture)
        verdict = self._wait(verdict_future, stop)
        delivered_ns = self._wait(delivered_future, stop) if verdict else None
        self._forget(frame)
        score = verdict.result.score if verdict and verdict.result else None
        return Outcome(
            product=model.product,
            kind=picture.kind,
            expected=picture.expected,
            score=score,
            decision=verdict.decision if verdict else Decision.UNJUDGED,
            latency_ms=round((delivered_ns - frame.captured_ns) / 1e6, 3) if delivered_ns else None,
            agrees=score is not None and abs(score - picture.expected) <= picture.tolerance,
            calibrated_otherwise=_calibrated_otherwise(picture, model.calibration.threshold),
        )

    def _send(self, model: Model, picture: GoldenPicture) -> tuple[Frame, Future[Verdict], Future[int]]:
        verdict: Future[Verdict] = Future()
        delivered: Future[int] = Future()
        exposure = Exposure(captured_ns=time.monotonic_ns(), captured_unix_ns=time.time_ns(), source=picture.kind)
        frame = self._ledger.open(
            exposure,
            camera=GOLDEN,
            product=model.product,
            policy=Policy.PASS,
            deadline_ns=_TIME_NS,
            pixels=picture.pixels,
            model=model.key,
        )
        self._pipeline.watchers[frame.event_id] = verdict.set_result
        self._delivered[frame.event_id] = delivered
        self._pipeline.enter(frame)
        return frame, verdict, delivered

    def _forget(self, frame: Frame) -> None:
        self._pipeline.watchers.pop(frame.event_id, None)
        self._delivered.pop(frame.event_id, None)

    @staticmethod
    def _wait(future: Future[Answer], stop: threading.Event) -> Answer | None:
        """Wait for a result within the frame's time; None if none comes or the service stops."""
        until = time.monotonic() + _TIME_NS / 1e9
        while time.monotonic() < until and not stop.is_set():
            try:
                return future.result(timeout=0.2)
            except NotInTime:
                continue
        return None


def _calibrated_otherwise(picture: GoldenPicture, threshold: float) -> bool:
    """Whether a calibrated threshold rejects a good picture or lets a defect pass, or lies so near that it may."""
    if picture.kind == "good":
        return picture.expected + picture.tolerance > threshold
    return picture.expected - picture.tolerance <= threshold


def complaint(outcomes: Sequence[Outcome], *, decisions: bool) -> str:
    """What is wrong with the outcomes, for people; empty if nothing is. `decisions`: whether decisions count too."""
    for outcome in outcomes:
        if outcome.score is None:
            return f"the {outcome.kind} picture of {outcome.product} was not judged"
        if not outcome.agrees:
            return (
                f"the {outcome.kind} picture of {outcome.product} scores {outcome.score:.6g} instead of "
                f"{outcome.expected:.6g}; this machine computes otherwise than the one that trained"
            )
        if decisions and not outcome.good:
            return (
                f"the {outcome.kind} picture of {outcome.product} ended as {outcome.decision} "
                f"with score {outcome.score:.4g}"
            )
    return ""
