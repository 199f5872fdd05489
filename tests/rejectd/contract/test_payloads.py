"""rejectd.contract.payloads: topics, and what leaves the service as JSON. Everything is held to the schemas of
config/mqtt."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Any

import contract
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejectd.contract.messages import (
    GOLDEN,
    Account,
    CameraState,
    CameraStatus,
    Cause,
    Decision,
    Policy,
    Result,
    Verdict,
)
from rejectd.contract.payloads import (
    LineStatus,
    actuator_topic,
    answer_payload,
    answer_topic,
    camera_payload,
    camera_topic,
    command_topic,
    defect_payload,
    defect_topic,
    encode,
    line_payload,
    line_topic,
    shortened,
    verdict_payload,
    verdict_topic,
    will_payload,
)

CAPTURED = 1_700_000_000_123_456_789
RESULT = Result(
    score=1.25,
    score_max=0.75,
    threshold=0.5,
    p_value=0.01,
    bundle="abc",
    engine="torch-cpu-float32",
    engine_ns=12_345_678,
)


def a_verdict(
    decision: Decision,
    *,
    camera: str = "a",
    policy: Policy = Policy.REJECT,
    cause: Cause | None = None,
    result: Result | None = None,
    deadline_ms: int = 200,
    captured_unix_ns: int = CAPTURED,
    views: tuple[str, ...] = (),
    source: str = "",
    detail: str = "",
) -> Verdict:
    return Verdict(
        event_id=f"run-{camera}-7",
        camera=camera,
        product="cell",
        seq=7,
        trigger=112,
        captured_ns=5_000_000_000,
        captured_unix_ns=captured_unix_ns,
        deadline_ns=5_000_000_000 + deadline_ms * 1_000_000,
        decided_ns=5_012_345_678,
        decision=decision,
        policy=policy,
        cause=cause,
        result=result,
        views=views,
        source=source,
        detail=detail,
    )


def sent(topic: str, payload: dict[str, Any]) -> dict[str, Any]:
    """As a subscriber gets it, who has nothing but the schemas."""
    body = encode(payload)
    contract.validate(topic, body)
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def sent_verdict(verdict: Verdict) -> dict[str, Any]:
    return sent(verdict_topic("l", verdict.camera, verdict.decision), verdict_payload("l", verdict))


def test_a_verdict_message_has_every_documented_field() -> None:
    assert sent_verdict(a_verdict(Decision.REJECT, result=RESULT)) == {
        "schema": "rejectd.verdict.v1",
        "event_id": "run-a-7",
        "line": "l",
        "camera": "a",
        "product": "cell",
        "seq": 7,
        "trigger": 112,
        "views": None,
        "decision": "reject",
        "cause": None,
        "action": "reject",
        "captured_at": "2023-11-14T22:13:20.123456Z",
        "valid_until": "2023-11-14T22:13:20.323456Z",
        "latency_ms": 12.346,
        "score": 1.25,
        "score_max": 0.75,
        "threshold": 0.5,
        "p_value": 0.01,
        "bundle": "abc",
        "engine": "torch-cpu-float32",
        "engine_ms": 12.346,
        "source": None,
        "detail": None,
    }


def test_the_verdict_of_a_part_names_its_views_in_the_order_of_their_arrival() -> None:
    views = ("run-b-3", "run-a-9")
    assert sent_verdict(a_verdict(Decision.PASS, result=RESULT, views=views))["views"] == list(views)


def test_a_defect_event_is_its_verdict_and_says_where_the_defects_and_the_evidence_are() -> None:
    verdict = verdict_payload("l", a_verdict(Decision.REJECT, result=RESULT))
    made = defect_payload(verdict, evidence="d/e.png", regions=[[1, 2, 3, 4]])
    payload = sent(defect_topic("l", "a"), made | {"event_seq": 1})
    added = {"regions": [[1, 2, 3, 4]], "evidence": "d/e.png", "event_seq": 1}
    assert payload == verdict | {"schema": "rejectd.defect.v1"} | added
    assert defect_payload(verdict, evidence="", regions=[])["evidence"] is None
    assert verdict["schema"] == "rejectd.verdict.v1", "the verdict itself is not changed"


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("cause", Cause)
def test_an_unjudged_part_says_why_and_what_to_do_and_has_no_score(policy: Policy, cause: Cause) -> None:
    payload = sent_verdict(a_verdict(Decision.UNJUDGED, policy=policy, cause=cause, detail="dark", source="7.png"))
    assert (payload["decision"], payload["cause"], payload["action"]) == ("unjudged", cause.value, policy.value)
    assert (payload["detail"], payload["source"]) == ("dark", "7.png")
    assert [payload[name] for name in ("score", "threshold", "p_value", "bundle", "engine", "engine_ms")] == [None] * 6


@given(captured=st.integers(1_500_000_000_000_000_000, 2_500_000_000_000_000_000), deadline_ms=st.integers(10, 600_000))
def test_a_verdict_is_valid_until_exactly_its_deadline(captured: int, deadline_ms: int) -> None:
    verdict = a_verdict(Decision.PASS, result=RESULT, captured_unix_ns=captured, deadline_ms=deadline_ms)
    payload = verdict_payload("l", verdict)
    valid = datetime.fromisoformat(payload["valid_until"]) - datetime.fromisoformat(payload["captured_at"])
    assert valid == timedelta(milliseconds=deadline_ms)


@given(source=st.text(), detail=st.text())
def test_whatever_a_file_is_called_its_verdict_is_text_that_every_reader_takes(source: str, detail: str) -> None:
    verdict = a_verdict(Decision.UNJUDGED, cause=Cause.CAMERA_FAULT, source=source, detail=detail)
    payload = sent_verdict(verdict)
    assert payload["source"] == (source or None)
    assert payload["detail"] == (detail or None)


def test_a_file_name_that_is_not_utf_8_is_sent_as_text_that_every_reader_takes() -> None:
    name = b"left_\xff.png".decode("utf-8", "surrogateescape")  # as the kernel's names come to us
    verdict = a_verdict(Decision.UNJUDGED, cause=Cause.CAMERA_FAULT, source=name, detail=f"{name}: the file is empty")
    payload = sent_verdict(verdict)
    for text in (payload["source"], payload["detail"]):
        text.encode()  # what UTF-8 cannot say no database and no strict reader takes
        assert text.startswith("left_")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_sent(number: float) -> None:
    result = Result(score=number, threshold=0.5, p_value=0.1, bundle="b", engine="e")
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(verdict_payload("l", a_verdict(Decision.REJECT, result=result)))


def a_status(parts: Account | None = None) -> LineStatus:
    return LineStatus(
        run="r",
        version="1.0",
        account=Account(captured=10, passed=5, rejected=2, unjudged=1, in_flight=2),
        parts=parts,
        unpublished=3,
        judging=True,
        problems=["camera a is down: no link"],
        products={"a": "cell"},
        paused=["b"],
    )


def test_the_status_of_a_line_has_the_account_and_what_a_person_should_know() -> None:
    assert sent(line_topic("l"), line_payload("l", "online", a_status(), 0)) == {
        "schema": "rejectd.line.v1",
        "line": "l",
        "run": "r",
        "state": "online",
        "version": "1.0",
        "at": "1970-01-01T00:00:00.000000Z",
        "judging": True,
        "problems": ["camera a is down: no link"],
        "captured": 10,
        "pass": 5,
        "reject": 2,
        "unjudged": 1,
        "in_flight": 2,
        "unpublished": 3,
        "parts": None,
        "products": {"a": "cell"},
        "paused": ["b"],
    }


def test_a_line_with_stations_accounts_for_parts_beside_frames() -> None:
    parts = Account(captured=4, passed=1, rejected=2, unjudged=1, in_flight=0)
    payload = sent(line_topic("l"), line_payload("l", "online", a_status(parts), 0))
    assert payload["parts"] == {"captured": 4, "pass": 1, "reject": 2, "unjudged": 1, "in_flight": 0}
    assert payload["captured"] == 10


def test_the_last_will_is_a_line_status_that_says_offline() -> None:
    assert sent(line_topic("l"), will_payload("l", "r")) == {
        "schema": "rejectd.line.v1",
        "line": "l",
        "run": "r",
        "state": "offline",
    }


@pytest.mark.parametrize("state", CameraState)
def test_the_status_of_a_camera_says_since_when_and_why(state: CameraState) -> None:
    status = CameraStatus(camera="a", state=state, reason="no light", since_unix_ns=CAPTURED)
    assert sent(camera_topic("l", "a"), camera_payload("l", status)) == {
        "schema": "rejectd.camera.v1",
        "line": "l",
        "camera": "a",
        "state": state.value,
        "reason": "no light",
        "since": "2023-11-14T22:13:20.123456Z",
    }


def test_an_answer_has_a_result_or_an_error_and_the_identity_of_its_request() -> None:
    good = answer_payload("l", "pause", request_id="7", result={"paused": []}, error="", now_unix_ns=0)
    assert sent(answer_topic("l"), good) == {
        "schema": "rejectd.answer.v1",
        "line": "l",
        "command": "pause",
        "request_id": "7",
        "ok": True,
        "error": None,
        "result": {"paused": []},
        "at": "1970-01-01T00:00:00.000000Z",
    }
    bad = answer_payload("l", "launch", request_id=None, result=None, error="no such command; no", now_unix_ns=0)
    payload = sent(f"{answer_topic('l')}/mine", bad)
    assert (payload["ok"], payload["error"], payload["result"]) == (False, "no such command; no", None)


def test_topics_are_those_of_the_contract() -> None:
    assert line_topic("l") == "rejectd/v1/l/status"
    assert camera_topic("l", "a") == "rejectd/v1/l/a/status"
    assert [verdict_topic("l", "a", decision) for decision in Decision] == [
        "rejectd/v1/l/a/verdict/pass",
        "rejectd/v1/l/a/verdict/reject",
        "rejectd/v1/l/a/verdict/unjudged",
    ]
    assert defect_topic("l", "a") == "rejectd/v1/l/a/defect"
    assert command_topic("l", "pause") == "rejectd/v1/l/command/pause"
    assert answer_topic("l") == "rejectd/v1/l/answer"
    assert actuator_topic("l", "a") == "rejectd/v1/l/actuator/a/rejected"


@pytest.mark.parametrize("decision", Decision)
def test_a_known_picture_never_speaks_on_a_topic_that_an_ejector_hears(decision: Decision) -> None:
    topic = verdict_topic("l", GOLDEN, decision)
    assert topic == f"rejectd/v1/l/command/golden/verdict/{decision}"
    ejector = ["rejectd", "v1", "l", "+", "verdict", "+"]
    levels = topic.split("/")
    assert not (len(levels) == len(ejector) and all(want in ("+", is_) for want, is_ in zip(ejector, levels)))  # noqa: B905


def _bodies() -> dict[str, dict[str, Any]]:
    """By topic: one of each kind with long texts and lists."""
    reject = a_verdict(
        Decision.REJECT, result=RESULT, views=tuple(f"run-a-{n}" for n in range(40)), source="ü" * 200, detail="x" * 300
    )
    defect = defect_payload(verdict_payload("l", reject), evidence="d/" + "e" * 90, regions=[[1, 2, 3, 4]] * 16)
    down = CameraStatus(camera="a", state=CameraState.DOWN, reason="no light " * 50, since_unix_ns=CAPTURED)
    line = line_payload("l", "online", a_status(), CAPTURED)
    refused = answer_payload("l", "pause", request_id="7", result=None, error="y" * 500, now_unix_ns=0)
    return {
        verdict_topic("l", "a", Decision.REJECT): verdict_payload("l", reject),
        defect_topic("l", "a"): defect | {"event_seq": 1},
        camera_topic("l", "a"): camera_payload("l", down),
        line_topic("l"): line | {"problems": ["camera a is down: " + "z" * 100] * 9},
        f"{answer_topic('l')}/me": refused,
    }


@pytest.mark.parametrize("topic", _bodies())
def test_a_body_that_is_too_large_loses_texts_and_lists_keeps_what_counts_and_what_the_schema_says(topic: str) -> None:
    whole = _bodies()[topic]
    body = encode(whole)
    assert shortened(body, len(body)) == body, "what fits is left alone"
    least = shortest = len(body)
    for most in range(len(body) - 1, 0, -7):
        short = shortened(body, most)
        if short is None:
            break
        assert len(short) <= most
        contract.validate(topic, short)
        shortest = len(short)
    lost = {name for name, value in json.loads(shortened(body, shortest) or b"").items() if value != whole[name]}
    assert lost <= {"detail", "source", "views", "regions", "problems", "evidence", "reason", "error"}
    assert shortest < least * 0.8
    assert shortened(body, 100) is None


def test_only_as_much_is_lost_as_must_be() -> None:
    body = encode(verdict_payload("l", a_verdict(Decision.REJECT, result=RESULT, detail="x" * 1000, source="7.png")))
    short = json.loads(shortened(body, len(body) - 1) or b"")
    assert (len(short["detail"]), short["source"]) == (500, "7.png")
