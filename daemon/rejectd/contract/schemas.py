"""The shape of every message as JSON Schema, draft 2020-12. Pure data.

The shape of a request comes from its declaration in `requests`. The shapes of what the service sends stand here; the
tests validate whatever `payloads` makes, and every message of a running line, against them.
"""

from __future__ import annotations

from typing import Any

from rejectd.contract.json_schema import (
    COUNT,
    DURATION,
    FLAG,
    NAMED,
    NULL,
    NUMBER,
    NUMBERED,
    TEXT,
    TIME,
    Schema,
    about,
    by_name,
    choice,
    described,
    listing,
    or_null,
    record,
    titled,
    when,
)
from rejectd.contract.messages import CameraState, Cause, Decision, Policy
from rejectd.contract.requests import REQUESTS


def schemas() -> dict[str, Schema]:
    """Every schema by its name."""
    messages = {
        "line": line(),
        "camera": camera(),
        "verdict": verdict(),
        "defect": defect(),
        "answer": answer(),
        "actuator": actuator(),
    }
    return messages | {f"request-{command}": request(command) for command in REQUESTS}


def line() -> Schema:
    """The line's status. A last will has four fields alone: nobody is left to count."""
    will = {
        "schema": {"const": "rejectd.line.v1"},
        "line": about(NAMED, "The line."),
        "run": about(TEXT, "One start of the service. With another `run`, counters and trigger numbers begin again."),
        "state": about(
            choice(["online", "offline"]), "`offline`: take the fail-safe side. `online`: look at `judging` too."
        ),
    }
    status = {
        "version": about(TEXT, "Version of the service."),
        "at": about(TIME, "When this was written, UTC."),
        "judging": about(FLAG, "Whether parts get their verdicts: none is overdue, no device hangs."),
        "problems": about(listing(TEXT), "What a person should look at; empty if all is well."),
        **_counts("Frames of this run, known pictures too"),
        "unpublished": about(COUNT, "Verdicts that could not be sent before their deadline and never will be."),
        "parts": about(or_null(record(_counts("Parts of this run"))), "The same for stations; null without any."),
        "products": about(by_name(NAMED), "The product of each camera."),
        "paused": about(listing(NAMED), "Cameras that are paused."),
    }
    last_will: Schema = {"maxProperties": len(will), "properties": {"state": {"const": "offline"}}}
    return _message(
        "line",
        "The retained status of a line: birth, heartbeat, farewell and last will.",
        will | status,
        required=list(will),
        anyOf=[{"required": list(status)}, last_will],
    )


def _counts(what: str) -> dict[str, Schema]:
    return {
        "captured": about(COUNT, f"{what}: captured = pass + reject + unjudged + in_flight."),
        "pass": about(COUNT, "Those that passed."),
        "reject": about(COUNT, "Those that were rejected."),
        "unjudged": about(COUNT, "Those that could not be judged."),
        "in_flight": about(COUNT, "Those that have no verdict yet."),
    }


def camera() -> Schema:
    """A camera's status."""
    fields = {
        "schema": {"const": "rejectd.camera.v1"},
        "line": about(NAMED, "The line."),
        "camera": about(NAMED, "The camera or station; a station is as its worst camera."),
        "state": about(choice(CameraState), "`up` is well; `ended` is a finished replay. Else see `reason`."),
        "reason": about(or_null(TEXT), "Why, and what to do; null if there is nothing to say."),
        "since": about(TIME, "Since when, UTC."),
    }
    troubled = when("state", [CameraState.DOWN, CameraState.DEGRADED], {"reason": TEXT})
    return _message("camera", "The retained status of a camera.", fields, allOf=[troubled])


def verdict() -> Schema:
    """The verdict of a frame, or of a part."""
    fields = _verdict_fields() | {"schema": {"const": "rejectd.verdict.v1"}}
    return _message("verdict", "The one end of a frame, or of a part of a station.", fields, allOf=_verdict_rules())


def defect() -> Schema:
    """The record of a reject or of an unjudged part."""
    region = {"type": "array", "items": COUNT, "minItems": 4, "maxItems": 4}
    fields = _verdict_fields() | {
        "schema": {"const": "rejectd.defect.v1"},
        "decision": about(choice([Decision.REJECT, Decision.UNJUDGED]), "How the frame or part ended."),
        "regions": about(
            listing(region),
            "Where the defects are: [x, y, width, height] in pixels of the captured picture, cut to the camera's region"
            " of interest.",
        ),
        "evidence": about(or_null(TEXT), "Path of the picture in the evidence folder; null if none was kept."),
        "event_seq": about(NUMBERED, "Number of the event on the line. A gap means: ask for it with command/replay."),
    }
    return _message(
        "defect",
        "The record of a reject or an unjudged part: its verdict, where the defects are, where the evidence lies. Sent"
        " until the broker has it, so it may come late, and more than once with the same event_id.",
        fields,
        allOf=_verdict_rules(),
    )


def answer() -> Schema:
    """The answer to a command."""
    fields = {
        "schema": {"const": "rejectd.answer.v1"},
        "line": about(NAMED, "The line."),
        "command": about({"type": "string"}, "The command, as its topic names it."),
        "request_id": about(or_null({"type": "string", "maxLength": 200}), "The one of the request."),
        "ok": about(FLAG, "Whether it was carried out."),
        "error": about(or_null(TEXT), "Why not, and what to do; null if it was."),
        "result": about(
            {"type": ["object", "null"]}, "What came of it, in a shape of each command; of a failed golden check too."
        ),
        "at": about(TIME, "When this was written, UTC."),
    }
    rules = [
        when("ok", [True], {"command": choice(REQUESTS), "error": NULL, "result": {"type": "object"}}),
        when("ok", [False], {"error": TEXT}),
        when("command", list(REQUESTS), {}, otherwise={"result": NULL}),
        *(when("command", [command], {"result": or_null(result(command))}) for command in REQUESTS),
    ]
    return _message(
        "answer", "The answer to a command: a result, or an error that says what to do.", fields, allOf=rules
    )


def result(command: str) -> Schema:
    """What the answer to a command that was carried out holds."""
    change = {
        "before": about(or_null(NAMED), "The product until now."),
        "after": about(NAMED, "The product from now on."),
    }
    jpeg = TEXT | {"contentEncoding": "base64", "contentMediaType": "image/jpeg"}
    paused = {"paused": about(listing(NAMED), "Cameras that are paused now.")}
    results = {
        "product": {
            "cameras": about(by_name(record(change)), "What changed, for each camera."),
            "bundle": about(TEXT, "Digest of the bundle that judges from now on."),
            "threshold": about(record(_threshold()), "The threshold that judges the product from now on."),
            "golden": about(listing(_picture()), "The known pictures that were checked before the changeover."),
        },
        "threshold": {
            "product": about(NAMED, "The product."),
            "before": about(NUMBER, "The threshold until now."),
            "after": about(NUMBER, "The threshold from now on."),
            "calibrated": about(NUMBER, "The threshold that the calibration gives."),
            "doubt": about(or_null(TEXT), "What is strange about it; null if nothing is."),
        },
        "pause": paused,
        "resume": paused,
        "golden": {"pictures": about(listing(_picture()), "The known pictures, each through the whole path.")},
        "snapshot": {
            "camera": about(NAMED, "The camera."),
            "captured_at": about(TIME, "Instant of the exposure, UTC."),
            "source": about(or_null(TEXT), "Where the picture came from, such as the name of a file."),
            "width": about(NUMBERED, "Width of the picture as captured, in pixels."),
            "height": about(NUMBERED, "Height of the picture as captured, in pixels."),
            "evidence": about(or_null(TEXT), "Path of the picture in the evidence folder; null if none is kept."),
            "jpeg": about(jpeg, "The picture, no side longer than 640 pixels."),
        },
        "replay": {
            "events": about(COUNT, "How many events are sent once more."),
            "from_seq": about(or_null(NUMBERED), "`event_seq` of the first; null if there is none."),
            "to_seq": about(or_null(NUMBERED), "`event_seq` of the last; null if there is none."),
        },
    }
    return record(results[command])


def actuator() -> Schema:
    """What a PLC says about its ejector."""
    count = about(COUNT, "Parts rejected so far; a smaller number than before means that the PLC began again at 0.")
    return titled("actuator", 'How many parts the PLC has rejected, as {"count": 12} or as the number alone.') | {
        "anyOf": [record({"count": count}), count]
    }


def request(command: str) -> Schema:
    """What a command may hold, from its declaration."""
    cls = REQUESTS[command]
    return titled(f"request-{command}", " ".join((cls.__doc__ or "").split())) | described(cls)


def _verdict_fields() -> dict[str, Schema]:
    """What verdict and defect share."""
    return {
        "schema": TEXT,
        "event_id": about(TEXT, "Identity of this end. The same one twice is a duplicate."),
        "line": about(NAMED, "The line."),
        "camera": about(NAMED, "The camera or station; `golden` for known pictures."),
        "product": about(NAMED, "What the part should be."),
        "seq": about(NUMBERED, "Number of the frame or part, in order of arrival, since the start of the service."),
        "trigger": about(
            COUNT, "Number of the exposure, the same in all cameras of a station. This ties the verdict to a part."
        ),
        "views": about(
            or_null(listing(TEXT) | {"minItems": 1}), "Of a part: the event_id of each frame. Null for a frame."
        ),
        "decision": about(choice(Decision), "How the frame or part ended."),
        "cause": about(or_null(choice(Cause)), "Why it is unjudged; null if it was judged."),
        "action": about(choice(Policy), "What the line should do with the part."),
        "captured_at": about(TIME, "Instant of the exposure, UTC."),
        "valid_until": about(TIME, "The deadline, UTC. A verdict that is read later must be ignored."),
        "latency_ms": about(DURATION, "From exposure to decision, in ms. A part is exposed with its first frame."),
        "score": about(or_null(NUMBER), "Highest value of the anomaly map, without unit. Above threshold: reject."),
        "threshold": about(or_null(NUMBER), "The threshold in force for this frame, in the unit of the score."),
        "p_value": about(
            or_null({"type": "number", "minimum": 0, "maximum": 1}),
            "Share of good parts with such a score or a higher one, from the calibration.",
        ),
        "bundle": about(or_null(TEXT), "Digest of the bundle that judged."),
        "engine": about(or_null(TEXT), "Engine that judged: runtime, device and precision."),
        "engine_ms": about(or_null(DURATION), "How long its batch was on the device, in ms."),
        "source": about(or_null(TEXT), "Where the picture came from, such as the name of a file."),
        "detail": about(or_null(TEXT), "More about the cause, for people."),
    }


def _verdict_rules() -> list[Schema]:
    """A judged frame has its numbers and no cause, and its action follows; an unjudged one has a cause and a policy."""
    numbers = {"score": NUMBER, "threshold": NUMBER, "p_value": NUMBER, "engine_ms": NUMBER}
    judged = {"cause": NULL, **numbers, "bundle": TEXT, "engine": TEXT}
    return [
        when("decision", [Decision.UNJUDGED], {"cause": choice(Cause)}, otherwise=judged),
        when("decision", [Decision.PASS], {"action": {"const": Policy.PASS.value}}),
        when("decision", [Decision.REJECT], {"action": {"const": Policy.REJECT.value}}),
    ]


def _picture() -> Schema:
    """One known picture."""
    return record(
        {
            "product": about(NAMED, "The product whose bundle holds it."),
            "kind": about(choice(["good", "scratch"]), "A good part, or one with a painted scratch."),
            "expected": about(NUMBER, "The score that the bundle says."),
            "score": about(or_null(NUMBER), "The score that it got; null if it was not judged."),
            "decision": about(choice(Decision), "The verdict that it got."),
            "latency_ms": about(or_null(DURATION), "Until the broker had the verdict, in ms; null: never."),
            "right": about(
                listing(choice([Decision.PASS, Decision.REJECT])),
                "The right verdicts: two where the bundle's own calibration decides otherwise than the kind says.",
            ),
            "good": about(FLAG, "Whether all is as it should be."),
        }
    )


def _threshold() -> dict[str, Schema]:
    """What a changeover does to the threshold of its product."""
    return {
        "before": about(NUMBER, "The threshold until now, for the bundle until now."),
        "after": about(NUMBER, "The threshold from now on."),
        "calibrated": about(NUMBER, "The threshold that the bundle's calibration gives."),
        "source": about(choice(["order", "settings", "calibration"]), "Who says it."),
        "why": about(
            or_null(TEXT), "Why the one of an order or of the settings no longer holds; null if none does so."
        ),
    }


def _message(name: str, description: str, fields: dict[str, Schema], **more: Any) -> Schema:
    return titled(name, description) | record(fields) | more
