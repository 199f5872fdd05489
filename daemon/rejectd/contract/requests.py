"""Declares the requests that a line takes over MQTT, each like a setting; checks and schemas come from that."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from rejectd.contract import complaints
from rejectd.contract.complaints import LONGEST, Seen
from rejectd.contract.fields import FOLDER, NAME, Group, Names, setting
from rejectd.contract.messages import Policy, RejectdError

LARGEST_BYTES = 65_536

_CAMERAS: dict[str, Any] = {"default": None, "pattern_help": "names of cameras, such as [left, right]"}
_TIME: dict[str, Any] = {
    "default": None,
    "pattern": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})",
    "pattern_help": "a time with zone such as 2026-11-25T06:00Z",
}


class RequestError(RejectdError):
    """A request that cannot be carried out, with what to do."""


class Request(Group):
    """What every request may hold."""

    request_id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")] | None = setting(
        "Comes back in the answer.", default=None, pattern_help="1 to 200 letters"
    )


class ProductRequest(Request):
    """Change over to a product: load, warm and check its bundle, then switch between two frames."""

    product: str = setting("The product, as the settings name it.", example="cell", **NAME)
    cameras: Names | None = setting(
        "Cameras that it passes from now on; those that it passes already if absent.", **_CAMERAS
    )
    bundle: str | None = setting(
        "Another bundle for it, by the name of its folder beside the configured one.",
        default=None,
        **FOLDER,
    )


class ThresholdRequest(Request):
    """Set the score above which parts of a product are rejected."""

    product: str = setting("The product, as the settings name it.", example="cell", **NAME)
    threshold: float | None = setting(
        "The threshold, for the bundle in force and until a changeover to another; null goes back to the one of the "
        "settings or the calibration.",
        low=1e-9,
        high=1000,
    )


class PauseRequest(Request):
    """Stop inspecting. Each exposure is answered at once as `unjudged`, cause `paused`."""

    cameras: Names | None = setting("Cameras to pause; all of them if absent.", **_CAMERAS)
    action: Annotated[Policy, Field(strict=False)] | None = setting(
        "What the line should do with parts meanwhile; the camera's policy if absent.", default=None
    )


class ResumeRequest(Request):
    """Inspect again."""

    cameras: Names | None = setting("Cameras to resume; all of them if absent.", **_CAMERAS)


class GoldenRequest(Request):
    """Send the known good and the known bad pictures of a bundle through the whole path, checked and timed."""

    product: str | None = setting("The product; all that pass a camera if absent.", default=None, **NAME)


class SnapshotRequest(Request):
    """Keep the latest picture of a camera as evidence, and show it."""

    camera: str = setting("The camera.", example="camera1", **NAME)


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
    """Parse the body of a request.

    Raises:
        RequestError: with every mistake in the body.
    """
    if command not in REQUESTS:
        raise RequestError(f"there is no command {command[:40]!r}", hint=f"known: {', '.join(REQUESTS)}")
    if len(body) > LARGEST_BYTES:
        raise RequestError(f"the request has {len(body)} bytes", hint=f"send {LARGEST_BYTES} at most")
    values = _object(body)
    request = complaints.build(REQUESTS[command], values, lambda name: _seen(values[name]))
    if isinstance(request, list):
        raise RequestError("\n".join(f"{wrong.name}: {wrong.problem}; {wrong.hint}" for wrong in request))
    return request


def _seen(value: Any) -> Seen:
    """A value as its author wrote it in the JSON."""
    raw = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, list):
        raw = f"[{', '.join(item if isinstance(item, str) else json.dumps(item) for item in value)}]"
    short = repr(raw if len(raw) <= LONGEST else raw[:LONGEST] + "...") if raw else "an empty value"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Seen(
        shown="a list" if isinstance(value, list) else "a group" if isinstance(value, dict) else short,
        raw=raw,
        quoted=isinstance(value, str),
        several=isinstance(value, list | dict),
        as_text=f'put it in quotes: "{raw[:LONGEST]}"' if number else "",
    )


def request_id(body: bytes) -> str | None:
    """The `request_id` of a request, for its answer, even if the request is wrong otherwise; None if there is none."""
    try:
        identifier = _object(body).get("request_id") if len(body) <= LARGEST_BYTES else None
    except RequestError:
        return None
    return identifier[:200] if isinstance(identifier, str) else None


def _number(text: str) -> float | int:
    """Parse a number. 1.0 becomes a whole number, as in JSON Schema."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _object(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body or b"{}", parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"not JSON: {str(error)[:100]}", hint='send an object such as {"product": "cell"}'
        ) from error
    if not isinstance(request, dict):
        raise RequestError("not a JSON object", hint='send one such as {"product": "cell"}')
    return request
