"""rejectd.cli.watch: what an independent subscriber sees. The payloads are the service's own; no broker is needed."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from rejectd.cli.watch import Tally, verdict_line
from rejectd.contract.messages import Cause, Decision, Policy, Result, Verdict
from rejectd.contract.payloads import encode, verdict_payload

CAPTURED = 1_700_000_000_250_000_000
AT = 1_700_000_000.25


def a_payload(
    decision: Decision,
    *,
    seq: int = 1,
    cause: Cause | None = None,
    score: float = 1.5,
    threshold: float = 1.0,
    source: str = "7.png",
    detail: str = "",
) -> dict[str, Any]:
    """As it comes from the broker."""
    judged = decision is not Decision.UNJUDGED
    verdict = Verdict(
        event_id=f"run-left-{seq}",
        camera="left",
        product="cell",
        seq=seq,
        captured_ns=0,
        captured_unix_ns=CAPTURED,
        deadline_ns=200_000_000,
        decided_ns=12_300_000,
        decision=decision,
        policy=Policy.REJECT,
        cause=cause,
        detail=detail,
        source=source,
        result=Result(score=score, threshold=threshold, p_value=0.1, bundle="b", engine="e") if judged else None,
    )
    payload: dict[str, Any] = json.loads(encode(verdict_payload("l", verdict)))
    return payload


def test_each_verdict_is_counted_by_its_decision() -> None:
    tally = Tally()
    for seq, decision in enumerate([Decision.PASS, Decision.PASS, Decision.REJECT, Decision.UNJUDGED]):
        cause = Cause.LATE if decision is Decision.UNJUDGED else None
        assert tally.verdict(a_payload(decision, seq=seq, cause=cause), AT + 0.05)
    assert tally.decisions == {"pass": 2, "reject": 1, "unjudged": 1}
    assert tally.latencies_s == pytest.approx([0.05] * 4)
    assert tally.late == 0


def test_a_verdict_delivered_twice_counts_once() -> None:
    tally = Tally()
    payload = a_payload(Decision.REJECT)
    assert tally.verdict(payload, AT)
    assert not tally.verdict(payload, AT + 5)
    assert tally.decisions == {"reject": 1}
    assert (len(tally.latencies_s), tally.late) == (1, 0)


def test_a_verdict_after_its_deadline_is_late() -> None:
    tally = Tally()
    tally.verdict(a_payload(Decision.PASS, seq=1), AT + 0.2)
    tally.verdict(a_payload(Decision.PASS, seq=2), AT + 0.200_002)
    assert tally.late == 1


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (a_payload(Decision.PASS, score=0.42), "left #1      pass        0.42 x threshold     12.3 ms  7.png"),
        (a_payload(Decision.REJECT), "left #1      reject      1.50 x threshold     12.3 ms  7.png"),
        (
            a_payload(Decision.UNJUDGED, cause=Cause.LATE),
            "left #1      unjudged  late                   12.3 ms  7.png",
        ),
        (
            a_payload(Decision.UNJUDGED, cause=Cause.CAMERA_FAULT, source="", detail="frame is incomplete"),
            "left #1      unjudged  camera_fault           12.3 ms  frame is incomplete",
        ),
        (a_payload(Decision.PASS, source=""), "left #1      pass        1.50 x threshold     12.3 ms  "),
    ],
)
def test_a_verdict_is_one_line_for_people(payload: dict[str, Any], line: str) -> None:
    shown = verdict_line(payload, colour=False)
    at = datetime.fromtimestamp(AT).astimezone().strftime("%H:%M:%S.250")
    assert shown == f"{at}  {line}"


@pytest.mark.parametrize(("decision", "colour"), [(Decision.PASS, 32), (Decision.REJECT, 31), (Decision.UNJUDGED, 33)])
def test_a_terminal_shows_the_decision_in_its_colour_and_nothing_else_changes(decision: Decision, colour: int) -> None:
    payload = a_payload(decision, cause=Cause.OVERLOAD if decision is Decision.UNJUDGED else None)
    shown = verdict_line(payload, colour=True)
    assert f"\033[{colour}m{decision}" in shown
    assert re.sub(r"\033\[\d+m", "", shown) == verdict_line(payload, colour=False)


def test_a_threshold_of_nothing_does_not_end_the_watch() -> None:
    assert "reject" in verdict_line(a_payload(Decision.REJECT, threshold=0.0), colour=False)
