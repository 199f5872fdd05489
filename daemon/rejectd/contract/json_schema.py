"""Builds JSON Schemas from declared fields, with words that draft 7 knows too."""

from __future__ import annotations

import types
import typing
from enum import StrEnum
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rejectd.contract.fields import NAME, OWN_WORDS, Group, declared

Schema: TypeAlias = dict[str, Any]

NAMED: Schema = {"type": "string", "pattern": f"^{NAME['pattern']}$"}


def titled(name: str, description: str) -> Schema:
    """The head of a schema in a file of its own."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rejectd:{name}:v1",
        "title": name,
        "description": description,
    }


def record(fields: dict[str, Schema]) -> Schema:
    """An object with these fields, all of them required, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def or_null(schema: Schema) -> Schema:
    """A schema that allows null too."""
    nullable = {**schema, "type": [schema["type"], "null"]}
    return nullable | {"enum": [*schema["enum"], None]} if "enum" in schema else nullable


def described(cls: type[Group]) -> Schema:
    """An object with the fields that a group declares."""
    schema = cls.model_json_schema(schema_generator=_Generator)
    definitions = schema.pop("$defs", {})
    whole = _inlined(schema, definitions)
    fields = {field.alias or name: field for name, field in cls.model_fields.items()}
    about_them = {name: _about(field, whole["properties"][name]) for name, field in fields.items()}
    rules = {"allOf": whole["allOf"]} if "allOf" in whole else {}
    return record(about_them) | {"required": whole.get("required", [])} | rules


def described_type(value_type: Any) -> Schema:
    """The schema of one value: of a group, a union, or any other type that pydantic knows."""
    if isinstance(value_type, type) and issubclass(value_type, Group):
        return described(value_type)
    if typing.get_origin(value_type) in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(value_type) if option is not type(None)]
        if len(options) > 1:
            return {"anyOf": [_option(option) for option in options]}
        return or_null(described_type(options[0]))
    schema = TypeAdapter(value_type).json_schema(schema_generator=_Generator)
    return _in_order(_inlined(schema, schema.pop("$defs", {})))


def _option(value_type: Any) -> Schema:
    words = sentence(value_type)
    return ({"description": words} if words else {}) | described_type(value_type)


def sentence(value_type: Any) -> str:
    """What a type is, in the words of its declaration; a union is each of its types."""
    options = typing.get_args(value_type) or (value_type,)
    declared_types = [option for option in options if isinstance(option, type) and issubclass(option, Group)]
    return " ".join(" ".join((option.__doc__ or "").split()) for option in declared_types)


def plain(value: Any) -> Any:
    """A value as JSON holds it."""
    return str(value) if isinstance(value, StrEnum) else value


class _Generator(GenerateJsonSchema):
    """Generates JSON Schema: a field that may be null says so in its type, and nothing has a title or a default."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        return or_null(self.resolve_ref_schema(inner))

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        plain = super().dict_schema(schema)
        for pattern, value in plain.pop("patternProperties", {}).items():
            plain |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
        return plain

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        return value  # in the order of the declarations

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - a name of pydantic
        return False


def _about(field: FieldInfo, schema: Schema) -> Schema:
    """The schema of a field, with its unit in the description, since JSON Schema has no word for units."""
    about_it = declared(field)
    unit = f" In {about_it.unit}." if about_it.unit else ""
    return {"description": about_it.help + unit} | _in_order(schema)


def _in_order(schema: Schema) -> Schema:
    """The words of a schema, its type first, without those that are about people."""
    return {
        word: schema[word]
        for word in ("type", *sorted(schema))
        if word in schema and word not in ("description", "title", *OWN_WORDS)
    }


def _inlined(schema: Any, definitions: dict[str, Schema]) -> Any:
    """A schema with each reference replaced by the schema that it names."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        referred = definitions[schema["$ref"].rpartition("/")[2]]
        return _inlined(
            {word: value for word, value in referred.items() if word not in ("title", "description")}
            | {word: value for word, value in schema.items() if word != "$ref"},
            definitions,
        )
    return {word: _inlined(value, definitions) for word, value in schema.items()}
