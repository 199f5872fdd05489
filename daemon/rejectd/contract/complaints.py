"""Describes the mistakes in a group of fields: all of them at once, each with what to do about it."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rejectd.contract.fields import TWICE, Declared, Group, declared, kind

LONGEST = 40  # characters of a wrong value that a message shows
_BOUNDS = ("greater_than_equal", "less_than_equal", "finite_number")
_G = TypeVar("_G", bound=Group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A value as its author wrote it."""

    shown: str  # for people
    raw: str  # a scalar as it was written, a list as [a, b]
    quoted: bool  # the author wrote quotes, so the value is certainly a text
    several: bool  # a list or a group
    as_text: str  # how to write the value as a text in this language (YAML or JSON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One mistake in one field."""

    name: str
    problem: str
    hint: str


def build(cls: type[_G], values: Mapping[str, Any], seen: Callable[[str], Seen]) -> _G | list[Complaint]:
    """The group with these values, or every mistake in them. `seen(name)` gives a value as its author wrote it."""
    unknown = [_unknown(cls, name) for name in values if name not in cls.model_fields]
    try:
        group = cls.model_validate({name: values[name] for name in values if name in cls.model_fields})
    except ValidationError as error:
        first = {str(detail["loc"][0]): _kind(detail) for detail in reversed(error.errors(include_url=False))}
        return [*unknown, *_complaints(cls, {name: first[name] for name in cls.model_fields if name in first}, seen)]
    return unknown or group


def _kind(error: ErrorDetails) -> str:
    """The type of a pydantic error. `missing` inside a field means too few items, not a missing field."""
    return "too_short" if error["type"] == "missing" and len(error["loc"]) > 1 else error["type"]


def _unknown(cls: type[Group], name: str) -> Complaint:
    close = difflib.get_close_matches(name, cls.model_fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(cls.model_fields)}"
    return Complaint(name=name, problem="unknown setting", hint=hint)


def _complaints(cls: type[Group], errors: Mapping[str, str], seen: Callable[[str], Seen]) -> Iterator[Complaint]:
    for name, error in errors.items():
        field = cls.model_fields[name]
        if error == "missing":
            yield Complaint(name=name, problem="is missing", hint=f"add `{name}:`. {declared(field).help}")
            continue
        shown, hint = _refusal(error, field, seen(name))
        yield Complaint(name=name, problem=f"{shown} is not allowed", hint=hint)


def _refusal(error: str, field: FieldInfo, value: Seen) -> tuple[str, str]:
    """The refused value for people, and what to give instead."""
    about, setting_type = declared(field), kind(field)
    if typing.get_origin(setting_type) is tuple:
        return _several(error, setting_type, about, value)
    if value.several:
        return "a group or list", f"give one value. {about.help}"
    if error in _BOUNDS:
        return value.raw[:LONGEST], f"give {about.range()}"
    if setting_type in (int, float):
        number = "a whole number" if setting_type is int else "a number"
        return value.shown, f"give {number}{' without quotes' if value.quoted else ''}, {about.range()}"
    if setting_type is bool:
        return value.shown, "give true or false, without quotes"
    if isinstance(setting_type, type) and issubclass(setting_type, StrEnum):
        return value.shown, f"choose {', '.join(setting_type)}"
    return value.shown, _text_hint(error, about, value)


def _text_hint(error: str, about: Declared, value: Seen) -> str:
    if error == "string_unicode":
        return "it holds half a character; write it out"
    if not value.raw.strip():
        return about.help
    if error in ("string_type", "path_type"):
        return value.as_text or about.help
    return about.pattern_help or about.help


def _several(error: str, wanted: Any, about: Declared, value: Seen) -> tuple[str, str]:
    if error == TWICE:
        return value.raw[:LONGEST], "give each name once"
    if typing.get_args(wanted)[-1] is Ellipsis:
        return value.shown, f"give {about.pattern_help}"
    if error in _BOUNDS:
        return value.raw[:LONGEST], "no number may be negative"
    shown = value.raw[:LONGEST] if value.several and value.raw else value.shown
    return shown, f"give {len(typing.get_args(wanted))} whole numbers, {about.pattern_help}"
