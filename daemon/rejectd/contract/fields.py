"""Declares fields: each has its type, sentence, unit and bounds in one place. All checks and descriptions come from it.

Settings and requests are groups of such fields; a group is a pydantic model. complaints.py explains wrong values,
json_schema.py describes a group to other programs, and cli/reference.py describes it to people.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticUndefined

NAME: dict[str, Any] = {"pattern": r"[A-Za-z0-9_-]{1,64}", "pattern_help": "use 1 to 64 letters, digits, - and _"}
FOLDER: dict[str, Any] = {"pattern": r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", "pattern_help": "a folder's name without /"}
HOST: dict[str, Any] = {
    "pattern": r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+(%\w+)?",
    "pattern_help": "a name or address alone, without mqtt:// and port",
}
FEATURE = r"^\s*[A-Za-z_][A-Za-z0-9_:.-]*\s*(=.*)?$"  # of a GenICam camera
OWN_WORDS = ("unit", "pattern_help", "relative", "example")  # our own words about a field, beside JSON Schema's
TWICE = "named_twice"  # the type of our own error in pydantic


class Group(BaseModel):
    """Fields that belong together. A group is frozen, and knows no other fields; a text is no number."""

    # built when first used: `--help` needs none of it
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


def _listed(value: Any) -> Any:
    """Turn a list, as JSON and YAML have it, into a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise PydanticCustomError(TWICE, "a name is given twice")
    return names


def _is_a_time(text: str) -> str:
    datetime.fromisoformat(text)  # raises ValueError
    return text


Text: TypeAlias = Annotated[str, Field(pattern=r"\S")]
Name: TypeAlias = Annotated[str, Field(pattern=f"^{NAME['pattern']}$")]
Amount: TypeAlias = Annotated[int, Field(ge=0)]
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
    AfterValidator(_is_a_time),
]
Jpeg: TypeAlias = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/jpeg"}),
]
Names: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    AfterValidator(_once),
    BeforeValidator(_listed),
    WithJsonSchema(
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True},
    ),
]

Features: TypeAlias = Annotated[  # in this order, and a name may come twice
    tuple[Annotated[str, Field(pattern=FEATURE)], ...],
    Field(min_length=1),
    BeforeValidator(_listed),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": FEATURE}, "minItems": 1}),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a person needs to know about one field."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    pattern_help: str = ""
    relative: bool = False  # a text without :// is a path, relative to the settings file
    example: str = ""  # what the example file shows for a setting without default

    def range(self) -> str:
        """The allowed values in words, empty if there is no bound."""
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}{unit}"
        return f"{self.low:g}{unit} or more" if self.low is not None else self.pattern_help


def setting(
    help: str,  # noqa: A002
    *,
    default: Any = PydanticUndefined,
    low: float | None = None,
    high: float | None = None,
    pattern: str = "",
    alias: str | None = None,
    **more: str | bool,
) -> Any:
    """Declare one field; without `default` it is required.

    Args:
        help: one sentence for people.
        default: the value where none is given.
        low: the smallest value.
        high: the largest value.
        pattern: what the whole text must fit.
        alias: its name in JSON, where that is a word of Python's.
        more: `unit`, `pattern_help`, `relative` and `example`, see `Declared`.
    """
    whole = (f"^(?:{pattern})$" if "|" in pattern else f"^{pattern}$") if pattern else None
    return Field(default, alias=alias, description=help, ge=low, le=high, pattern=whole, json_schema_extra=dict(more))


def declared(field: FieldInfo) -> Declared:
    """The declaration of a field, as given to `setting`."""
    low, high = (
        next((bound for about in field.metadata if (bound := getattr(about, name, None)) is not None), None)
        for name in ("ge", "le")
    )
    extra: Mapping[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    more = {name: extra[name] for name in OWN_WORDS if name in extra}
    return Declared(help=field.description or "", low=low, high=high, **more)


def kind(field: FieldInfo) -> Any:
    """The type of a field's value, without None and without the annotations of the type."""
    options = typing.get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
    field_type = next(option for option in options if option is not type(None))
    return typing.get_args(field_type)[0] if typing.get_origin(field_type) is Annotated else field_type


def is_optional(field: FieldInfo) -> bool:
    """Whether null is a value of the field."""
    return _is_union(field.annotation) and type(None) in typing.get_args(field.annotation)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)
