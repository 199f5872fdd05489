"""The schema of a bundle's manifest: it came from a file, so every value is checked before it is used."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from revdist.data.lots import Block
from revdist.thresholds.conformal import Basis, Guarantee
from revdist.thresholds.outliers import Excluded, Suspect
from revdist.thresholds.pareto_tail import Estimate

_LARGEST = 2**63  # no whole number here is larger; a float cannot hold what has hundreds of digits
_SHOWN = 60  # characters of a wrong value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TeacherId:
    """The teacher that a student was trained with."""

    name: str
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GoldenVector:
    """A prepared picture, and the score that the bundle gives it."""

    file: str  # relative to the bundle
    kind: Literal["good", "scratch"]  # good: a held-out picture; scratch: one with a painted scratch
    score: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskId:
    """The mask of what is not inspected."""

    file: str  # relative to the bundle
    fill: tuple[int, int, int]  # RGB: the colour that masked pixels are painted with


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a score other than the paper's is made of; its tensors lie in a file of the bundle."""

    kind: Literal["combined"]
    pictures: int  # that its statistics are of: good ones, which the student was trained with


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentId:
    """How parts that lie shifted or turned are brought to the reference position."""

    file: str  # the reference, relative to the bundle
    size: tuple[int, int]  # (height, width) of pictures
    area: tuple[int, int, int, int]  # x, y, width, height
    shift_px: float
    angle_deg: float
    scale: float
    quality: float


_CALIBRATION: Mapping[str, Any] = {
    "false_reject_rate": float,
    "guarantee": Guarantee,
    "threshold": float,
    "basis": Basis,
    "attained_rate": float,
    "bound95": float,
    "fingerprint": str,
    "pictures": int,
    "estimate": Estimate | None,
    "blocks": list[Block],
    "suspects": list[Suspect],
    "excluded": list[Excluded],
}
_NEWER: Mapping[str, Any] = {"held_out": list[str], "unconfirmed": list[Excluded]}  # of a calibration; may be missing
_MANIFEST: Mapping[str, Any] = {
    "schema": int,
    "preprocessing": str,
    "product": str,
    "size": tuple[int, int],
    "picture_size": tuple[int, int] | None,
    "recipe": dict[str, Any],
    "pixels": dict[str, str],
    "statistics": dict[str, Any],
    "teacher": TeacherId,
    "fingerprint": str,
    "trained_on": list[str],
    "quality": dict[str, float],
    "versions": dict[str, str],
    "calibrations": dict[str, dict[str, Any]],
    "golden": list[GoldenVector],
    "golden_scores": dict[str, dict[str, float]],
    "mask": MaskId | None,
    "alignment": AlignmentId | None,  # from schema 7 on
    "ranges_from": list[str],
    "score": Score | None,
    "files": dict[str, str],
}
_OPTIONAL: dict[str, Any] = {  # older bundles lack them
    "golden_scores": {},
    "picture_size": None,
    "ranges_from": [],
    "pixels": {},
    "statistics": {},
    "mask": None,
    "alignment": None,
    "score": None,
}


def check(value: Any) -> dict[str, Any]:
    """Check that a JSON value is a manifest, and return it. Raises ValueError that names the wrong place.

    Recipe itself checks a recipe. Further entries of the manifest are left as they are.
    """
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - it came from a file
    whole = _OPTIONAL | value
    for name, hint in _MANIFEST.items():
        _check(_member(whole, name, ""), hint, name)
    for engine, entry in whole["calibrations"].items():
        for name, hint in _CALIBRATION.items():
            _check(_member(entry, name, f"calibrations.{engine}."), hint, f"calibrations.{engine}.{name}")
        for name in _NEWER.keys() & entry.keys():
            _check(entry[name], _NEWER[name], f"calibrations.{engine}.{name}")
    _check_numbers(whole["recipe"], "recipe")
    return whole


def _member(group: Mapping[str, Any], name: str, above: str) -> Any:
    if name not in group:
        raise ValueError(f"{above}{name} is missing")
    return group[name]


def _check(value: Any, hint: Any, place: str) -> None:
    """Raises ValueError unless a JSON value is of this type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        _check_numbers(value, place)
    elif origin is types.UnionType:
        if value is not None:
            _check(value, arguments[0], place)
    elif origin is Literal:
        _expect(value in arguments, value, place)
    elif origin is dict:
        _expect(isinstance(value, dict), value, place)
        for name, inner in value.items():
            _check(inner, arguments[1], f"{place}.{name}")
    elif origin in (list, tuple):
        _expect(isinstance(value, list) and (origin is list or len(value) == len(arguments)), value, place)
        for index, inner in enumerate(value):
            _check(inner, arguments[0], f"{place}[{index}]")
    elif dataclasses.is_dataclass(hint):
        _check_group(value, hint, place)
    elif hint is float:
        _expect(_is_number(value), value, place)
    elif hint is int:
        _expect(_is_number(value) and isinstance(value, int), value, place)
    else:
        _expect(isinstance(value, hint), value, place)


def _check_group(value: Any, hint: Any, place: str) -> None:
    """Check that a JSON object has the fields of a dataclass, neither fewer nor more."""
    fields = typing.get_type_hints(hint)
    _expect(isinstance(value, dict) and value.keys() == fields.keys(), value, place)
    for name, inner in fields.items():
        _check(value[name], inner, f"{place}.{name}")


def _check_numbers(value: Any, place: str) -> None:
    """Check that all numbers of a value are finite and none is too large."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_numbers(inner, f"{place}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _expect(_is_number(value), value, place)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else -_LARGEST <= value < _LARGEST


def _expect(right: bool, value: Any, place: str) -> None:
    if not right:
        shown = ascii(value) if not isinstance(value, int) or abs(value) < _LARGEST else "a number out of all range"
        raise ValueError(f"{place[:_SHOWN]} cannot be {shown[:_SHOWN]}")
