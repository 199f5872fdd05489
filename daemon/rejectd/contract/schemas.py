"""Builds the JSON Schema (draft 2020-12) of every message.

The fields come from the models in requests.py, bodies.py and results.py. This module adds the rules by which one field
depends on another. The tests validate every message that payloads.py builds, and every message of a running line.
"""

from __future__ import annotations

from typing import Any

from rejectd.contract.bodies import ActuatorBody, AnswerBody, CameraBody, DefectBody, LineBody, VerdictBody, WillBody
from rejectd.contract.fields import Group
from rejectd.contract.json_schema import NULL, NUMBER, TEXT, Schema, choice, described, or_null, titled, when
from rejectd.contract.messages import CameraState, Cause, Decision, Policy
from rejectd.contract.requests import REQUESTS
from rejectd.contract.results import RESULTS


def schemas() -> dict[str, Schema]:
    """Every schema by its name."""
    messages = {
        "line": line(),
        "camera": camera(),
        "verdict": _message("verdict", VerdictBody, allOf=_verdict_rules()),
        "defect": _message("defect", DefectBody, allOf=_verdict_rules()),
        "answer": answer(),
        "actuator": actuator(),
    }
    return messages | {f"request-{command}": request(command) for command in REQUESTS}


def line() -> Schema:
    """The line's status, or its last will, which has four fields only: nobody is left to count then."""
    status = _message("line", LineBody)
    will: list[str] = described(WillBody)["required"]
    other_fields = [name for name in status["required"] if name not in will]
    last_will: Schema = {"maxProperties": len(will), "properties": {"state": {"const": "offline"}}}
    return status | {"required": will, "anyOf": [{"required": other_fields}, last_will]}


def camera() -> Schema:
    """A camera's status."""
    troubled = when("state", [CameraState.DOWN, CameraState.DEGRADED], {"reason": TEXT})
    return _message("camera", CameraBody, allOf=[troubled])


def answer() -> Schema:
    """The answer to a command."""
    rules = [
        when("ok", [True], {"command": choice(REQUESTS), "error": NULL, "result": {"type": "object"}}),
        when("ok", [False], {"error": TEXT}),
        when("command", list(REQUESTS), {}, otherwise={"result": NULL}),
        *(when("command", [command], {"result": or_null(result(command))}) for command in REQUESTS),
    ]
    return _message("answer", AnswerBody, allOf=rules)


def result(command: str) -> Schema:
    """The result in the answer to a command that was carried out."""
    return described(RESULTS[command])


def actuator() -> Schema:
    """The count from a PLC's ejector: an object, or only the number."""
    body = described(ActuatorBody)
    return titled("actuator", _sentence(ActuatorBody)) | {"anyOf": [body, body["properties"]["count"]]}


def request(command: str) -> Schema:
    """The request of a command."""
    return _message(f"request-{command}", REQUESTS[command])


def _message(name: str, cls: type[Group], **more: Any) -> Schema:
    return titled(name, _sentence(cls)) | described(cls) | more


def _sentence(cls: type[Group]) -> str:
    return " ".join((cls.__doc__ or "").split())


def _verdict_rules() -> list[Schema]:
    """A judged frame has its numbers and no cause, and its action follows; an unjudged one has a cause and a policy."""
    numbers = {"score": NUMBER, "threshold": NUMBER, "p_value": NUMBER, "engine_ms": NUMBER}
    judged = {"cause": NULL, **numbers, "bundle": TEXT, "engine": TEXT}
    return [
        when("decision", [Decision.UNJUDGED], {"cause": choice(Cause)}, otherwise=judged),
        when("decision", [Decision.PASS], {"action": {"const": Policy.PASS.value}}),
        when("decision", [Decision.REJECT], {"action": {"const": Policy.REJECT.value}}),
    ]
