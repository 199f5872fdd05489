"""Builds the topics and JSON bodies of all messages to and from the service. bodies.py declares every field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rejectd.contract.messages import GOLDEN, Account, CameraStatus, Decision, Verdict, iso

TOPIC_ROOT = "rejectd/v1"


def line_topic(line: str) -> str:
    return f"{TOPIC_ROOT}/{line}/status"


def camera_topic(line: str, camera: str) -> str:
    return f"{TOPIC_ROOT}/{line}/{camera}/status"


def verdict_topic(line: str, camera: str, decision: Decision) -> str:
    """The topic of a verdict. Known pictures have a topic of their own, so that none of them fires an ejector."""
    below = f"command/{GOLDEN}" if camera == GOLDEN else camera
    return f"{TOPIC_ROOT}/{line}/{below}/verdict/{decision}"


def defect_topic(line: str, camera: str) -> str:
    return f"{TOPIC_ROOT}/{line}/{camera}/defect"


def command_topic(line: str, name: str) -> str:
    return f"{TOPIC_ROOT}/{line}/command/{name}"


def answer_topic(line: str) -> str:
    """The topic of answers to commands that name no response topic. Response topics may lie below it."""
    return f"{TOPIC_ROOT}/{line}/answer"


def actuator_topic(line: str, camera: str) -> str:
    """The topic on which the PLC says how many parts it has rejected."""
    return f"{TOPIC_ROOT}/{line}/actuator/{camera}/rejected"


def encode(payload: Mapping[str, Any]) -> bytes:
    """Encode a body as compact JSON. Raises ValueError for NaN and infinity, which are our own mistake."""
    return json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()


def verdict_payload(line: str, verdict: Verdict) -> dict[str, Any]:
    """The body of a verdict message."""
    result = verdict.result
    lifetime_ns = verdict.deadline_ns - verdict.captured_ns
    return {
        "schema": "rejectd.verdict.v1",
        "event_id": verdict.event_id,
        "line": line,
        "camera": verdict.camera,
        "product": verdict.product,
        "seq": verdict.seq,
        "trigger": verdict.trigger,
        "views": list(verdict.views) or None,
        "decision": verdict.decision,
        "cause": verdict.cause,
        "action": verdict.action,
        "captured_at": iso(verdict.captured_unix_ns),
        "valid_until": iso(verdict.captured_unix_ns + lifetime_ns),
        "latency_ms": round((verdict.decided_ns - verdict.captured_ns) / 1e6, 3),
        "score": result.score if result else None,
        "score_max": result.score_max if result else None,
        "threshold": result.threshold if result else None,
        "p_value": result.p_value if result else None,
        "bundle": result.bundle if result else None,
        "engine": result.engine if result else None,
        "engine_ms": round(result.engine_ns / 1e6, 3) if result else None,
        "source": _text(verdict.source),
        "detail": _text(verdict.detail),
    }


def _text(text: str) -> str | None:
    """A text that JSON can hold, None if empty. A file name may hold bytes that are no UTF-8; these are escaped."""
    return text.encode("utf-8", "backslashreplace").decode() or None


def defect_payload(verdict: Mapping[str, Any], *, evidence: str, regions: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The body of a defect event: the body of its verdict, where the defects are and where the evidence lies.

    Regions are [x, y, width, height] in pixels of the captured picture, cut to the camera's region of interest.
    """
    return {**verdict, "schema": "rejectd.defect.v1", "regions": regions, "evidence": evidence or None}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStatus:
    """The state of a line at one instant."""

    run: str
    version: str
    account: Account
    parts: Account | None  # account of the stations' parts; None without stations
    unpublished: int
    judging: bool  # parts are judged: no frame is overdue, no device hangs, few end as unjudged
    problems: Sequence[str]
    products: Mapping[str, str]  # by camera
    paused: Sequence[str]  # cameras


def line_payload(line: str, state: str, status: LineStatus, now_unix_ns: int) -> dict[str, Any]:
    """The body of the line's retained status: birth, heartbeat and farewell.

    A subscriber has received captured - in_flight - unpublished verdicts, except for those on their way to the broker.
    """
    return {
        "schema": "rejectd.line.v1",
        "line": line,
        "run": status.run,
        "state": state,
        "version": status.version,
        "at": iso(now_unix_ns),
        "judging": status.judging,
        "problems": list(status.problems),
        **_counts(status.account),
        "unpublished": status.unpublished,
        "parts": _counts(status.parts) if status.parts else None,
        "products": dict(status.products),
        "paused": list(status.paused),
    }


def _counts(account: Account) -> dict[str, int]:
    return {
        "captured": account.captured,
        "pass": account.passed,
        "reject": account.rejected,
        "unjudged": account.unjudged,
        "in_flight": account.in_flight,
    }


def will_payload(line: str, run: str) -> dict[str, Any]:
    """The body of the last will, which the broker publishes when the service is gone without a farewell."""
    return {"schema": "rejectd.line.v1", "line": line, "run": run, "state": "offline"}


def answer_payload(
    line: str, command: str, *, request_id: str | None, result: Mapping[str, Any] | None, error: str, now_unix_ns: int
) -> dict[str, Any]:
    """The body of the answer to a command: a result, or an error that says what to do."""
    return {
        "schema": "rejectd.answer.v1",
        "line": line,
        "command": command,
        "request_id": request_id,
        "ok": not error,
        "error": error or None,
        "result": dict(result) if result is not None else None,
        "at": iso(now_unix_ns),
    }


_CUT = ("detail", "source", "views", "regions", "problems", "evidence")  # fields that may be cut to nothing
_NEEDED = ("reason", "error")  # fields that may be cut to one letter


def shortened(body: bytes, most_bytes: int) -> bytes | None:
    """Shorten a body to `most_bytes` by halving its longest texts and lists; None if that is not enough."""
    if len(body) <= most_bytes:
        return body
    payload: dict[str, Any] = json.loads(body)
    while names := [name for name in (*_CUT, *_NEEDED) if len(payload.get(name) or "") > (name in _NEEDED)]:
        longest = max(names, key=lambda name: len(json.dumps(payload[name])))
        value = payload[longest]
        half = "" if longest == "evidence" else value[: len(value) // 2]
        payload[longest] = half or ([] if isinstance(value, list) and longest != "views" else None)
        if len(body := encode(payload)) <= most_bytes:
            return body
    return None
