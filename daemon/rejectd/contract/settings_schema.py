"""Builds the JSON Schema of the settings file, with which an editor completes and checks the file as one types.

The schema is draft 7, since editors know that. Only `rejectd check` checks settings that depend on each other.
"""

from __future__ import annotations

import typing
from enum import StrEnum
from typing import Any

from pydantic.fields import FieldInfo

from rejectd.contract.fields import Group, declared, kind
from rejectd.contract.json_schema import NAMED, Schema, described, sentence
from rejectd.contract.settings import Commands, Settings

FILE = "line.schema.json"


def settings_schema() -> Schema:
    """The schema of the whole settings file."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "The settings of one line of rejectd"}
    return head | _group(Settings)


def _group(cls: type[Group], of_type: str = "") -> Schema:
    """The schema of a group. `of_type`: the value of `type` that marks this type of camera."""
    plain = described(cls)
    fields = {name: _field(field, plain["properties"][name]) for name, field in cls.model_fields.items()}
    if of_type:
        fields = {"type": {"const": of_type, "description": sentence(cls)}, **fields}
    required = [*(["type"] if of_type else []), *plain["required"]]
    return {
        "description": sentence(cls),
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


def _field(field: FieldInfo, plain: Schema) -> Schema:
    setting_type = kind(field)
    about = {"description": plain["description"]}
    if typing.get_origin(setting_type) is dict:
        return about | _named(typing.get_args(setting_type)[1])
    if isinstance(setting_type, type) and issubclass(setting_type, Group):
        return _group(setting_type) | about
    schema = plain | _as_yaml_reads(setting_type, plain)
    if schema.pop("format", "") == "path":
        schema["pattern"] = r"\S"
    if "prefixItems" in schema:  # which draft 7 does not know; all of them are alike
        schema["items"] = schema.pop("prefixItems")[0]
    if declared(field).example:
        schema["examples"] = [declared(field).example]
    if not field.is_required() and field.default is not None:
        schema["default"] = field.default
    return schema


def _as_yaml_reads(wanted: Any, plain: Schema) -> Schema:
    """Widen a schema: an editor may read a text as in `line: 7` as a number, and a word such as `off` as a boolean."""
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        numbers = [int(option) for option in wanted if option.isdigit()]
        truths = [True, False] if wanted is Commands else []
        null = [None] if None in plain["enum"] else []
        words = {"enum": [*map(str, wanted), *numbers, *truths, *null]}
        return words | {"type": [*_types(plain), *["integer"][: len(numbers)], *["boolean"][: len(truths)]]}
    if "string" in _types(plain):
        return {"type": ["string", "number", *_types(plain)[1:]]}
    return {}


def _types(plain: Schema) -> list[str]:
    types: str | list[str] = plain["type"]
    return [types] if isinstance(types, str) else types


def _named(value: Any) -> Schema:
    """The schema of groups by name. If there are several types of groups, `type` says which settings a group has."""
    groups: tuple[type[Group], ...] = typing.get_args(value) or (value,)
    if len(groups) == 1:
        entry = _group(groups[0])
    else:
        types: dict[str, Schema] = {group.type: _group(group, group.type) for group in groups}  # type: ignore[attr-defined]
        entry = {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": list(types), "description": "Where the pictures come from."}},
            "allOf": [
                {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": schema}
                for name, schema in types.items()
            ],
        }
    names = {"pattern": NAMED["pattern"]}
    return {"type": "object", "minProperties": 1, "propertyNames": names, "additionalProperties": entry}
