"""Declares the messages of the service field by field, with the rules by which one field depends on another.

schemas.py turns them into JSON Schemas for other programs.

payloads.py builds the messages as plain dictionaries, since a model for each frame would cost the verdicts' thread too
much time. The tests check these dictionaries against the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from rejectd.contract.fields import Amount, Duration, Group, Name, Number, Said, Share, Time, setting
from rejectd.contract.messages import CameraState, Cause, Decision, Policy
from rejectd.contract.requests import REQUESTS
from rejectd.contract.results import RESULTS
from rejectd.contract.rules import Rule, Ruled

Region: TypeAlias = Annotated[list[Amount], Field(min_length=4, max_length=4)]


class WillBody(Group):
    """The last will of a line, which nobody is left to say more with."""

    schema_: Literal["rejectd.line.v1"] = setting("Name and version of this schema.", alias="schema")
    line: Name = setting("The line.")
    run: Said = setting("One start of the service. With another `run`, counters and trigger numbers begin again.")
    state: Literal["offline"] = setting("Take the fail-safe side.")


class Counts(Group):
    """How many frames or parts ended how."""

    captured: Amount = setting("Parts of this run: captured = pass + reject + unjudged + in_flight.")
    passed: Amount = setting("Those that passed.", alias="pass")
    reject: Amount = setting("Those that were rejected.")
    unjudged: Amount = setting("Those that could not be judged.")
    in_flight: Amount = setting("Those that have no verdict yet.")


class LineBody(WillBody):
    """The retained status of a line: birth, heartbeat and farewell."""

    state: Literal["online", "offline"] = setting(  # type: ignore[assignment]
        "`offline`: take the fail-safe side. `online`: look at `judging` too."
    )
    version: Said = setting("Version of the service.")
    at: Time = setting("When this was written, UTC.")
    judging: bool = setting("Whether parts get their verdicts: none is overdue, no device hangs.")
    problems: list[Said] = setting("What a person should look at; empty if all is well.")
    captured: Amount = setting(
        "Frames of this run, known pictures too: captured = pass + reject + unjudged + in_flight."
    )
    passed: Amount = setting("Those that passed.", alias="pass")
    reject: Amount = setting("Those that were rejected.")
    unjudged: Amount = setting("Those that could not be judged.")
    in_flight: Amount = setting("Those that have no verdict yet.")
    unpublished: Amount = setting("Verdicts that could not be sent before their deadline and never will be.")
    parts: Counts | None = setting("The same for stations; null without any.")
    products: dict[Name, Name] = setting("The product of each camera.")
    paused: list[Name] = setting("Cameras that are paused.")


class CameraBody(Ruled):
    """The retained status of a camera."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(field="state", values=(CameraState.DOWN, CameraState.DEGRADED), then={"reason": Said}),
    )
    schema_: Literal["rejectd.camera.v1"] = setting("Name and version of this schema.", alias="schema")
    line: Name = setting("The line.")
    camera: Name = setting("The camera or station; a station is as its worst camera.")
    state: CameraState = setting("`up` is well; `ended` is a finished replay. Else see `reason`.")
    reason: Said | None = setting("Why, and what to do; null if there is nothing to say.")
    since: Time = setting("Since when, UTC.")


class VerdictBody(Ruled):
    """The one end of a frame, or of a part of a station."""

    # a judged frame has its numbers and no cause, and its action follows; an unjudged one has a cause and a policy
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="decision",
            values=(Decision.UNJUDGED,),
            then={"cause": Cause},
            otherwise={
                "cause": None,
                "score": float,
                "threshold": float,
                "p_value": Share,
                "engine_ms": Duration,
                "bundle": Said,
                "engine": Said,
            },
        ),
        Rule(field="decision", values=(Decision.PASS,), then={"action": Literal[Policy.PASS]}),
        Rule(field="decision", values=(Decision.REJECT,), then={"action": Literal[Policy.REJECT]}),
    )
    schema_: Literal["rejectd.verdict.v1"] = setting("Name and version of this schema.", alias="schema")
    event_id: Said = setting("Identity of this end. The same one twice is a duplicate.")
    line: Name = setting("The line.")
    camera: Name = setting("The camera or station; `golden` for known pictures.")
    product: Name = setting("What the part should be.")
    seq: Number = setting("Number of the frame or part, in order of arrival, since the start of the service.")
    trigger: Amount = setting(
        "Number of the exposure, the same in all cameras of a station. This ties the verdict to a part."
    )
    views: Annotated[list[Said], Field(min_length=1)] | None = setting(
        "Of a part: the event_id of each frame. Null for a frame."
    )
    decision: Decision = setting("How the frame or part ended.")
    cause: Cause | None = setting("Why it is unjudged; null if it was judged.")
    action: Policy = setting("What the line should do with the part.")
    captured_at: Time = setting("Instant of the exposure, UTC.")
    valid_until: Time = setting("The deadline, UTC. A verdict that is read later must be ignored.")
    latency_ms: Duration = setting("From exposure to decision. A part is exposed with its first frame.", unit="ms")
    score: float | None = setting("Highest value of the anomaly map, without unit. Above threshold: reject.")
    score_max: float | None = setting(
        "Highest value of the paper's map, the summed cosine distances, whatever the score is; for comparison."
    )
    threshold: float | None = setting("The threshold in force for this frame, in the unit of the score.")
    p_value: Share | None = setting("Share of good parts with such a score or a higher one, from the calibration.")
    bundle: Said | None = setting("Digest of the bundle that judged.")
    engine: Said | None = setting("Engine that judged: runtime, device and precision.")
    engine_ms: Duration | None = setting("How long its batch was on the device.", unit="ms")
    source: Said | None = setting("Where the picture came from, such as the name of a file.")
    detail: Said | None = setting("More about the cause, for people.")


class DefectBody(VerdictBody):
    """The record of a reject or an unjudged part: its verdict, where the defects are, where the evidence lies. Sent
    until the broker has it, so it may come late, and more than once with the same event_id."""

    schema_: Literal["rejectd.defect.v1"] = setting(  # type: ignore[assignment]
        "Name and version of this schema.", alias="schema"
    )
    decision: Literal["reject", "unjudged"] = setting("How the frame or part ended.")  # type: ignore[assignment]
    regions: list[Region] = setting(
        "Where the defects are: [x, y, width, height] in pixels of the captured picture, cut to the camera's region"
        " of interest."
    )
    evidence: Said | None = setting("Path of the picture in the evidence folder; null if none was kept.")
    event_seq: Number = setting("Number of the event on the line. A gap means: ask for it with command/replay.")


class AnswerBody(Ruled):
    """The answer to a command: a result, or an error that says what to do."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="ok",
            values=(True,),
            then={"command": Literal[tuple(REQUESTS)], "error": None, "result": dict[str, object]},
        ),
        Rule(field="ok", values=(False,), then={"error": Said}),
        Rule(field="command", values=tuple(REQUESTS), otherwise={"result": None}),
        *(
            Rule(field="command", values=(command,), then={"result": result | None})
            for command, result in RESULTS.items()
        ),
    )
    schema_: Literal["rejectd.answer.v1"] = setting("Name and version of this schema.", alias="schema")
    line: Name = setting("The line.")
    command: str = setting("The command, as its topic names it.")
    request_id: Annotated[str, Field(max_length=200)] | None = setting("The one of the request.")
    ok: bool = setting("Whether it was carried out.")
    error: Said | None = setting("Why not, and what to do; null if it was.")
    result: dict[str, object] | None = setting(
        "What came of it, in a shape of each command; of a failed golden check too."
    )
    at: Time = setting("When this was written, UTC.")


class ActuatorBody(Group):
    """How many parts the PLC has rejected, as {"count": 12} or as the number alone."""

    count: Amount = setting("Parts rejected so far; a smaller number than before means that the PLC began again at 0.")


MESSAGES: Mapping[str, Any] = {  # by the name of its schema: the type of a message
    "line": LineBody | WillBody,
    "camera": CameraBody,
    "verdict": VerdictBody,
    "defect": DefectBody,
    "answer": AnswerBody,
    "actuator": ActuatorBody | Amount,
    **{f"request-{command}": request for command, request in REQUESTS.items()},
}
