"""Builds JSON Schemas from declared fields, with words that draft 7 knows too."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeAlias

from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rejectd.contract.fields import NAME, OWN_WORDS, Group, declared

Schema: TypeAlias = dict[str, Any]

NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string", "minLength": 1}
NULL: Schema = {"type": "null"}
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


def choice(options: Iterable[str]) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": [str(option) for option in options]}


def or_null(schema: Schema) -> Schema:
    """A schema that allows null too."""
    nullable = {**schema, "type": [schema["type"], "null"]}
    return nullable | {"enum": [*schema["enum"], None]} if "enum" in schema else nullable


def when(
    field: str, values: Iterable[Any], then: dict[str, Schema], otherwise: dict[str, Schema] | None = None
) -> Schema:
    """What the other fields must be if a field has one of these values."""
    rule: Schema = {"if": {"properties": {field: {"enum": [_plain(value) for value in values]}}, "required": [field]}}
    return rule | {"then": {"properties": then}} | ({"else": {"properties": otherwise}} if otherwise else {})


def described(cls: type[Group]) -> Schema:
    """An object with the fields that a group declares."""
    schema = cls.model_json_schema(schema_generator=_Generator)
    definitions = schema.pop("$defs", {})
    whole = _inlined(schema, definitions)
    fields = {field.alias or name: field for name, field in cls.model_fields.items()}
    about_them = {name: _about(field, whole["properties"][name]) for name, field in fields.items()}
    return record(about_them) | {"required": whole.get("required", [])}


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

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - a name of pydantic
        return False


def _about(field: FieldInfo, schema: Schema) -> Schema:
    """The schema of a field, with its unit in the description, since JSON Schema has no word for units."""
    about_it = declared(field)
    unit = f" In {about_it.unit}." if about_it.unit else ""
    ordered = {word: schema[word] for word in ("type", *sorted(schema)) if word in schema}
    return {"description": about_it.help + unit} | {
        word: value for word, value in ordered.items() if word not in ("description", "title", *OWN_WORDS)
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


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, StrEnum) else value
