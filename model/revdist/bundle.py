"""A bundle: the folder that a trained product is. Read, checked, loaded into an engine, and written atomically.

bundle.json           everything that explains the rest, with the SHA-256 of every other file
student.safetensors   weights of bottleneck and decoder, float32
calibration.safetensors   held-out good scores for each engine, float64, ascending
golden/*.png          prepared pictures whose scores are known; scored again whenever the bundle is loaded
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import safetensors.torch
from torch import nn

from revdist import conformal, detector, folders, images
from revdist.conformal import Calibration
from revdist.engine import Engine
from revdist.errors import BundleError, CalibrationError, ImageError, RecipeError
from revdist.recipe import SCALES, Recipe, check_product
from revdist.weights import check_finite

SCHEMA = 3
READABLE = (2, SCHEMA)
MANIFEST = "bundle.json"
STUDENT = "student.safetensors"
CALIBRATION = "calibration.safetensors"
GOLDEN_TOLERANCE = 2e-3  # relative: float32 of one processor against another's; weights mixed up differ by far more
_FOREIGN = "copy or train the bundle again, then `revdist show` it"


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherId:
    """Which teacher a student was trained with."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A prepared picture, and the score that the bundle gives it."""

    file: str  # relative to the bundle
    kind: Literal["good", "scratch"]  # held out of training as it is, or with a painted scratch
    score: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """What a bundle says about itself. `digest` is the SHA-256 of bundle.json, and so of everything."""

    path: Path
    product: str
    size: tuple[int, int]  # (height, width) of the model's input
    recipe: Recipe
    teacher: TeacherId
    fingerprint: str  # of all good pictures that training was given
    trained_on: frozenset[str]  # SHA-256 of each picture that the student has seen: never calibrate with those
    quality: Mapping[str, float]
    versions: Mapping[str, str]
    calibrations: Mapping[str, Calibration]  # by engine identity
    golden: tuple[Golden, ...]
    digest: str

    def calibration(self, engine_identity: str) -> Calibration:
        """The calibration for an engine. Raises CalibrationError that names the command where there is none."""
        if engine_identity in self.calibrations:
            return self.calibrations[engine_identity]
        device = engine_identity.split("-")[1] if engine_identity.count("-") >= 2 else "auto"
        known = ", ".join(self.calibrations) or "none"
        raise CalibrationError(
            f"{self.path}: no calibration for engine {engine_identity}, only for {known}",
            hint=f"make one: revdist calibrate {self.path} --good DIR --false-reject-rate "
            f"{self.recipe.false_reject_rate} --device {device}",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """What a new bundle is made of."""

    product: str
    recipe: Recipe
    teacher: TeacherId
    fingerprint: str
    trained_on: Sequence[str]
    quality: Mapping[str, float]
    versions: Mapping[str, str]
    calibration: Calibration
    golden: Sequence[tuple[Golden, npt.NDArray[np.uint8]]]  # with its prepared picture (h, w, 3)
    student: nn.Module


def read(path: Path) -> Bundle:
    """Read a bundle and check every file by its SHA-256. Raises BundleError that names the file that is wrong."""
    content = _content(path, MANIFEST)
    try:
        manifest = json.loads(content)
        _check_version(path, manifest)
        check_product(manifest["product"])
        files = {name: _checked(path, name, sha256) for name, sha256 in manifest["files"].items()}
        return Bundle(
            path=path,
            product=manifest["product"],
            size=_size(manifest["size"]),
            recipe=_recipe(manifest),
            teacher=TeacherId(**manifest["teacher"]),
            fingerprint=manifest["fingerprint"],
            trained_on=frozenset(manifest["trained_on"]),
            quality=MappingProxyType(manifest["quality"]),
            versions=MappingProxyType(manifest["versions"]),
            calibrations=_calibrations(manifest["calibrations"], files[CALIBRATION]),
            golden=_golden(manifest["golden"], files),
            digest=hashlib.sha256(content).hexdigest(),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecipeError, safetensors.SafetensorError) as error:
        raise BundleError(f"{path / MANIFEST}: not a bundle's manifest: {error!r}", hint=_FOREIGN) from error


def _check_version(path: Path, manifest: dict[str, Any]) -> None:
    if manifest["schema"] not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise BundleError(
            f"{path}: written in schema {manifest['schema']}, this revdist reads {known}",
            hint="use a matching revdist",
        )
    if manifest["preprocessing"] != images.PREPROCESSING:
        raise BundleError(
            f"{path}: made for preprocessing {manifest['preprocessing']!r}, this revdist does {images.PREPROCESSING!r}",
            hint="use a matching revdist, or train it again",
        )


def _recipe(manifest: dict[str, Any]) -> Recipe:
    """Schema 2 had `fusion` in the place of `bottleneck`, and scored in one way. Raises RecipeError."""
    values = dict(manifest["recipe"])
    if manifest["schema"] == 2:
        bottleneck = {True: "full", False: "oce"}[values.pop("fusion")]
        values |= {"bottleneck": bottleneck, "scales": SCALES, "combine": "add"}
    return Recipe.from_json(values)


def _content(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{path / name}: cannot be read: {error.strerror}", hint=_FOREIGN) from error


def _checked(path: Path, name: str, sha256: str) -> bytes:
    """A file's content, if it is what the manifest says. Names must stay inside of the bundle."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or name in ("", MANIFEST):
        raise BundleError(f"{path / MANIFEST}: the file name {name!r} leads out of the bundle", hint="do not use it")
    if not (path / name).resolve().is_relative_to(path.resolve()):
        raise BundleError(f"{path / name}: a link that leads out of the bundle", hint="do not use it")
    content = _content(path, name)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleError(f"{path / name}: differs from the manifest ({len(content)} bytes)", hint=_FOREIGN)
    return content


def _size(value: Sequence[int]) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


def _calibrations(entries: dict[str, dict[str, Any]], content: bytes) -> Mapping[str, Calibration]:
    scores = safetensors.numpy.load(content)
    return MappingProxyType(
        {engine: conformal.restore(scores[engine], entry, engine=engine) for engine, entry in entries.items()}
    )


def _golden(entries: list[dict[str, Any]], files: dict[str, bytes]) -> tuple[Golden, ...]:
    golden = tuple(Golden(**entry) for entry in entries)
    for vector in golden:
        if vector.file not in files or not math.isfinite(vector.score):
            raise ValueError(f"golden vector {vector.file} is not usable")
    return golden


def load(path: Path, engine: Engine, *, product: str | None = None) -> Bundle:
    """Read a bundle, put its student into an engine as `product` (default: its own name) and prove it there.

    The golden pictures are scored on this engine first; a student that was in the place of the product stays until
    then, and stays where the new one fails. Raises BundleError.
    """
    candidate = f"{path}@candidate"
    bundle = place(path, engine, product=candidate)
    try:
        _prove(bundle, engine, candidate)
    except BundleError:
        engine.remove(candidate)
        raise
    engine.rename(candidate, product or bundle.product)
    return bundle


def place(path: Path, engine: Engine, *, product: str) -> Bundle:
    """Read a bundle and put its student into an engine as `product`, unproven: `golden_pictures` are for the proof.

    Raises BundleError, also where the engine has another teacher.
    """
    bundle = read(path)
    if (bundle.teacher.name, bundle.teacher.sha256) != (engine.teacher_name, engine.teacher_sha256):
        raise BundleError(
            f"{path}: trained with teacher {bundle.teacher.name} {bundle.teacher.sha256[:12]}, but the engine has "
            f"{engine.teacher_name} {engine.teacher_sha256[:12]}",
            hint="pass the weights file that it was trained with (--teacher-weights), or train it again",
        )
    engine.add(product, student(bundle), bundle.size, detector.Scoring.of(bundle.recipe))
    return bundle


def student(bundle: Bundle) -> detector.Student:
    """The trained student, loaded strictly. Raises BundleError where the weights do not fit or are not finite."""
    manifest = json.loads(_content(bundle.path, MANIFEST))
    weights = safetensors.torch.load(_checked(bundle.path, STUDENT, manifest["files"][STUDENT]))
    model = detector.Student(bundle.teacher.name, bottleneck=bundle.recipe.bottleneck)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()  # the rest lists every other tensor
        raise BundleError(f"{bundle.path / STUDENT}: does not fit: {first}", hint=_FOREIGN) from error
    check_finite(weights, str(bundle.path / STUDENT), BundleError, hint="train it again")
    return model.eval()


def golden_pictures(bundle: Bundle) -> list[tuple[Golden, npt.NDArray[np.uint8]]]:
    """The known pictures, uint8 (h, w, 3) prepared for the model. Raises BundleError where one cannot be read."""
    try:
        return [(each, images.prepare(images.read(bundle.path / each.file), bundle.size)) for each in bundle.golden]
    except ImageError as error:
        raise BundleError(f"{bundle.path}: golden picture: {error}", hint=_FOREIGN) from error


def _prove(bundle: Bundle, engine: Engine, candidate: str) -> None:
    for vector, pixels in golden_pictures(bundle):
        score = float(engine.inspect([pixels], [candidate]).scores[0])
        if not abs(score - vector.score) <= GOLDEN_TOLERANCE * abs(vector.score):
            raise BundleError(
                f"{bundle.path / vector.file}: scores {score:.6g} on {engine.identity}, expected {vector.score:.6g}",
                hint="this machine computes otherwise than the one that trained; do not use the bundle here",
            )


def write(path: Path, parts: Parts) -> None:
    """Write a bundle in one step, in the place of one that is there. It holds no time: equal parts, equal bytes.

    Raises BundleError where the disk is full or the place is taken by something else; nothing is left behind then.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in parts.student.state_dict().items()}
    files = {STUDENT: safetensors.torch.save(state), CALIBRATION: _scores([parts.calibration])}
    files |= {vector.file: images.encode_png(pixels) for vector, pixels in parts.golden}
    manifest = {
        "schema": SCHEMA,
        "product": parts.product,
        "size": parts.recipe.size,
        "recipe": parts.recipe.to_json(),
        "teacher": dataclasses.asdict(parts.teacher),
        "preprocessing": images.PREPROCESSING,
        "fingerprint": parts.fingerprint,
        "trained_on": sorted(parts.trained_on),
        "quality": dict(parts.quality),
        "versions": dict(parts.versions),
        "calibrations": {parts.calibration.engine: parts.calibration.to_json()},
        "golden": [dataclasses.asdict(vector) for vector, _ in parts.golden],
    }
    _commit(path, manifest, files)


def recalibrate(bundle: Bundle, calibration: Calibration) -> Bundle:
    """Put a calibration into a bundle, in the place of an older one for the same engine; every other byte stays."""
    manifest = json.loads(_content(bundle.path, MANIFEST))
    files = {name: _checked(bundle.path, name, sha256) for name, sha256 in manifest["files"].items()}
    calibrations = {**bundle.calibrations, calibration.engine: calibration}
    files[CALIBRATION] = _scores(list(calibrations.values()))
    manifest["calibrations"] = {engine: each.to_json() for engine, each in calibrations.items()}
    _commit(bundle.path, manifest, files)
    return read(bundle.path)


def check_place(path: Path) -> None:
    """Raises BundleError unless a bundle may be written there: nothing is in the way but an older bundle."""
    if path.is_symlink() or (path.exists() and not (path / MANIFEST).is_file()):
        raise BundleError(f"{path}: exists and is no bundle", hint="choose another --output")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise BundleError(f"{path}: nothing can be written in {above}", hint="choose another --output")


def _commit(path: Path, manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    check_place(path)
    manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"
    try:
        folders.write(path, {**files, MANIFEST: text.encode()})
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be written: {error.strerror}",
            hint="an older bundle there is as it was; make room, try again",
        ) from error


def _scores(calibrations: Sequence[Calibration]) -> bytes:
    return safetensors.numpy.save({each.engine: np.array(each.scores) for each in calibrations})
