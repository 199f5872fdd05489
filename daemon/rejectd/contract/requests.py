"""What the line may be asked over MQTT. Each request is declared like a setting; parser and schema come from that."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rejectd.contract.declaration import Reader, setting
from rejectd.contract.messages import Policy, RejectdError
from rejectd.contract.settings import FOLDER, NAME

LARGEST_BYTES = 65_536

_ESCAPED_IN_YAML = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_CAMERAS = {"default": None, "pattern_help": "names of cameras, such as [left, right]"}
_TIME = {
    "default": None,
    "pattern": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})",
    "pattern_help": "a time with zone such as 2026-11-25T06:00Z",
}


class RequestError(RejectdError):
    """A request that cannot be carried out, with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every request may hold."""

    request_id: str | None = setting("Comes back in the answer.", default=None, pattern=r"[\s\S]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRequest(Request):
    """Change over to a product: load, warm and check its bundle, then switch between two frames."""

    product: str = setting("The product, as the settings name it.", example="cell", **NAME)
    cameras: tuple[str, ...] | None = setting(
        "Cameras that it passes from now on; those that it passes already if absent.", **_CAMERAS
    )
    bundle: str | None = setting(
        "Another bundle for it, by the name of its folder beside the configured one.",
        default=None,
        **FOLDER,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRequest(Request):
    """Set the score above which parts of a product are rejected."""

    product: str = setting("The product, as the settings name it.", example="cell", **NAME)
    threshold: float | None = setting(
        "The threshold, for the bundle in force and until a changeover to another; null goes back to the one of the "
        "settings or the calibration.",
        low=1e-9,
        high=1000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequest(Request):
    """Stop inspecting. Each exposure is answered at once as `unjudged`, cause `paused`."""

    cameras: tuple[str, ...] | None = setting("Cameras to pause; all of them if absent.", **_CAMERAS)
    action: Policy | None = setting(
        "What the line should do with parts meanwhile; the camera's policy if absent.", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequest(Request):
    """Inspect again."""

    cameras: tuple[str, ...] | None = setting("Cameras to resume; all of them if absent.", **_CAMERAS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest(Request):
    """Send the known good and the known bad pictures of a bundle through the whole path, checked and timed."""

    product: str | None = setting("The product; all that pass a camera if absent.", default=None, **NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest(Request):
    """Keep the latest picture of a camera as evidence, and show it."""

    camera: str = setting("The camera.", example="camera1", **NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest(Request):
    """Publish defect events once more that the broker has acknowledged. New events go first."""

    from_seq: int | None = setting("First `event_seq`.", default=None, low=1, high=2**53)
    to_seq: int | None = setting("Last `event_seq`.", default=None, low=1, high=2**53)
    since: str | None = setting("Events from this time on.", **_TIME)
    until: str | None = setting("Events up to this time.", **_TIME)


AnyRequest: TypeAlias = (
    ProductRequest | ThresholdRequest | PauseRequest | ResumeRequest | GoldenRequest | SnapshotRequest | ReplayRequest
)

REQUESTS: dict[str, type[AnyRequest]] = {
    "product": ProductRequest,
    "threshold": ThresholdRequest,
    "pause": PauseRequest,
    "resume": ResumeRequest,
    "golden": GoldenRequest,
    "snapshot": SnapshotRequest,
    "replay": ReplayRequest,
}


def parse(command: str, body: bytes) -> AnyRequest:
    """The request in a message.

    Raises:
        RequestError: with every mistake in it.
    """
    if command not in REQUESTS:
        raise RequestError(f"there is no command {command[:40]!r}", hint=f"known: {', '.join(REQUESTS)}")
    if len(body) > LARGEST_BYTES:
        raise RequestError(f"the request has {len(body)} bytes", hint=f"send {LARGEST_BYTES} at most")
    reader = Reader(Path(command))
    node = reader.root(_yaml(_object(body)))
    request: AnyRequest | None = reader.group(REQUESTS[command], node) if node is not None else None
    if request is None or reader.mistakes:
        first, *others = [f"{each.key}: {each.problem}; {each.hint}" for each in reader.mistakes]
        raise RequestError("\n".join([first, *others]))
    return request


def _yaml(found: dict[str, Any]) -> str:
    """JSON is YAML, and holds no anchors; but some characters that it may hold, YAML wants to have escaped."""
    text = json.dumps(found, ensure_ascii=False)
    return _ESCAPED_IN_YAML.sub(lambda each: f"\\u{ord(each[0]):04x}", text)


def request_id(body: bytes) -> str | None:
    """What the answer to a request carries, also where the rest of it is wrong."""
    try:
        found = _object(body).get("request_id") if len(body) <= LARGEST_BYTES else None
    except RequestError:
        return None
    return found[:200] if isinstance(found, str) else None


def _number(text: str) -> float | int:
    """1.0 is a whole number in JSON Schema."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}", parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"not JSON: {str(error)[:100]}", hint='send an object such as {"product": "cell"}'
        ) from error
    if not isinstance(found, dict):
        raise RequestError("not a JSON object", hint='send one such as {"product": "cell"}')
    return found
