"""Turns words that a person types as KEY=VALUE into a request, each read by the type that the request declares."""

from __future__ import annotations

import math
import typing
from collections.abc import Collection, Sequence
from typing import Any

import yaml

from rejectd.contract.requests import REQUESTS, RequestError

_NOTHING = ("", "~", "null")


def request(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Turn words into a request. Mistakes that the line itself refuses, such as an unknown key, are let through.

    Raises:
        RequestError: if there is no such command, or a value is not of its kind.
    """
    if command not in REQUESTS:
        raise RequestError(f"there is no command {command[:40]!r}", hint=f"known: {', '.join(REQUESTS)}")
    kinds = typing.get_type_hints(REQUESTS[command])
    return dict(_pair(word, kinds) for word in words)


def check_complete(command: str, typed: Collection[str]) -> None:
    """Check that a request has every required field of its command, before it is sent.

    Raises:
        RequestError: with what it needs, as people type it.
    """
    needed = [name for name, field in REQUESTS[command].model_fields.items() if field.is_required()]
    if not set(typed) >= set(needed):
        words = " ".join(f"{name}={'NUMBER' if name == 'threshold' else 'NAME'}" for name in needed)
        raise RequestError(f"{command} needs {words}")


def _pair(word: str, kinds: dict[str, Any]) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals:
        raise RequestError(f"{word!r} is not KEY=VALUE", hint="such as product=cell")
    if text in _NOTHING:
        return key, None
    allowed = typing.get_args(kinds.get(key, str | None))
    if int in allowed or float in allowed:
        return key, _number(word, text, whole=float not in allowed)
    return key, _texts(word, text)


def _number(word: str, text: str, *, whole: bool) -> float | int:
    try:
        number = int(text) if whole else float(text)
    except ValueError as error:
        hint = "give a whole number" if whole else "give a number such as 0.85"
        raise RequestError(f"{word[:100]!r} is not a number", hint=hint) from error
    if not math.isfinite(number):
        raise RequestError(f"{word!r} is not a finite number", hint="give a number such as 0.85")
    return number


def _texts(word: str, text: str) -> str | list[str]:
    """Read a text as it is, also where YAML would see a time, a number or yes; [left, right] is a list of texts."""
    try:
        value = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - makes texts, lists and mappings alone
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RequestError(f"{word[:100]!r}: the value cannot be read", hint="put it in quotes") from error
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise RequestError(
        f"{word[:100]!r}: the value is no text and no list of texts", hint="such as cameras=[left,right]"
    )
