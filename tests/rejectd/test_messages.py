"""rejectd.messages: what leaves the service as JSON."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejectd.messages import (
    Account,
    CameraState,
    CameraStatus,
    Cause,
    Decision,
    Policy,
    RejectdError,
    Result,
    Verdict,
    camera_payload,
    camera_topic,
    defect_payload,
    defect_topic,
    encode,
    iso,
    line_payload,
    line_topic,
    verdict_payload,
    verdict_topic,
    will_payload,
)

CAPTURED = 1_700_000_000_123_456_789
COMMON = {
    "schema", "event_id", "line", "camera", "product", "seq", "decision", "cause", "action", "captured_at",
    "valid_until", "latency_ms", "score", "threshold", "p_value", "bundle", "engine", "source", "detail",
}  # fmt: skip
RESULT = Result(score=1.25, threshold=0.5, p_value=0.01, bundle="abc", engine="torch:cpu:float32")


def a_verdict(
    decision: Decision,
    *,
    policy: Policy = Policy.REJECT,
    cause: Cause | None = None,
    result: Result | None = None,
    deadline_ms: int = 200,
    captured_unix_ns: int = CAPTURED,
) -> Verdict:
    return Verdict(
        event_id="run-a-7",
        camera="a",
        product="cell",
        seq=7,
        captured_ns=5_000_000_000,
        captured_unix_ns=captured_unix_ns,
        deadline_ns=5_000_000_000 + deadline_ms * 1_000_000,
        decided_ns=5_012_345_678,
        decision=decision,
        policy=policy,
        cause=cause,
        result=result,
    )


def decoded(body: bytes) -> dict[str, object]:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    payload: dict[str, object] = json.loads(body, parse_constant=refuse)
    return payload


def test_a_verdict_message_has_every_documented_field() -> None:
    payload = decoded(encode(verdict_payload("l", a_verdict(Decision.REJECT, result=RESULT))))
    assert payload == {
        "schema": "rejectd.verdict.v1",
        "event_id": "run-a-7",
        "line": "l",
        "camera": "a",
        "product": "cell",
        "seq": 7,
        "decision": "reject",
        "cause": None,
        "action": "reject",
        "captured_at": "2023-11-14T22:13:20.123456Z",
        "valid_until": "2023-11-14T22:13:20.323456Z",
        "latency_ms": 12.346,
        "score": 1.25,
        "threshold": 0.5,
        "p_value": 0.01,
        "bundle": "abc",
        "engine": "torch:cpu:float32",
        "source": None,
        "detail": None,
    }


def test_a_defect_event_says_where_the_defects_and_the_evidence_are() -> None:
    verdict = a_verdict(Decision.REJECT, result=RESULT)
    payload = decoded(encode(defect_payload("l", verdict, evidence="d/e.png", regions=[[1, 2, 3, 4]])))
    assert set(payload) == COMMON | {"regions", "evidence"}
    assert (payload["schema"], payload["regions"], payload["evidence"]) == (
        "rejectd.defect.v1",
        [[1, 2, 3, 4]],
        "d/e.png",
    )
    assert decoded(encode(defect_payload("l", verdict, evidence="", regions=[])))["evidence"] is None


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("cause", Cause)
def test_an_unjudged_part_says_why_and_what_to_do_and_has_no_score(policy: Policy, cause: Cause) -> None:
    payload = decoded(encode(verdict_payload("l", a_verdict(Decision.UNJUDGED, policy=policy, cause=cause))))
    assert set(payload) == COMMON
    assert (payload["decision"], payload["cause"], payload["action"]) == ("unjudged", cause.value, policy.value)
    assert [payload[name] for name in ("score", "threshold", "p_value", "bundle", "engine")] == [None] * 5


@pytest.mark.parametrize("policy", Policy)
def test_a_judged_part_is_acted_on_as_judged_whatever_the_policy(policy: Policy) -> None:
    passing, rejected = (a_verdict(end, policy=policy, result=RESULT) for end in (Decision.PASS, Decision.REJECT))
    assert verdict_payload("l", passing)["action"] == "pass"
    assert verdict_payload("l", rejected)["action"] == "reject"


@given(captured=st.integers(1_500_000_000_000_000_000, 2_500_000_000_000_000_000), deadline_ms=st.integers(10, 600_000))
def test_a_verdict_is_valid_until_exactly_its_deadline(captured: int, deadline_ms: int) -> None:
    verdict = a_verdict(Decision.PASS, result=RESULT, captured_unix_ns=captured, deadline_ms=deadline_ms)
    payload = verdict_payload("l", verdict)
    valid = datetime.fromisoformat(payload["valid_until"]) - datetime.fromisoformat(payload["captured_at"])
    assert valid == timedelta(milliseconds=deadline_ms)


@pytest.mark.parametrize(
    ("unix_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20.000000Z"),
        (1_699_999_999_999_999_999, "2023-11-14T22:13:19.999999Z"),
    ],
)
def test_times_are_in_utc_with_microseconds_and_never_rounded_up(unix_ns: int, text: str) -> None:
    assert iso(unix_ns) == text


def test_the_status_of_a_line_has_the_account() -> None:
    account = Account(captured=10, passed=5, rejected=2, unjudged=1, in_flight=2)
    payload = line_payload("l", run="r", state="online", version="1.0", account=account, unpublished=3, now_unix_ns=0)
    assert decoded(encode(payload)) == {
        "schema": "rejectd.line.v1",
        "line": "l",
        "run": "r",
        "state": "online",
        "version": "1.0",
        "at": "1970-01-01T00:00:00.000000Z",
        "captured": 10,
        "pass": 5,
        "reject": 2,
        "unjudged": 1,
        "in_flight": 2,
        "unpublished": 3,
    }
    assert account.balanced
    assert not Account(captured=10, passed=5, rejected=2, unjudged=1, in_flight=1).balanced


def test_the_last_will_is_a_line_status_that_says_offline() -> None:
    assert decoded(encode(will_payload("l", "r"))) == {
        "schema": "rejectd.line.v1",
        "line": "l",
        "run": "r",
        "state": "offline",
    }


@pytest.mark.parametrize("state", CameraState)
def test_the_status_of_a_camera_says_since_when_and_why(state: CameraState) -> None:
    status = CameraStatus(camera="a", state=state, reason="no light", since_unix_ns=CAPTURED)
    assert decoded(encode(camera_payload("l", status))) == {
        "schema": "rejectd.camera.v1",
        "line": "l",
        "camera": "a",
        "state": state.value,
        "reason": "no light",
        "since": "2023-11-14T22:13:20.123456Z",
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_sent(number: float) -> None:
    result = Result(score=number, threshold=0.5, p_value=0.1, bundle="b", engine="e")
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(verdict_payload("l", a_verdict(Decision.REJECT, result=result)))


def test_topics_are_those_of_the_contract() -> None:
    assert line_topic("l") == "rejectd/v1/l/status"
    assert camera_topic("l", "a") == "rejectd/v1/l/a/status"
    assert [verdict_topic("l", "a", decision) for decision in Decision] == [
        "rejectd/v1/l/a/verdict/pass",
        "rejectd/v1/l/a/verdict/reject",
        "rejectd/v1/l/a/verdict/unjudged",
    ]
    assert defect_topic("l", "a") == "rejectd/v1/l/a/defect"


def test_an_error_says_what_is_wrong_and_what_to_do() -> None:
    assert str(RejectdError("it broke", hint="mend it")) == "it broke; mend it"
    assert str(RejectdError("it broke")) == "it broke"
