"""Declares the result in the answer to each command that was carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rejectd.contract.fields import Amount, Duration, Group, Jpeg, Name, Number, Said, Time, setting
from rejectd.contract.messages import Decision


class Change(Group):
    """A changeover of a camera."""

    before: Name | None = setting("The product until now.")
    after: Name = setting("The product from now on.")


class ThresholdChange(Group):
    """What a changeover does to the threshold of its product."""

    before: float = setting("The threshold until now, for the bundle until now.")
    after: float = setting("The threshold from now on.")
    calibrated: float = setting("The threshold that the bundle's calibration gives.")
    source: Literal["order", "settings", "calibration"] = setting("Who says it.")
    why: Said | None = setting("Why the one of an order or of the settings no longer holds; null if none does so.")


class KnownPicture(Group):
    """One known picture."""

    product: Name = setting("The product whose bundle holds it.")
    kind: Literal["good", "scratch"] = setting("A good part, or one with a painted scratch.")
    expected: float = setting("The score that the bundle says.")
    score: float | None = setting("The score that it got; null if it was not judged.")
    decision: Decision = setting("The verdict that it got.")
    latency_ms: Duration | None = setting("Until the broker had the verdict, in ms; null: never.")
    right: list[Literal["pass", "reject"]] = setting(
        "The right verdicts: two where the bundle's own calibration decides otherwise than the kind says."
    )
    good: bool = setting("Whether all is as it should be.")


class ProductResult(Group):
    """Of a changeover."""

    cameras: dict[Name, Change] = setting("What changed, for each camera.")
    bundle: Said = setting("Digest of the bundle that judges from now on.")
    threshold: ThresholdChange = setting("The threshold that judges the product from now on.")
    golden: list[KnownPicture] = setting("The known pictures that were checked before the changeover.")


class ThresholdResult(Group):
    """Of a new threshold."""

    product: Name = setting("The product.")
    before: float = setting("The threshold until now.")
    after: float = setting("The threshold from now on.")
    calibrated: float = setting("The threshold that the calibration gives.")
    doubt: Said | None = setting("What is strange about it; null if nothing is.")


class PausedResult(Group):
    """Of a pause and of its end."""

    paused: list[Name] = setting("Cameras that are paused now.")


class GoldenResult(Group):
    """Of a check with known pictures."""

    pictures: list[KnownPicture] = setting("The known pictures, each through the whole path.")


class SnapshotResult(Group):
    """A picture."""

    camera: Name = setting("The camera.")
    captured_at: Time = setting("Instant of the exposure, UTC.")
    source: Said | None = setting("Where the picture came from, such as the name of a file.")
    width: Number = setting("Width of the picture as captured, in pixels.")
    height: Number = setting("Height of the picture as captured, in pixels.")
    evidence: Said | None = setting("Path of the picture in the evidence folder; null if none is kept.")
    jpeg: Jpeg = setting("The picture, no side longer than 640 pixels.")


class ReplayResult(Group):
    """Of events that are sent once more."""

    events: Amount = setting("How many events are sent once more.")
    from_seq: Number | None = setting("`event_seq` of the first; null if there is none.")
    to_seq: Number | None = setting("`event_seq` of the last; null if there is none.")


RESULTS: Mapping[str, type[Group]] = {
    "product": ProductResult,
    "threshold": ThresholdResult,
    "pause": PausedResult,
    "resume": PausedResult,
    "golden": GoldenResult,
    "snapshot": SnapshotResult,
    "replay": ReplayResult,
}
