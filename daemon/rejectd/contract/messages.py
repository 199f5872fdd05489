"""The messages that the stages hand to each other.

Messages are frozen. `*_ns` is `time.monotonic_ns()`, unless the name says `unix`. Arrays are not writeable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rejectd.contract.errors import RejectdError as RejectdError

Pixels: TypeAlias = npt.NDArray[np.uint8]
AnomalyMap: TypeAlias = npt.NDArray[np.float32]

GOLDEN = "golden"  # in the place of a camera: known pictures that pass through the whole path on command


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
    MISSING_VIEW = "missing_view"
    PAUSED = "paused"
    STOPPING = "stopping"


class DriftCause(StrEnum):
    """What has changed since the calibration."""

    DEFECTS = "defects"
    PROCESS = "process"
    LIGHT = "light"
    FOCUS = "focus"
    DIRT = "dirt"
    SHIFT = "shift"


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


class PictureError(RejectdError):
    """An exposure brought no picture that can be judged."""


def no_picture(_timeout_s: float) -> Pixels:
    """Stands in for `Exposure.load` where an exposure has no picture: raises PictureError."""
    raise PictureError("the camera delivered no pixels")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exposure:
    """A camera's notice that it has seen a part. It becomes a frame at once, whatever happens to its picture."""

    captured_ns: int
    captured_unix_ns: int
    source: str = ""  # file name or time stamp in the stream, by which a person finds the picture again
    trigger: int | None = None  # number of the exposure, the same in every camera that sees the part; None if unknown
    fault: str = ""  # why the exposure cannot be judged, if that is known before its picture is read
    ready_ns: int = 0  # when the picture may be read; until then its file may be written again
    load: Callable[[float], Pixels] = no_picture  # reads and decodes within so many s, or raises PictureError
    held: bool = False  # the pixels are in memory already


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCounts:
    """What the stream of a camera counted."""

    resent_packets: int = 0  # that were lost and came when asked for again
    missing_packets: int = 0  # that never came
    underruns: int = 0  # pictures for which there was no buffer
    failures: int = 0  # pictures that came in part

    def __sub__(self, before: StreamCounts) -> StreamCounts:
        return StreamCounts(**{name: getattr(self, name) - getattr(before, name) for name in STREAM_EVENTS})

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in STREAM_EVENTS)

    def __str__(self) -> str:
        counts = ((name, getattr(self, name)) for name in STREAM_EVENTS)
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts if count)


STREAM_EVENTS = tuple(field.name for field in fields(StreamCounts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The picture of an exposure: pixels, or the reason why there are none."""

    pixels: Pixels | None  # uint8 (H, W, 3) RGB
    captured_ns: int
    captured_unix_ns: int
    source: str = ""
    fault: str = ""  # why the picture cannot be judged; empty if it can


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One exposure with its identity and its deadline. In the ledger for parts: a part, opened by its first frame."""

    event_id: str
    camera: str
    product: str
    seq: int  # 1, 2, 3, ... for each camera and run of the service
    captured_ns: int
    captured_unix_ns: int
    deadline_ns: int
    due_ns: int = 0  # when the frame must have its verdict, so that this reaches the broker by the deadline
    policy: Policy
    source: str
    trigger: int = 0
    model: str = ""  # key of the model that judges the frame: a changeover does not touch frames in flight
    pixels: Pixels | None = None  # uint8 (h, w, 3) RGB at the model's input size; None until it has been read
    prepared_ns: int = 0  # when the picture was ready for the batcher; 0 before, and of parts
    given_up: bool = False  # the picture was given up for want of memory
    picture: Pixels | None = None  # uint8 (H, W, 3) RGB as captured, cut to the region of interest: for evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The inspector's result for one frame."""

    score: float  # of the anomaly map, raw: its highest value, or what the recipe says
    threshold: float
    p_value: float
    bundle: str  # digest
    engine: str
    score_max: float | None = None  # highest value of the paper's map, whatever the score is; None: not told
    engine_ns: int = 0  # how long the frame's batch was on the device
    anomaly_map: AnomalyMap | None = None  # float32 (h, w); only rejects have one


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The one end of a frame, or of a part."""

    event_id: str
    camera: str  # the camera of a frame, or the station of a part
    product: str
    seq: int
    captured_ns: int
    captured_unix_ns: int
    deadline_ns: int
    decided_ns: int
    prepared_ns: int = 0  # as in its frame
    decision: Decision
    policy: Policy
    trigger: int = 0
    cause: Cause | None = None
    detail: str = ""
    source: str = ""
    result: Result | None = None
    views: tuple[str, ...] = ()  # for a part: the event_id of each frame that showed it, in the order of arrival

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


def iso(unix_ns: int) -> str:
    """A time as RFC 3339 text in UTC with microseconds."""
    seconds, rest_ns = divmod(unix_ns, 10**9)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
