"""What the stages hand to each other, and what leaves the service as JSON.

Messages are frozen. `*_ns` is `time.monotonic_ns()` unless the name says `unix`. Arrays are not writeable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
AnomalyMap: TypeAlias = npt.NDArray[np.float32]

TOPIC_ROOT = "rejectd/v1"


class RejectdError(Exception):
    """Something a person can mend: what went wrong, with what, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message


class Decision(StrEnum):
    """How a frame ends."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    REJECT = "reject"
    UNJUDGED = "unjudged"


class Cause(StrEnum):
    """Why a frame could not be judged."""

    LATE = "late"
    OVERLOAD = "overload"
    CAMERA_FAULT = "camera_fault"
    ENGINE_FAULT = "engine_fault"
    STOPPING = "stopping"


class Policy(StrEnum):
    """What the line should do with an unjudged part."""

    REJECT = "reject"
    PASS = "pass"  # noqa: S105 - a policy, not a password
    STOP = "stop"


class CameraState(StrEnum):
    """What a camera is doing. `ended` is a finished replay, not a fault."""

    STARTING = "starting"
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a camera delivered: pixels, or the reason why an exposure brought none."""

    pixels: Pixels | None  # uint8 (H, W, 3) RGB
    captured_ns: int
    captured_unix_ns: int
    source: str = ""  # file name, stream time stamp: where a person finds it again
    fault: str = ""  # why it cannot be judged; empty if it can


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One captured picture with its identity and its deadline."""

    event_id: str
    camera: str
    product: str
    seq: int  # 1, 2, 3, ... for each camera and run of the service
    captured_ns: int
    captured_unix_ns: int
    deadline_ns: int
    policy: Policy
    source: str
    pixels: Pixels | None  # uint8 (h, w, 3) RGB at the model's input size; None if the picture is faulty
    picture: Pixels | None  # uint8 (H, W, 3) RGB as captured, cut to the region of interest: for evidence
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the inspector found in one frame."""

    score: float  # highest value of the anomaly map, raw
    threshold: float
    p_value: float
    bundle: str  # digest
    engine: str
    anomaly_map: AnomalyMap | None = None  # float32 (h, w), of rejects only


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The one end of a frame."""

    event_id: str
    camera: str
    product: str
    seq: int
    captured_ns: int
    captured_unix_ns: int
    deadline_ns: int
    decided_ns: int
    decision: Decision
    policy: Policy
    cause: Cause | None = None
    detail: str = ""
    source: str = ""
    result: Result | None = None

    @property
    def action(self) -> Policy:
        """What the line should do with the part."""
        if self.decision is Decision.UNJUDGED:
            return self.policy
        return Policy.REJECT if self.decision is Decision.REJECT else Policy.PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The ledger at one instant: captured = passed + rejected + unjudged + in_flight."""

    captured: int
    passed: int
    rejected: int
    unjudged: int
    in_flight: int

    @property
    def balanced(self) -> bool:
        """Whether every captured frame is accounted for."""
        return self.captured == self.passed + self.rejected + self.unjudged + self.in_flight


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraStatus:
    """A change in what a camera is doing, and why."""

    camera: str
    state: CameraState
    reason: str = ""
    since_unix_ns: int


def line_topic(line: str) -> str:
    return f"{TOPIC_ROOT}/{line}/status"


def camera_topic(line: str, camera: str) -> str:
    return f"{TOPIC_ROOT}/{line}/{camera}/status"


def verdict_topic(line: str, camera: str, decision: Decision) -> str:
    return f"{TOPIC_ROOT}/{line}/{camera}/verdict/{decision}"


def defect_topic(line: str, camera: str) -> str:
    return f"{TOPIC_ROOT}/{line}/{camera}/defect"


def iso(unix_ns: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    seconds, rest_ns = divmod(unix_ns, 10**9)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode(payload: dict[str, Any]) -> bytes:
    """Compact JSON. NaN and infinity are our own mistake."""
    return json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()


def verdict_payload(line: str, verdict: Verdict) -> dict[str, Any]:
    """The body of a verdict message."""
    return {"schema": "rejectd.verdict.v1", **_about(line, verdict)}


def defect_payload(line: str, verdict: Verdict, *, evidence: str, regions: list[list[int]]) -> dict[str, Any]:
    """The body of a defect event: the verdict, where the defects are and where the evidence lies.

    Regions are [x, y, width, height] in pixels of the captured picture, cut to the camera's region of interest.
    """
    return {"schema": "rejectd.defect.v1", **_about(line, verdict), "regions": regions, "evidence": evidence or None}


def _about(line: str, verdict: Verdict) -> dict[str, Any]:
    result = verdict.result
    lifetime_ns = verdict.deadline_ns - verdict.captured_ns
    return {
        "event_id": verdict.event_id,
        "line": line,
        "camera": verdict.camera,
        "product": verdict.product,
        "seq": verdict.seq,
        "decision": verdict.decision,
        "cause": verdict.cause,
        "action": verdict.action,
        "captured_at": iso(verdict.captured_unix_ns),
        "valid_until": iso(verdict.captured_unix_ns + lifetime_ns),
        "latency_ms": round((verdict.decided_ns - verdict.captured_ns) / 1e6, 3),
        "score": result.score if result else None,
        "threshold": result.threshold if result else None,
        "p_value": result.p_value if result else None,
        "bundle": result.bundle if result else None,
        "engine": result.engine if result else None,
        "source": verdict.source or None,
        "detail": verdict.detail or None,
    }


def camera_payload(line: str, status: CameraStatus) -> dict[str, Any]:
    """The body of a camera's retained status."""
    return {
        "schema": "rejectd.camera.v1",
        "line": line,
        "camera": status.camera,
        "state": status.state,
        "reason": status.reason or None,
        "since": iso(status.since_unix_ns),
    }


def line_payload(
    line: str, *, run: str, state: str, version: str, account: Account, unpublished: int, now_unix_ns: int
) -> dict[str, Any]:
    """The body of the line's retained status: birth, heartbeat and farewell.

    A subscriber of the verdicts has received captured - in_flight - unpublished of them, but for what is on its way.
    """
    return {
        "schema": "rejectd.line.v1",
        "line": line,
        "run": run,
        "state": state,
        "version": version,
        "at": iso(now_unix_ns),
        "captured": account.captured,
        "pass": account.passed,
        "reject": account.rejected,
        "unjudged": account.unjudged,
        "in_flight": account.in_flight,
        "unpublished": unpublished,
    }


def will_payload(line: str, run: str) -> dict[str, Any]:
    """The body of the last will, which the broker publishes when the service is gone without a farewell."""
    return {"schema": "rejectd.line.v1", "line": line, "run": run, "state": "offline"}
