"""rejectd.contract.schemas and rejectd.contract.asyncapi: what config/mqtt promises is what the service says and
takes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import contract
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from peers import need_peer
from pydantic import TypeAdapter, ValidationError

from rejectd.contract import asyncapi, bodies, payloads, requests, results, schemas
from rejectd.contract.fields import Group
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
from rejectd.contract.requests import REQUESTS, RequestError

NOW = 1_795_000_000_123_456_789
RESULT = Result(score=1.25, threshold=0.5, p_value=0.01, bundle="abc", engine="torch-cpu-float32", engine_ns=7_000_000)
ACCOUNT = Account(captured=7, passed=3, rejected=2, unjudged=1, in_flight=1)
STATUS = payloads.LineStatus(
    run="20261125T060000-abc123",
    version="0.1.0",
    account=ACCOUNT,
    parts=None,
    unpublished=0,
    judging=True,
    problems=[],
    products={"left": "cell"},
    paused=[],
)
PICTURE = {
    "product": "cell", "kind": "good", "expected": 0.25, "score": 0.25, "decision": "pass", "latency_ms": 12.5,
    "right": ["pass"], "good": True,
}  # fmt: skip
RESULTS: dict[str, dict[str, Any]] = {
    "product": {
        "cameras": {"left": {"before": "cell", "after": "wafer"}}, "bundle": "abc", "golden": [PICTURE],
        "threshold": {"before": 0.75, "after": 0.5, "calibrated": 0.5, "source": "calibration", "why": "it has ended"},
    },
    "threshold": {"product": "cell", "before": 0.5, "after": 0.75, "calibrated": 0.5, "doubt": None},
    "pause": {"paused": ["left", "right"]},
    "resume": {"paused": []},
    "golden": {"pictures": [PICTURE, PICTURE | {"kind": "scratch", "score": None, "latency_ms": None, "good": False}]},
    "snapshot": {
        "camera": "left", "captured_at": "2026-11-25T06:00:00.000000Z", "source": None, "width": 300, "height": 200,
        "evidence": "2026-11-25/snapshot.png", "jpeg": "/9j/4AAQ",
    },
    "replay": {"events": 3, "from_seq": 17, "to_seq": 19},
}  # fmt: skip
EXAMPLES: dict[str, dict[str, Any]] = {
    "product": {"product": "cell", "cameras": ["left"], "bundle": "cell-2", "request_id": "shift 3"},
    "threshold": {"product": "cell", "threshold": 0.75},
    "pause": {"cameras": ["left"], "action": "pass"},
    "resume": {},
    "golden": {"product": None},
    "snapshot": {"camera": "left"},
    "replay": {"from_seq": 17, "to_seq": 19, "since": "2026-11-25T06:00Z", "until": "2026-11-25T06:00:00.5+01:00"},
}


def a_verdict(decision: Decision, *, camera: str = "left", cause: Cause | None = None, **changed: Any) -> Verdict:
    result = None if decision is Decision.UNJUDGED else RESULT
    made = Verdict(
        event_id=f"run-{camera}-7",
        camera=camera,
        product="cell",
        seq=7,
        trigger=0,
        captured_ns=5_000_000_000,
        captured_unix_ns=NOW,
        deadline_ns=5_200_000_000,
        decided_ns=5_050_000_000,
        decision=decision,
        policy=Policy.STOP,
        cause=cause,
        result=result,
    )
    return dataclasses.replace(made, **changed)


VERDICTS = [
    a_verdict(Decision.PASS),
    a_verdict(Decision.REJECT, source="0007.png"),
    a_verdict(Decision.REJECT, camera="station", views=("run-left-7", "run-right-7")),
    a_verdict(Decision.PASS, camera=GOLDEN, source="good"),
    *(
        a_verdict(Decision.UNJUDGED, cause=cause, detail="why", policy=policy)
        for cause in Cause
        for policy in (Policy.REJECT, Policy.PASS)
    ),
]


def verdict_message(verdict: Verdict) -> tuple[str, dict[str, Any]]:
    topic = payloads.verdict_topic("line1", verdict.camera, verdict.decision)
    return topic, payloads.verdict_payload("line1", verdict)


def defect_message(verdict: Verdict) -> tuple[str, dict[str, Any]]:
    """As the outbox sends it: with its number."""
    body = payloads.verdict_payload("line1", verdict)
    regions = [[10, 20, 30, 40]] if verdict.decision is Decision.REJECT else []
    evidence = "2026-11-25/run-left-7.png" if regions else ""
    defect = payloads.defect_payload(body, evidence=evidence, regions=regions) | {"event_seq": 17}
    return payloads.defect_topic("line1", verdict.camera), defect


def line_message(state: str = "online", **changed: Any) -> tuple[str, dict[str, Any]]:
    status = dataclasses.replace(STATUS, **changed)
    return payloads.line_topic("line1"), payloads.line_payload("line1", state, status, NOW)


def answer_message(
    command: str, result: dict[str, Any] | None, error: str = "", topic: str = payloads.answer_topic("line1")
) -> tuple[str, dict[str, Any]]:
    body = payloads.answer_payload("line1", command, request_id="shift 3", result=result, error=error, now_unix_ns=NOW)
    return topic, body


def camera_message(state: CameraState, reason: str) -> tuple[str, dict[str, Any]]:
    status = CameraStatus(camera="left", state=state, reason=reason, since_unix_ns=NOW)
    return payloads.camera_topic("line1", "left"), payloads.camera_payload("line1", status)


MESSAGES = [
    *map(verdict_message, VERDICTS),
    *(defect_message(verdict) for verdict in VERDICTS if verdict.decision is not Decision.PASS),
    line_message(),
    line_message("offline", parts=ACCOUNT, judging=False, problems=["camera left is down: gone"], paused=["left"]),
    (payloads.line_topic("line1"), payloads.will_payload("line1", "run")),
    *(camera_message(state, "it is gone; look at the cable") for state in CameraState),
    camera_message(CameraState.UP, ""),
    *(answer_message(command, result) for command, result in RESULTS.items()),
    answer_message("golden", RESULTS["golden"], "the scratch picture of cell was not judged"),
    answer_message("product", None, "there is no product 'x'; known products: cell", "rejectd/v1/line1/answer/mine/1"),
    answer_message("make-coffee", None, "there is no command 'make-coffee'"),
    *((payloads.command_topic("line1", command), example) for command, example in EXAMPLES.items()),
    (payloads.actuator_topic("line1", "left"), {"count": 12}),
]


def validate(topic: str, body: Any) -> None:
    contract.validate(topic, json.dumps(body).encode())


def is_valid(topic: str, body: Any) -> bool:
    try:
        validate(topic, body)
    except contract.ContractError:
        return False
    return True


def is_valid_for_the_model(topic: str, body: Any) -> bool:
    """Whether the models, from which the schemas are generated, take a message."""
    name = contract.schema_of(topic)
    try:
        TypeAdapter(bodies.MESSAGES[name]).validate_json(json.dumps(body))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("topic", "body"), MESSAGES)
def test_what_the_service_says_and_takes_is_as_promised(topic: str, body: dict[str, Any]) -> None:
    validate(topic, body)
    assert is_valid_for_the_model(topic, body)


BODIES: dict[str, type[Group]] = {
    "rejectd.verdict.v1": bodies.VerdictBody,
    "rejectd.defect.v1": bodies.DefectBody,
    "rejectd.camera.v1": bodies.CameraBody,
    "rejectd.line.v1": bodies.LineBody,
    "rejectd.answer.v1": bodies.AnswerBody,
}


@pytest.mark.parametrize(("topic", "body"), [message for message in MESSAGES if "schema" in message[1]])
def test_what_payloads_builds_without_a_model_has_the_fields_of_its_model(topic: str, body: dict[str, Any]) -> None:
    model = bodies.WillBody if "judging" not in body and "state" in body and "run" in body else BODIES[body["schema"]]
    model.model_validate_json(json.dumps(body))
    assert set(body) == {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize(("command", "result"), RESULTS.items())
def test_the_result_of_a_command_has_the_fields_of_its_model(command: str, result: dict[str, Any]) -> None:
    results.RESULTS[command].model_validate_json(json.dumps(result))
    with pytest.raises(ValidationError):
        results.RESULTS[command].model_validate_json(json.dumps(result | {"colour": "red"}))


@pytest.mark.parametrize(("topic", "body"), MESSAGES)
def test_a_field_that_is_unknown_or_of_another_type_is_not_as_promised(topic: str, body: dict[str, Any]) -> None:
    assert not is_valid(topic, body | {"colour": "red"})
    for name, value in body.items():
        other = {"not": "this"} if isinstance(value, (str, type(None))) or name == "problems" else "text"
        assert not is_valid(topic, body | {name: other}), name


@pytest.mark.parametrize(("topic", "body"), [each for each in MESSAGES if "/command/" not in each[0]])
def test_a_field_that_is_missing_is_not_as_promised(topic: str, body: dict[str, Any]) -> None:
    for name in body:
        assert not is_valid(topic, {key: value for key, value in body.items() if key != name}), name


PASSED, REJECTED, UNJUDGED = (
    verdict_message(a_verdict(decision, cause=cause))
    for decision, cause in (
        (Decision.PASS, None),
        (Decision.REJECT, None),
        (Decision.UNJUDGED, Cause.LATE),
    )
)
DEFECT = defect_message(a_verdict(Decision.REJECT))
ANSWERED = answer_message("threshold", RESULTS["threshold"])


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        (PASSED, {"action": "reject"}),
        (REJECTED, {"action": "pass"}),
        (PASSED, {"cause": "late"}),
        (PASSED, {"score": None}),
        (REJECTED, {"threshold": None}),
        (REJECTED, {"engine": None}),
        (UNJUDGED, {"cause": None}),
        (UNJUDGED, {"cause": "bad_mood"}),
        (UNJUDGED, {"action": "jump"}),
        (PASSED, {"p_value": 1.5}),
        (PASSED, {"seq": 0}),
        (PASSED, {"seq": 7.5}),
        (PASSED, {"views": []}),
        (PASSED, {"line": "line 1"}),
        (PASSED, {"captured_at": "2026-11-25 06:00:00"}),
        (PASSED, {"captured_at": "2026-13-25T06:00:00.000000Z"}),
        (PASSED, {"captured_at": "2026-11-25T06:00:00.000000Z\n"}),
        (DEFECT, {"event_seq": 0}),
        (DEFECT, {"regions": [[1, 2, 3]]}),
        (DEFECT, {"regions": [[-1, 2, 3, 4]]}),
        (DEFECT, {"decision": "pass", "action": "pass"}),
        (DEFECT, {"schema": "rejectd.verdict.v1"}),
        (line_message(), {"state": "asleep"}),
        (line_message(), {"captured": -1}),
        (line_message(), {"products": {"a camera": "cell"}}),
        (line_message(), {"parts": {"captured": 1}}),
        ((payloads.line_topic("line1"), payloads.will_payload("line1", "run")), {"state": "online"}),
        ((payloads.line_topic("line1"), payloads.will_payload("line1", "run")), {"judging": True}),
        (camera_message(CameraState.DOWN, "gone"), {"reason": None}),
        (ANSWERED, {"error": "but"}),
        (ANSWERED, {"ok": False}),
        (ANSWERED, {"result": None}),
        (ANSWERED, {"result": RESULTS["pause"]}),
        (ANSWERED, {"command": "make-coffee"}),
        ((payloads.actuator_topic("line1", "left"), {"count": 1}), {"count": -1}),
    ],
)
def test_what_contradicts_itself_is_not_as_promised(
    message: tuple[str, dict[str, Any]], changed: dict[str, Any]
) -> None:
    topic, body = message
    validate(topic, body)
    assert not is_valid(topic, body | changed)
    assert is_valid_for_the_model(topic, body)
    assert not is_valid_for_the_model(topic, body | changed)


def test_the_topic_and_the_body_say_the_same() -> None:
    body = PASSED[1]
    for topic in ("line2/left/verdict/pass", "line1/right/verdict/pass", "line1/left/verdict/reject"):
        with pytest.raises(contract.ContractError, match=f"rejectd/v1/{topic}: "):
            validate(f"rejectd/v1/{topic}", body)
    for topic in (
        "rejectd/v1/line1/left/verdict/maybe",
        "rejectd/v2/line1/status",
        "rejectd/v1/line1/command/golden/x",
    ):
        with pytest.raises(contract.ContractError, match="there is no such topic"):
            validate(topic, body)


def test_only_the_service_writes_what_is_from_the_service() -> None:
    for topic, _ in MESSAGES:
        ours = re.search(r"/(status|defect|answer|verdict)(/|$)", topic) is not None
        assert contract.is_from_service(topic) == ours, topic
    assert not contract.is_from_service("rejectd/v1/line1/command/make-coffee")
    assert contract.is_from_service("rejectd/v1/line1/else")


@pytest.mark.parametrize("body", [b"", b"{", b'{"count": 1, "count": 2}', b'{"count": NaN}', b"\xff", b"1.5", b"true"])
def test_what_is_no_json_or_no_count_is_not_as_promised(body: bytes) -> None:
    with pytest.raises(contract.ContractError, match="actuator"):
        contract.validate(payloads.actuator_topic("line1", "left"), body)


def test_a_plc_may_publish_its_count_as_a_number_alone_and_a_command_without_fields_may_have_no_body() -> None:
    contract.validate(payloads.actuator_topic("line1", "left"), b"12")
    contract.validate(payloads.command_topic("line1", "resume"), b"")


_TEXTS = st.sampled_from(
    ["cell", "a b", "", " ", "\n", "cell\n", "2026-11-25T06:00Z", "reject", "stop", "x" * 201, "ä"]
)
_VALUES = st.one_of(
    st.none(),
    st.integers(-2, 2**54),
    st.floats(-1, 2000).filter(lambda value: not value.is_integer()),  # 1.0 is a whole number to JSON Schema alone
    st.booleans(),
    _TEXTS,
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=5),
    st.lists(st.sampled_from(["left", "right", ""]), max_size=3),
    st.dictionaries(_TEXTS, st.none(), max_size=1),
)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A request of which some fields are right."""
    command = draw(st.sampled_from(list(REQUESTS)))
    names = list(REQUESTS[command].model_fields)
    wild = draw(st.dictionaries(st.sampled_from([*names, "colour"]), _VALUES, max_size=2))
    known = {name: value for name, value in EXAMPLES[command].items() if draw(st.booleans())}
    return command, known | wild


@hypothesis_settings(deadline=None)
@given(_requests())
def test_a_request_is_as_promised_if_and_only_if_it_is_taken(request: tuple[str, dict[str, Any]]) -> None:
    command, body = request
    try:
        requests.parse(command, json.dumps(body).encode())
    except RequestError:
        taken = False
    else:
        taken = True
    assert is_valid(payloads.command_topic("line1", command), body) == taken


@st.composite
def _changed_messages(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A message of which a field or two are changed, taken from another message, or missing."""
    topic, body = draw(st.sampled_from(MESSAGES))
    _, other = draw(st.sampled_from(MESSAGES))
    names = st.sets(st.sampled_from([*body, "colour"]), max_size=2)
    wild = {name: draw(_VALUES) for name in draw(names)}
    borrowed = {name: other[name] for name in draw(names) if name in other}
    missing = draw(names) if draw(st.booleans()) else set()
    return topic, {name: value for name, value in (body | borrowed | wild).items() if name not in missing}


@hypothesis_settings(deadline=None)
@given(_changed_messages())
def test_a_model_and_the_schema_that_comes_from_it_take_the_same_messages(message: tuple[str, dict[str, Any]]) -> None:
    assert contract.fits(*message) == is_valid_for_the_model(*message)


@pytest.mark.parametrize("command", REQUESTS)
def test_the_schema_of_a_request_has_the_words_of_its_declaration(command: str) -> None:
    schema = schemas.request(command)
    fields = REQUESTS[command].model_fields
    assert list(schema["properties"]) == list(fields)
    assert set(schema["required"]) == {name for name, field in fields.items() if field.is_required()}
    for name, field in fields.items():
        assert schema["properties"][name]["description"].startswith(field.description)


def test_every_schema_is_one_in_its_own_draft_and_in_draft_7_and_explains_every_field() -> None:
    for name, schema in schemas.schemas().items():
        Draft202012Validator.check_schema(schema)
        Draft7Validator.check_schema(schema)
        assert schema["title"] == name
        for field, about in schema.get("properties", {}).items():
            assert "description" in about or "const" in about, f"{name}: {field}"


def test_every_topic_message_and_command_is_in_the_asyncapi_document() -> None:
    document = yaml.safe_load((contract.MQTT / "asyncapi.yaml").read_text())
    assert document == json.loads(json.dumps(asyncapi.document()))
    addresses = {channel["address"] for channel in document["channels"].values()}
    line, camera = "{line}", "{camera}"
    assert addresses == {
        None,
        payloads.line_topic(line),
        payloads.camera_topic(line, camera),
        "rejectd/v1/{line}/{camera}/verdict/{decision}",
        "rejectd/v1/{line}/command/golden/verdict/{decision}",
        payloads.defect_topic(line, camera),
        payloads.command_topic(line, "{command}"),
        payloads.answer_topic(line),
        payloads.actuator_topic(line, camera),
    }
    for command in REQUESTS:
        assert document["operations"][command]["action"] == "receive"
        assert document["operations"][command]["reply"]["channel"] == {"$ref": "#/channels/response"}
    used = {channel for node in document["channels"].values() for channel in _messages_of(node)}
    assert used == set(document["components"]["messages"]) == set(schemas.schemas())


def _messages_of(channel: dict[str, Any]) -> set[str]:
    return {message["$ref"].removeprefix("#/components/messages/") for message in channel["messages"].values()}


def _referred(document: Any, reference: dict[str, str]) -> Any:
    """What a reference within the document names."""
    for step in reference["$ref"].removeprefix("#/").split("/"):
        document = document[step]
    return document


def _schema_in_the_document(document: dict[str, Any], topic: str) -> Any:
    """The schema of a topic's only message, found as a generator of code finds it: channel, message, payload."""
    for channel in document["channels"].values():
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", channel["address"] or "(?!)")
        if match := re.fullmatch(pattern, topic):
            command = match.groupdict().get("command")
            name = f"{command}Request" if command else next(iter(channel["messages"]))
            return _referred(document, _referred(document, channel["messages"][name])["payload"])
    raise AssertionError(topic)


@pytest.mark.parametrize(
    ("topic", "body"), [message for message in MESSAGES if "/answer/" not in message[0]], ids=lambda value: ""
)
def test_every_message_is_as_the_asyncapi_document_alone_says(topic: str, body: dict[str, Any]) -> None:
    schema = _schema_in_the_document(yaml.safe_load((contract.MQTT / "asyncapi.yaml").read_text()), topic)
    Draft7Validator(schema).validate(body)
    assert not Draft7Validator(schema).is_valid(body | {"colour": "red"})


def test_the_components_of_the_asyncapi_document_are_the_schemas_beside_it() -> None:
    components = yaml.safe_load((contract.MQTT / "asyncapi.yaml").read_text())["components"]["schemas"]
    files = {
        path.name.partition(".")[0]: json.loads(path.read_text()) for path in (contract.MQTT / "schemas").iterdir()
    }
    heads = ("$schema", "$id", "title")
    assert components == {
        name: {word: value for word, value in schema.items() if word not in heads} for name, schema in files.items()
    }


_CHECK = """
const { Parser, fromFile } = require('@asyncapi/parser');
fromFile(new Parser(), process.argv[2]).parse().then(({ document, diagnostics }) => {
  const faults = diagnostics.filter(each => each.severity < 2).map(each => `${each.path.join('/')}: ${each.message}`);
  console.log(JSON.stringify({ faults, operations: document ? document.operations().all().length : 0 }));
});
"""


@pytest.fixture(scope="module")
def asyncapi_parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parser that AsyncAPI itself publishes."""
    node, npm = shutil.which("node"), shutil.which("npm")
    need_peer(node and npm, "node with npm")
    folder = tmp_path_factory.mktemp("asyncapi")
    (folder / "package.json").write_text("{}")
    (folder / "check.js").write_text(_CHECK)
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "@asyncapi/parser@3.6.3"]
    made = subprocess.run(install, cwd=folder, capture_output=True, timeout=120)
    need_peer(made.returncode == 0, "@asyncapi/parser")
    return folder


def _faults(folder: Path, document: Path) -> tuple[list[str], int]:
    made = subprocess.run(
        ["node", "check.js", document], cwd=folder, capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    return told["faults"], told["operations"]


def test_the_asyncapi_document_is_one_for_the_real_parser(asyncapi_parser: Path, tmp_path: Path) -> None:
    faults, operations = _faults(asyncapi_parser, contract.MQTT / "asyncapi.yaml")
    assert faults == []
    assert operations == len(asyncapi.document()["operations"]) == 14
    broken = (contract.MQTT / "asyncapi.yaml").read_text().replace("action: receive", "action: listen", 1)
    (tmp_path / "asyncapi.yaml").write_text(broken)
    assert _faults(asyncapi_parser, tmp_path / "asyncapi.yaml")[0], "the parser finds what is wrong"


def test_every_example_on_the_page_for_the_plc_is_as_promised() -> None:
    page = (contract.MQTT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^`(rejectd/\S+)`[^\n]*\n+```json\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 4
    for topic, body in examples:
        contract.validate(topic, body.encode())


def test_the_page_for_the_plc_names_every_topic() -> None:
    page = (contract.MQTT / "README.md").read_text(encoding="utf-8")
    topics = [
        payloads.line_topic("LINE"),
        payloads.camera_topic("LINE", "CAMERA"),
        *(payloads.verdict_topic("LINE", "CAMERA", decision) for decision in Decision),
        payloads.defect_topic("LINE", "CAMERA"),
        payloads.command_topic("LINE", "NAME"),
        payloads.answer_topic("LINE"),
        payloads.actuator_topic("LINE", "CAMERA"),
    ]
    for topic in topics:
        assert topic.removeprefix("rejectd/v1/LINE/") in page, topic
