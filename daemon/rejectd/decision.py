"""From a score to a verdict. Pure."""

from __future__ import annotations

import math

from rejectd.contract.messages import Cause, Decision, Frame, Result, Verdict


def decide(frame: Frame, result: Result, now_ns: int) -> Verdict:
    """Reject above the threshold, pass at or below it; a score or threshold that is no number is the engine's fault."""
    numbers = {"score": result.score, "threshold": result.threshold, "p-value": result.p_value}
    for name, value in (numbers | {"highest value": result.score_max}).items():
        if value is not None and not math.isfinite(value):
            return unjudged(frame, Cause.ENGINE_FAULT, now_ns, detail=f"the {name} is {value}")
    decision = Decision.REJECT if result.score > result.threshold else Decision.PASS
    return _verdict(frame, decision, now_ns, result=result)


def unjudged(frame: Frame, cause: Cause, now_ns: int, *, detail: str = "") -> Verdict:
    """The end of a frame that the model has not judged, or not in time."""
    return _verdict(frame, Decision.UNJUDGED, now_ns, cause=cause, detail=detail)


def _verdict(
    frame: Frame,
    decision: Decision,
    now_ns: int,
    *,
    result: Result | None = None,
    cause: Cause | None = None,
    detail: str = "",
) -> Verdict:
    return Verdict(
        event_id=frame.event_id,
        camera=frame.camera,
        product=frame.product,
        seq=frame.seq,
        captured_ns=frame.captured_ns,
        captured_unix_ns=frame.captured_unix_ns,
        deadline_ns=frame.deadline_ns,
        decided_ns=now_ns,
        prepared_ns=frame.prepared_ns,
        decision=decision,
        policy=frame.policy,
        trigger=frame.trigger,
        cause=cause,
        detail=detail,
        source=frame.source,
        result=result,
    )
