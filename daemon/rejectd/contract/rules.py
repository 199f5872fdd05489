"""Declares rules between the fields of a message: its check and the words of its schema come from one rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import GetJsonSchemaHandler, TypeAdapter, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, to_json

from rejectd.contract.fields import Group
from rejectd.contract.json_schema import Schema, described_type, plain


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """While one field has one of some values, other fields are of narrower types than they declare."""

    field: str
    values: tuple[Any, ...]
    then: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # by the name of a field: its type
    otherwise: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # with any other value

    def check(self, group: Group) -> None:
        """Check a group.

        Raises:
            PydanticCustomError: with the field that is not of the narrower type.
        """
        value = getattr(group, self.field)
        for name, narrower in (self.then if value in self.values else self.otherwise).items():
            try:
                TypeAdapter(narrower).validate_json(to_json(getattr(group, name)))
            except ValidationError as error:
                raise PydanticCustomError(
                    "rule",
                    "{name} does not go with {field} {value}: {problem}",
                    {"name": name, "field": self.field, "value": plain(value), "problem": error.errors()[0]["msg"]},
                ) from error

    def schema(self) -> Schema:
        """The rule in the words of JSON Schema."""
        values = [plain(value) for value in self.values]
        condition: Schema = {"if": {"properties": {self.field: {"enum": values}}, "required": [self.field]}}
        branches = {"then": self.then, "else": self.otherwise}
        return condition | {
            branch: {"properties": {name: described_type(narrower) for name, narrower in fields.items()}}
            for branch, fields in branches.items()
            if fields
        }


class Ruled(Group):
    """A group of fields with rules between them."""

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _follows_the_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        return schema | ({"allOf": [rule.schema() for rule in cls.rules]} if cls.rules else {})
