"""rejectd.decision: from a score to a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejectd.contract.messages import Cause, Decision, Frame, Policy, Result
from rejectd.contract.payloads import encode, verdict_payload
from rejectd.decision import decide, unjudged

NAN, INF = math.nan, math.inf


def a_frame(policy: Policy = Policy.REJECT) -> Frame:
    return Frame(
        event_id="run-a-1",
        camera="a",
        product="cell",
        seq=1,
        trigger=112,
        captured_ns=1_000_000,
        captured_unix_ns=1_700_000_000_000_000_000,
        deadline_ns=101_000_000,
        policy=policy,
        source="7.png",
        pixels=None,
        picture=None,
    )


def a_result(score: float, threshold: float = 0.5, p_value: float = 0.25) -> Result:
    return Result(score=score, threshold=threshold, p_value=p_value, bundle="abc", engine="torch-cpu-float32")


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (0.0, Decision.PASS),
        (-1.0, Decision.PASS),
        (math.nextafter(0.5, 0), Decision.PASS),
        (0.5, Decision.PASS),
        (math.nextafter(0.5, 1), Decision.REJECT),
        (1e30, Decision.REJECT),
    ],
)
def test_a_part_is_rejected_above_the_threshold_and_passes_at_it(score: float, decision: Decision) -> None:
    verdict = decide(a_frame(), a_result(score), 5)
    assert (verdict.decision, verdict.cause) == (decision, None)
    assert verdict.result == a_result(score), "the score stays as it was measured"


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        (a_result(NAN), "the score is nan"),
        (replace(a_result(0.2), score_max=INF), "the highest value is inf"),
        (a_result(INF), "the score is inf"),
        (a_result(-INF), "the score is -inf"),
        (a_result(0.9, threshold=NAN), "the threshold is nan"),
        (a_result(0.1, threshold=INF), "the threshold is inf"),
        (a_result(0.1, p_value=NAN), "the p-value is nan"),
    ],
)
def test_what_is_no_number_is_never_a_pass_but_the_engines_fault(result: Result, detail: str) -> None:
    verdict = decide(a_frame(), result, 5)
    assert (verdict.decision, verdict.cause, verdict.detail) == (Decision.UNJUDGED, Cause.ENGINE_FAULT, detail)
    assert verdict.result is None


@given(st.floats(), st.floats(), st.floats())
def test_every_verdict_can_be_sent_and_a_pass_was_compared(score: float, threshold: float, p_value: float) -> None:
    verdict = decide(a_frame(), a_result(score, threshold, p_value), 5)
    assert encode(verdict_payload("l", verdict))
    assert (verdict.decision is Decision.PASS) <= (score <= threshold)


@pytest.mark.parametrize("policy", Policy)
def test_the_policy_says_what_to_do_with_an_unjudged_part_and_with_no_other(policy: Policy) -> None:
    frame = a_frame(policy)
    assert decide(frame, a_result(0.1), 5).action is Policy.PASS
    assert decide(frame, a_result(0.9), 5).action is Policy.REJECT
    for cause in Cause:
        assert unjudged(frame, cause, 5).action is policy


def test_a_verdict_carries_the_identity_of_its_frame() -> None:
    frame = a_frame()
    for verdict in (decide(frame, a_result(0.1), 9), unjudged(frame, Cause.LATE, 9, detail="why")):
        same = (
            "event_id",
            "camera",
            "product",
            "seq",
            "trigger",
            "captured_ns",
            "captured_unix_ns",
            "deadline_ns",
            "policy",
            "source",
        )
        assert all(getattr(verdict, name) == getattr(frame, name) for name in same)
        assert verdict.decided_ns == 9
