"""Declares the messages of the service field by field. schemas.py turns them into JSON Schemas for other programs.

payloads.py builds the messages as plain dictionaries, since a model for each frame would cost the verdicts' thread too
much time. The tests check these dictionaries against the models.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from rejectd.contract.fields import Amount, Group, Name, setting
from rejectd.contract.messages import CameraState, Cause, Decision, Policy

Said: TypeAlias = Annotated[str, Field(min_length=1)]
Number: TypeAlias = Annotated[int, Field(ge=1)]
Duration: TypeAlias = Annotated[float, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Time: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
        json_schema_extra={"format": "date-time"},
    ),
]
Region: TypeAlias = Annotated[list[Amount], Field(min_length=4, max_length=4)]
Jpeg: TypeAlias = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/jpeg"}),
]


class WillBody(Group):
    """The last will of a line, which nobody is left to say more with."""

    schema_: Literal["rejectd.line.v1"] = setting("Name and version of this schema.", alias="schema")
    line: Name = setting("The line.")
    run: Said = setting("One start of the service. With another `run`, counters and trigger numbers begin again.")
    state: Literal["online", "offline"] = setting(
        "`offline`: take the fail-safe side. `online`: look at `judging` too."
    )


class Counts(Group):
    """How many frames or parts ended how."""

    captured: Amount = setting("Parts of this run: captured = pass + reject + unjudged + in_flight.")
    passed: Amount = setting("Those that passed.", alias="pass")
    reject: Amount = setting("Those that were rejected.")
    unjudged: Amount = setting("Those that could not be judged.")
    in_flight: Amount = setting("Those that have no verdict yet.")


class LineBody(WillBody):
    """The retained status of a line: birth, heartbeat, farewell and last will."""

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


class CameraBody(Group):
    """The retained status of a camera."""

    schema_: Literal["rejectd.camera.v1"] = setting("Name and version of this schema.", alias="schema")
    line: Name = setting("The line.")
    camera: Name = setting("The camera or station; a station is as its worst camera.")
    state: CameraState = setting("`up` is well; `ended` is a finished replay. Else see `reason`.")
    reason: Said | None = setting("Why, and what to do; null if there is nothing to say.")
    since: Time = setting("Since when, UTC.")


class VerdictBody(Group):
    """The one end of a frame, or of a part of a station."""

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


class AnswerBody(Group):
    """The answer to a command: a result, or an error that says what to do."""

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
