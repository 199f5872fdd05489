"""The commands that show the past and change nothing: the latest picture of a camera, and defect events once more."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from rejectd.contract.messages import iso
from rejectd.contract.payloads import encode
from rejectd.contract.requests import ReplayRequest, RequestError
from rejectd.control.controls import Controls
from rejectd.storage.evidence import thumbnail
from rejectd.storage.outbox import Replay

_AROUND = 2000  # bytes; an answer has at most so many beside its result: topics, request_id, correlation data
_DISK_S = 30.0


def snapshot(controls: Controls, camera: str) -> dict[str, Any]:
    """Keep the latest picture of a camera as evidence, and show it as small as the broker takes it.

    Raises:
        RejectdError: if there is no picture, or it cannot be kept or shown.
    """
    picture = controls.pipeline.latest.get(camera)
    if picture is None or picture.pixels is None:
        fault = picture.fault if picture else "no picture yet"
        raise RequestError(f"camera {camera}: {fault}", hint="try again when a part has passed")
    evidence, pixels = controls.evidence, picture.pixels
    evidence_path = controls.recorder.ask(lambda: evidence.snapshot(camera, picture), _DISK_S) if evidence else None
    height, width = pixels.shape[:2]
    result = {
        "camera": camera,
        "captured_at": iso(picture.captured_unix_ns),
        "source": picture.source or None,
        "width": width,
        "height": height,
        "evidence": evidence_path or None,
    }
    most = controls.largest_packet()
    room = None if most is None else (most - _AROUND - len(encode(result))) * 3 // 4
    jpeg = thumbnail(pixels, most_bytes=room)
    if not jpeg:
        hint = "raise the broker's limit (mosquitto: max_packet_size)"
        hint += f"; it is kept as evidence: {evidence_path}" if evidence_path else ""
        raise RequestError(f"no picture fits into the {most} bytes that the broker takes", hint=hint)
    return {**result, "jpeg": base64.b64encode(jpeg).decode()}


def replay(controls: Controls, request: ReplayRequest) -> dict[str, Any]:
    """Have acknowledged events published once more.

    Raises:
        RejectdError: if the request bounds nothing, or the disk is too busy.
    """
    requested = {
        "from_seq": request.from_seq,
        "to_seq": request.to_seq,
        "since_unix_ns": _unix_ns(request.since),
        "until_unix_ns": _unix_ns(request.until),
    }
    bounds = {name: value for name, value in requested.items() if value is not None}
    if not bounds:
        raise RequestError("which events?", hint="give from_seq, to_seq, since or until")
    count, first, last = controls.recorder.ask(lambda: controls.outbox.replay(Replay(**bounds)), _DISK_S)
    controls.more_events()
    return {"events": count, "from_seq": first, "to_seq": last}


def _unix_ns(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        unix_ns = round(datetime.fromisoformat(text).timestamp() * 1e6) * 1000
    except (ValueError, OverflowError) as error:
        raise RequestError(f"{text!r} is not a time", hint="give one such as 2026-11-25T06:00Z") from error
    return max(0, min(unix_ns, 2**63 - 1))
