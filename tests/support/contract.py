"""Holds every message to what `config/mqtt` promises, as somebody would who has nothing but that folder."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend

MQTT = Path(__file__).parents[2] / "config" / "mqtt"
_NAME = r"[A-Za-z0-9_-]{1,64}"
_LINE = rf"rejectd/v1/(?P<line>{_NAME})"
_VERDICT = r"verdict/(?P<decision>pass|reject|unjudged)"
_COMMANDS = "|".join(path.name.split(".")[0].partition("-")[2] for path in (MQTT / "schemas").glob("request-*"))
_TOPICS = {  # pattern of the topic: schema
    rf"{_LINE}/status": "line",
    rf"{_LINE}/(?P<camera>{_NAME})/status": "camera",
    rf"{_LINE}/(?P<camera>{_NAME})/{_VERDICT}": "verdict",
    rf"{_LINE}/command/(?P<camera>golden)/{_VERDICT}": "verdict",
    rf"{_LINE}/(?P<camera>{_NAME})/defect": "defect",
    rf"{_LINE}/answer(/.+)?": "answer",
    rf"{_LINE}/actuator/{_NAME}/rejected": "actuator",
    rf"{_LINE}/command/(?P<request>{_COMMANDS})": "request-{request}",
}


class ContractError(AssertionError):
    """A message that nobody was promised."""


def validate(topic: str, body: bytes) -> None:
    """Hold a message to the schema of its topic, and its topic to what it says.

    Raises:
        ContractError: with the topic and the reason.
    """
    schema, said = _schema_of(topic)
    try:
        payload = json.loads(
            body or (b"{}" if schema.startswith("request-") else b""),
            parse_constant=_not_json,
            object_pairs_hook=_each_key_once,
        )
        error = best_match(_validator(schema).iter_errors(payload))
    except (OSError, ValueError) as wrong:
        raise ContractError(f"{topic}: {wrong}: {body[:200]!r}") from wrong
    if error is not None:
        raise ContractError(f"{topic}: {error.json_path}: {error.message}: {body[:2000]!r}")
    for name, value in said.items():
        if payload[name] != value:
            raise ContractError(f"{topic}: {name} is {payload[name]!r} in the body")


def fits(topic: str, payload: Any) -> bool:
    """Whether a body fits the schema of its topic, whatever the topic says beside it."""
    return bool(_validator(schema_of(topic)).is_valid(payload))


def is_from_service(topic: str) -> bool:
    """Whether the service should write this topic: none where others send commands and counts, right or wrong.

    `rejectd check` is not the service, and has topics of its own.
    """
    check = "check/.*|answer/check|command/golden/verdict/check"
    return not re.fullmatch(rf"{_LINE}/(command/[^/]*|actuator/[^/]*/rejected|{check})", topic)


def schema_of(topic: str) -> str:
    """The name of the schema of a topic."""
    return _schema_of(topic)[0]


def _schema_of(topic: str) -> tuple[str, dict[str, str]]:
    """The name of the schema, and what the topic says that the body must say too."""
    for pattern, schema in _TOPICS.items():
        if found := re.fullmatch(pattern, topic):
            said = found.groupdict()
            if schema in ("actuator", "request-{request}"):
                return schema.format(**said), {}
            return schema, said
    raise ContractError(f"{topic}: there is no such topic")


@functools.cache
def _validator(name: str) -> Validator:
    schema = json.loads((MQTT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    validator: Validator = _Strict(schema, format_checker=_FORMATS)
    return validator


def _pattern(_validator: Validator, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """As ECMA 262 has it: the end is the end, also before a new line, and digits are 0 to 9."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance, re.ASCII):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_Strict = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time", ValueError)
def _date_time(instance: object) -> bool:
    return not isinstance(instance, str) or datetime.fromisoformat(instance).tzinfo is not None


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)
