"""The words of JSON Schema that our messages need, all of them known to draft 7 too, and declarations said in them."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeAlias

from rejectd.contract.declaration import declared
from rejectd.contract.settings import NAME

Schema: TypeAlias = dict[str, Any]

NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string", "minLength": 1}
NULL: Schema = {"type": "null"}
FLAG: Schema = {"type": "boolean"}
NAMED: Schema = {"type": "string", "pattern": f"^{NAME['pattern']}$"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBERED: Schema = {"type": "integer", "minimum": 1}
DURATION: Schema = {"type": "number", "minimum": 0}
TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
}


def titled(name: str, description: str) -> Schema:
    """The head of a schema that is a file of its own."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rejectd:{name}:v1",
        "title": name,
        "description": description,
    }


def record(fields: dict[str, Schema]) -> Schema:
    """An object with these fields, all of them required, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def about(schema: Schema, description: str) -> Schema:
    """The same with a sentence for people."""
    return {"description": description, **schema}


def choice(options: Iterable[str]) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": [str(option) for option in options]}


def listing(item: Schema) -> Schema:
    """Any number of these."""
    return {"type": "array", "items": item}


def by_name(value: Schema) -> Schema:
    """Any number of these, each under a name."""
    return {"type": "object", "propertyNames": {"pattern": NAMED["pattern"]}, "additionalProperties": value}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    nullable = {**schema, "type": [schema["type"], "null"]}
    return nullable | {"enum": [*schema["enum"], None]} if "enum" in schema else nullable


def when(
    field: str, values: Iterable[Any], then: dict[str, Schema], otherwise: dict[str, Schema] | None = None
) -> Schema:
    """What the other fields must be if a field has one of these values."""
    rule: Schema = {"if": {"properties": {field: {"enum": [_plain(value) for value in values]}}, "required": [field]}}
    return rule | {"then": {"properties": then}} | ({"else": {"properties": otherwise}} if otherwise else {})


def declaration(cls: type) -> Schema:
    """An object with the fields that a declared group has."""
    fields = {field.name: _declared(cls, field) for field in dataclasses.fields(cls)}
    return record(fields) | {"required": [each.name for each in dataclasses.fields(cls) if not _has_default(each)]}


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _declared(cls: type, field: dataclasses.Field[Any]) -> Schema:
    """One field: what the parser accepts, said as a schema."""
    hint = typing.get_type_hints(cls)[field.name]
    wanted = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    said = declared(field)
    value: Schema
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        value = choice(wanted)
    elif typing.get_origin(wanted) is tuple:
        value = {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True}
    elif wanted in (int, float):
        value = {"type": "integer" if wanted is int else "number", "minimum": said.low, "maximum": said.high}
    else:
        assert wanted is str, f"{field.name}: say here how {wanted} is said in a schema"
        value = {"type": "string", "pattern": _pattern(said.pattern or "(?s).+")}
    value = {key: bound for key, bound in value.items() if bound is not None}
    unit = f" In {said.unit}." if said.unit else ""
    return about(or_null(value) if wanted is not hint else value, said.help + unit)


def _pattern(whole: str) -> str:
    """A pattern that must fit a whole text, in the words of ECMA 262. The parser takes no blank text."""
    ecma = whole.replace("(?s).", r"[\s\S]")
    not_blank = r"(?=[\s\S]*\S)" if re.fullmatch(ecma, " ") else ""
    return f"^{not_blank}(?:{ecma})$" if "|" in ecma else f"^{not_blank}{ecma}$"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, StrEnum) else value
