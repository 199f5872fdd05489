"""The way of a rejected part or frame, as spans: capture, wait, inspect, publish."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from rejectd.contract.messages import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time; times are Unix times in ns."""

    name: str
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A reject that the broker has, without its picture."""

    event_id: str
    camera: str
    product: str
    score: float
    threshold: float
    bundle: str
    whole: Span
    stages: tuple[Span, ...]

    @property
    def trace_id(self) -> bytes:
        """16 bytes that follow from the event, so that a trace can be found from a defect event."""
        return trace_id(self.event_id)


def trace_id(event_id: str) -> bytes:
    """The trace of an event (16 bytes)."""
    return hashlib.sha256(event_id.encode()).digest()[:16]


def reject_of(verdict: Verdict, acknowledged_ns: int) -> Reject | None:
    """The way of a reject that was acknowledged at `acknowledged_ns` (monotonic); None without a result."""
    result = verdict.result
    if result is None:
        return None
    offset_ns = verdict.captured_unix_ns - verdict.captured_ns
    end_ns = max(acknowledged_ns, verdict.decided_ns)
    return Reject(
        event_id=verdict.event_id,
        camera=verdict.camera,
        product=verdict.product,
        score=result.score,
        threshold=result.threshold,
        bundle=result.bundle,
        whole=Span(name="reject", started_ns=verdict.captured_ns + offset_ns, ended_ns=end_ns + offset_ns),
        stages=tuple(
            Span(name=name, started_ns=start + offset_ns, ended_ns=end + offset_ns)
            for name, start, end in _stages(verdict, result.engine_ns, end_ns)
        ),
    )


def _stages(verdict: Verdict, engine_ns: int, end_ns: int) -> Iterator[tuple[str, int, int]]:
    """Each stage from and to, monotonic. A station's part has several pictures, and so no capture of its own."""
    captured, decided = verdict.captured_ns, verdict.decided_ns
    inspected = max(captured, decided - engine_ns)
    prepared = min(max(captured, verdict.prepared_ns), inspected)
    if verdict.prepared_ns:
        yield "capture", captured, prepared
    yield "wait", prepared, inspected
    yield "inspect", inspected, decided
    yield "publish", decided, end_ns
