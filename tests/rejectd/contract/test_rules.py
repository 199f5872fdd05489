"""rejectd.contract.rules: one declaration checks a message and describes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import ValidationError

from rejectd.contract.fields import Group, Said, setting
from rejectd.contract.json_schema import described
from rejectd.contract.rules import Rule, Ruled


class Light(StrEnum):
    GREEN = "green"
    RED = "red"


class Stop(Group):
    """Why there is a stop."""

    seconds: int = setting("For how long.", low=1)


class Signal(Ruled):
    """A signal at the line."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(field="light", values=(Light.RED,), then={"stop": Stop}, otherwise={"stop": None, "why": None}),
        Rule(field="light", values=(Light.GREEN,), then={"speed": Literal["slow", "fast"]}),
    )

    light: Light = setting("Its colour.")
    speed: str = setting("How fast the line runs.")
    stop: dict[str, object] | None = setting("The stop; null without one.")
    why: Said | None = setting("Why.")


class FlashingSignal(Signal):
    """A signal that inherits the rules."""


RED = {"light": "red", "speed": "none", "stop": {"seconds": 3}, "why": "jam"}
GREEN = {"light": "green", "speed": "slow", "stop": None, "why": None}


def _taken(cls: type[Group], body: dict[str, Any]) -> set[bool]:
    """Whether the model and its schema, in both drafts, take a message."""
    try:
        cls.model_validate(body, strict=False)
    except ValidationError:
        taken = False
    else:
        taken = True
    schema = described(cls)
    return {taken, Draft202012Validator(schema).is_valid(body), Draft7Validator(schema).is_valid(body)}


@pytest.mark.parametrize("cls", [Signal, FlashingSignal])
@pytest.mark.parametrize("body", [RED, GREEN, RED | {"why": None}, GREEN | {"speed": "fast"}])
def test_a_message_that_follows_the_rules_is_taken_by_its_model_and_its_schema(
    cls: type[Group], body: dict[str, Any]
) -> None:
    assert _taken(cls, body) == {True}


@pytest.mark.parametrize("cls", [Signal, FlashingSignal])
@pytest.mark.parametrize(
    "body",
    [
        RED | {"stop": None},
        RED | {"stop": {"seconds": 0}},
        RED | {"stop": {"seconds": 3, "colour": "red"}},
        RED | {"why": ""},
        GREEN | {"why": "jam"},
        GREEN | {"stop": {"seconds": 3}},
        GREEN | {"speed": "none"},
    ],
)
def test_a_message_that_breaks_a_rule_is_refused_by_its_model_and_its_schema(
    cls: type[Group], body: dict[str, Any]
) -> None:
    assert _taken(cls, body) == {False}


def test_what_breaks_a_rule_is_named_with_the_field_that_decides() -> None:
    with pytest.raises(ValidationError, match="why does not go with light green: Input should be null"):
        Signal.model_validate_json('{"light": "green", "speed": "slow", "stop": null, "why": "jam"}')
