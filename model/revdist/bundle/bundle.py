"""A bundle: the folder of a trained product, read, checked and loaded into an engine.

bundle.json           explains the rest, with the SHA-256 of every other file
student.safetensors   weights of bottleneck and decoder, float32
calibration.safetensors   held-out good scores for each engine, float64, ascending
ranges.safetensors    if calibrated for int8: the ranges of the teacher's and the student's maps
reference.png         if parts are aligned: the reference, in grey, as it is searched for
mask.png              if something is not inspected: white where, at the size of the model's input
score.safetensors     if the score is the combined one: the units of its maps, float32
golden/*.png          prepared pictures with known scores; scored again whenever the bundle is loaded
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from revdist.bundle import bundle_files, score_file
from revdist.bundle.bundle_files import MANIFEST
from revdist.bundle.manifest import GoldenVector as GoldenVector
from revdist.bundle.manifest import TeacherId as TeacherId
from revdist.bundle.manifest import check as check_manifest
from revdist.data import alignment, appearance, health, images, inspection_mask
from revdist.data.appearance import Appearance
from revdist.data.health import Limits
from revdist.data.inspection_mask import InspectionMask
from revdist.engines.engine import Engine
from revdist.engines.loaded_product import Ranges
from revdist.engines.processor.quantised import Ranges as NetworkRanges
from revdist.errors import BundleError, CalibrationError, ImageError, RecipeError
from revdist.networks.weights import check_finite
from revdist.recipe import SCALES, Recipe, check_product, default
from revdist.scoring import detector
from revdist.scoring.combination import Combination
from revdist.thresholds import conformal
from revdist.thresholds.conformal import Calibration

SCHEMA = 6
ALIGNED_SCHEMA = 7  # of bundles with an alignment, which older programs must refuse
READABLE = (2, 3, 4, 5, SCHEMA, ALIGNED_SCHEMA)
STUDENT = "student.safetensors"
CALIBRATION = "calibration.safetensors"
RANGES = "ranges.safetensors"
MASK = "mask.png"
REFERENCE = "reference.png"
SCORE = "score.safetensors"
_TOLERANCES = {"float32": 2e-3}  # relative, between processors; scores of wrong weights differ by far more
_TOLERANCE_ELSE = 2e-2  # relative, for 8 bits or 8-bit mantissas: now and then a value is rounded to the other side
_TOLERANCE_COMBINED = 5e-2  # the same, for whitened residuals: in int8 scores were off by 2 to 3 times as much


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """A bundle's manifest, checked. `digest` is the SHA-256 of bundle.json, and through it of all files."""

    path: Path
    product: str
    size: tuple[int, int]  # (height, width) of the model's input
    recipe: Recipe
    teacher: TeacherId
    fingerprint: str  # of all good pictures that training got
    trained_on: frozenset[str]  # SHA-256 of each picture that the student has seen: never calibrate with those
    picture_size: tuple[int, int] | None  # (height, width) of most training pictures; None: not known
    pixels: Mapping[str, str]  # SHA-256 of a picture's file -> SHA-256 of its pixels; empty: not known
    statistics: Mapping[str, Any]  # of the training pictures; empty: not known
    quality: Mapping[str, float]
    versions: Mapping[str, str]
    calibrations: Mapping[str, Calibration]  # by engine identity
    golden: tuple[GoldenVector, ...]
    golden_scores: Mapping[str, Mapping[str, float]]  # by engine and file, where the precision changes scores
    ranges: Ranges | None  # for int8
    combination: Combination | None  # of the combined score
    ranges_from: frozenset[str]  # SHA-256 of unseen pictures that `ranges` came from: never calibrate with those
    mask: InspectionMask | None  # what is not inspected
    digest: str
    manifest: bytes  # bundle.json as it was read: files that are read later are checked against it
    pictures: Mapping[str, bytes]  # the files of the golden pictures, checked

    @property
    def trained_appearance(self) -> Appearance:
        """The appearance of the training pictures; empty where the bundle does not say."""
        return appearance.restored(self.statistics.get(appearance.APPEARANCE, {}))

    @property
    def health(self) -> Limits | None:
        """Limits of what counts as a picture of a part; None where the bundle does not say."""
        kept = self.statistics.get(health.HEALTH)
        return None if kept is None else health.restored(kept)

    @property
    def held_out_unlike(self) -> tuple[str, ...]:
        """Sentences that say how the held-out pictures differ from the training pictures."""
        return tuple(self.statistics.get(appearance.UNLIKE, ()))

    def expected(self, vector: GoldenVector, engine_identity: str) -> float:
        """Return the score that the bundle gives a golden picture on an engine."""
        return self.golden_scores.get(engine_identity, {}).get(vector.file, vector.score)

    def calibration(self, engine_identity: str) -> Calibration:
        """Return the calibration for an engine. Without one, raises CalibrationError that names the command."""
        if engine_identity in self.calibrations:
            return self.calibrations[engine_identity]
        calibrated = ", ".join(self.calibrations) or "none"
        raise CalibrationError(
            f"{self.path}: no calibration for engine {engine_identity}, only for {calibrated}",
            hint=f"make one: {self.command_to_calibrate(engine_identity)}",
        )

    def command_to_calibrate(self, engine_identity: str) -> str:
        """Return the command that calibrates the bundle for an engine; DIR stands for a folder of good pictures."""
        rate = self.recipe.false_reject_rate
        return f"revdist calibrate {self.path} --good DIR --false-reject-rate {rate} --engine {engine_identity}"


def read(path: Path, *, weights: bool = True) -> Bundle:
    """Read a bundle and check every file by its SHA-256. Raises BundleError that names the file that is wrong.

    `weights`: check the student's weights too, which are large and not kept; `student` reads and checks them in any
    case. All else is read once, so later changes of the folder do not affect what was checked.
    """
    content = bundle_files.content(path, MANIFEST)
    try:
        values = json.loads(content)
        _check_version(path, values)
        manifest = check_manifest(values)
        check_product(manifest["product"])
        if missing := {STUDENT, CALIBRATION} - manifest["files"].keys():
            raise ValueError(f"files.{min(missing)} is missing")  # noqa: TRY301 - told like all that is wrong with it
        files = {
            name: bundle_files.checked(path, name, sha256)
            for name, sha256 in manifest["files"].items()
            if weights or name != STUDENT
        }
        return Bundle(
            path=path,
            product=manifest["product"],
            size=(size := _size(manifest["size"], recipe := _recipe(manifest))),
            recipe=_aligned(recipe, manifest, files, path),
            teacher=TeacherId(**manifest["teacher"]),
            fingerprint=manifest["fingerprint"],
            trained_on=frozenset(manifest["trained_on"]),
            picture_size=tuple(manifest["picture_size"]) if manifest["picture_size"] else None,
            pixels=MappingProxyType(manifest["pixels"]),
            statistics=_statistics(manifest["statistics"]),
            quality=MappingProxyType(manifest["quality"]),
            versions=MappingProxyType(manifest["versions"]),
            calibrations=_calibrations(manifest["calibrations"], files[CALIBRATION]),
            golden=(golden := _golden(manifest["golden"], files)),
            golden_scores=_golden_scores(manifest["golden_scores"]),
            ranges=_ranges(files[RANGES]) if RANGES in files else None,
            combination=_combination(manifest, recipe, files),
            ranges_from=frozenset(manifest["ranges_from"]),
            mask=_mask(manifest["mask"], files, path, size),
            digest=hashlib.sha256(content).hexdigest(),
            manifest=content,
            pictures=MappingProxyType({vector.file: files[vector.file] for vector in golden}),
        )
    except (ValueError, RecursionError, RecipeError, CalibrationError) as error:
        raise BundleError(f"{path / MANIFEST}: not a bundle's manifest: {error}", hint=bundle_files.FOREIGN) from error


def _check_version(path: Path, manifest: Any) -> None:
    """Check the versions first of all, because other versions write other manifests."""
    if not isinstance(manifest, dict) or not {"schema", "preprocessing"} <= manifest.keys():
        raise ValueError("there is no schema in it")
    if manifest["schema"] not in READABLE:
        readable = f"{READABLE[0]} to {READABLE[-1]}"
        raise BundleError(
            f"{path}: written in schema {manifest['schema']}, this revdist reads {readable}",
            hint="use a matching revdist",
        )
    if manifest["preprocessing"] != images.PREPROCESSING:
        raise BundleError(
            f"{path}: made for preprocessing {manifest['preprocessing']!r}, this revdist does {images.PREPROCESSING!r}",
            hint="use a matching revdist, or train it again",
        )


def _recipe(manifest: dict[str, Any]) -> Recipe:
    """Read a recipe of any readable schema, and add what older schemas lack.

    Schema 2 had `fusion` instead of `bottleneck`, and one way of scoring. Up to 3 a teacher had one student; up to 4
    there were no tiles; up to 5 all bits of a picture counted, and pictures were stretched. The first bundles
    of 6 had one score too.

    Raises RecipeError.
    """
    values = dict(manifest["recipe"])
    if manifest["schema"] == 2:
        if not isinstance(fusion := values.pop("fusion", None), bool):
            raise RecipeError(f"recipe: fusion is {fusion!r}, must be true or false")
        values |= {"bottleneck": "full" if fusion else "oce", "scales": SCALES, "combine": "add"}
    if manifest["schema"] <= 3 and "student" not in values:
        values["student"] = default(manifest["teacher"]["name"]).student
    if manifest["schema"] <= 4:
        values.setdefault("tile", None)
    if manifest["schema"] <= 5:
        values = {"bits": 0, "fit": "stretch"} | values
    values.setdefault("score", "cosine")
    return Recipe.from_json(values)


def _statistics(entries: dict[str, Any]) -> Mapping[str, Any]:
    """Check the statistics that are used later. Raises ValueError where one has a wrong type."""
    if not isinstance(kept := entries.get(appearance.APPEARANCE, {}), dict):
        raise ValueError(f"statistics.{appearance.APPEARANCE} is no group")  # noqa: TRY004 - it came from a file
    appearance.restored(kept)
    if not isinstance(limits := entries.get(health.HEALTH, {}), dict):
        raise ValueError(f"statistics.{health.HEALTH} is no group")  # noqa: TRY004 - it came from a file
    health.restored(limits)
    told = entries.get(appearance.UNLIKE, [])
    if not isinstance(told, list) or not all(isinstance(sentence, str) for sentence in told):
        raise ValueError(f"statistics.{appearance.UNLIKE} is no list of sentences")
    return MappingProxyType(entries)


def _size(value: Sequence[int], recipe: Recipe) -> tuple[int, int]:
    """Check the input size. Raises ValueError unless it is the size that the student was trained for."""
    if tuple(value) != recipe.size:
        raise ValueError(f"size is {value}, the recipe's is {list(recipe.size)}")
    return recipe.size


def _calibrations(entries: dict[str, dict[str, Any]], content: bytes) -> Mapping[str, Calibration]:
    scores = bundle_files.arrays(content, CALIBRATION)
    if missing := entries.keys() - scores.keys():
        raise ValueError(f"{CALIBRATION} has no scores of {min(missing)}")
    return MappingProxyType(
        {engine: conformal.restore(scores[engine], entry, engine=engine) for engine, entry in entries.items()}
    )


def _ranges(content: bytes) -> Ranges:
    tables = bundle_files.arrays(content, RANGES)
    for name in ("teacher", "student"):
        table = tables.get(name, np.ones((1, 1)))
        if table.ndim != 2 or table.shape[1] != 2 or not np.isfinite(table).all():
            raise ValueError(f"{RANGES} holds no ranges of the {name}'s maps")
        if (table[:, 0] > 0).any() or (table[:, 1] < 0).any():
            raise ValueError(f"{RANGES}: 0 is not in every range of the {name}'s maps")
    return Ranges(teacher=NetworkRanges(tables["teacher"]), student=NetworkRanges(tables["student"]))


def _mask(
    entry: dict[str, Any] | None, files: Mapping[str, bytes], path: Path, size: tuple[int, int]
) -> InspectionMask | None:
    if entry is None:
        return None
    if entry["file"] not in files:
        raise ValueError(f"files.{entry['file'][:60]} is missing")
    return inspection_mask.of_png(files[entry["file"]], path / entry["file"], size, entry["fill"])


def _combination(manifest: dict[str, Any], recipe: Recipe, files: dict[str, bytes]) -> Combination | None:
    """Read what a combined score is made of. Raises ValueError unless the manifest, the recipe and the files agree."""
    told = "cosine" if manifest["score"] is None else manifest["score"]["kind"]
    if told != recipe.score:
        raise ValueError(f"score is {told}, the recipe's is {recipe.score}")
    if told == "cosine":
        return None
    if SCORE not in files:
        raise ValueError(f"files.{SCORE} is missing")
    return score_file.read(files[SCORE], SCORE, recipe, manifest["teacher"]["name"])


def _aligned(recipe: Recipe, manifest: dict[str, Any], files: Mapping[str, bytes], path: Path) -> Recipe:
    entry: dict[str, Any] | None = manifest["alignment"]
    if (entry is not None) != (manifest["schema"] == ALIGNED_SCHEMA):
        raise ValueError(f"schema {manifest['schema']} does not go with {'an' if entry else 'no'} alignment")
    if entry is None:
        return recipe
    if entry["file"] not in files:
        raise ValueError(f"files.{entry['file'][:60]} is missing")
    try:
        reference = images.decode(files[entry["file"]], path / entry["file"])
    except ImageError as error:
        raise ValueError(error.message) from error
    return dataclasses.replace(recipe, alignment=alignment.restored(reference, entry, path / entry["file"]))


def _golden(entries: list[dict[str, Any]], files: dict[str, bytes]) -> tuple[GoldenVector, ...]:
    golden = tuple(GoldenVector(**entry) for entry in entries)
    for vector in golden:
        if vector.file not in files or not vector.score > 0:
            raise ValueError(f"golden vector {vector.file} is not usable")
    lacking = {"good", "scratch"} - {vector.kind for vector in golden}
    if lacking:
        raise ValueError(f"golden pictures lack {', '.join(sorted(lacking))}: nothing proves the rest")
    return golden


def _golden_scores(entries: dict[str, dict[str, float]]) -> Mapping[str, Mapping[str, float]]:
    for engine, scores in entries.items():
        if not all(score > 0 for score in scores.values()):
            raise ValueError(f"golden scores of {engine} are not usable")
    return MappingProxyType(entries)


def load(path: Path, engine: Engine, *, product: str | None = None) -> Bundle:
    """Read a bundle and `install` it. Raises BundleError."""
    return install(read(path, weights=False), engine, product=product)


def install(bundle: Bundle, engine: Engine, *, product: str | None = None) -> Bundle:
    """Put a bundle's student into an engine as `product` (default: the bundle's own name) after a proof.

    The proof: the golden pictures score on this engine as the bundle says. An older student of the product is replaced
    only if the new one passes. Raises BundleError.
    """
    candidate = f"{bundle.path}@candidate"
    place(bundle, engine, product=candidate)
    try:
        _prove(bundle, engine, candidate)
    except BundleError:
        engine.remove(candidate)
        raise
    engine.rename(candidate, product or bundle.product)
    return bundle


def place(bundle: Bundle, engine: Engine, *, product: str) -> Bundle:
    """Put a bundle's student into an engine as `product`, without the proof of `install`.

    Raises BundleError, also where the engine has another teacher, or CalibrationError.
    """
    if (bundle.teacher.name, bundle.teacher.sha256) != (engine.teacher_name, engine.teacher_sha256):
        raise BundleError(
            f"{bundle.path}: trained with teacher {bundle.teacher.name} {bundle.teacher.sha256[:12]}, but the engine "
            f"has {engine.teacher_name} {engine.teacher_sha256[:12]}",
            hint="pass the weights file that it was trained with (--teacher-weights), or train it again",
        )
    if engine.needs_ranges:
        bundle.calibration(engine.identity)  # raises an error that says more than "no ranges"
    add(bundle, engine, product=product)
    return bundle


def add(bundle: Bundle, engine: Engine, *, product: str, ranges: Ranges | None = None) -> None:
    """Put a bundle's student into an engine as `product`. `ranges`: replace the bundle's own, for int8."""
    engine.add(
        product,
        student(bundle),
        bundle.size,
        scoring(bundle),
        tile=bundle.recipe.tile,
        ranges=ranges or bundle.ranges,
        mask=bundle.mask,
    )


def scoring(bundle: Bundle) -> detector.Scoring:
    """Return how a bundle's distances become a map and a score."""
    return detector.Scoring.of(bundle.recipe, bundle.combination)


def golden_scores(bundle: Bundle, engine: Engine, product: str) -> dict[str, float]:
    """Score the golden pictures, each alone, on an engine that holds the student as `product`; by file."""
    return {
        vector.file: float(engine.inspect([pixels], [product]).scores[0]) for vector, pixels in golden_pictures(bundle)
    }


def tolerance(bundle: Bundle, engine_identity: str) -> float:
    """Return how far, relatively, a golden picture's score on this engine may be from the bundle's."""
    coarse = _TOLERANCE_ELSE if bundle.combination is None else _TOLERANCE_COMBINED
    return _TOLERANCES.get(engine_identity.rpartition("-")[2], coarse)


def check_weights(bundle: Bundle) -> None:
    """Check the weights on the disk. Raises BundleError where they are not those of the manifest."""
    bundle_files.checked(bundle.path, STUDENT, json.loads(bundle.manifest)["files"][STUDENT])


def student(bundle: Bundle) -> detector.Student:
    """Load the trained student strictly. Raises BundleError where the weights do not fit or are not finite."""
    sha256 = json.loads(bundle.manifest)["files"][STUDENT]
    content = bundle_files.checked(bundle.path, STUDENT, sha256)
    try:
        weights = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BundleError(f"{bundle.path / STUDENT}: no safetensors: {error}", hint=bundle_files.FOREIGN) from error
    with torch.device("meta"):  # do not draw random weights first
        recipe = bundle.recipe
        model = detector.Student(bundle.teacher.name, design=recipe.student, bottleneck=recipe.bottleneck)
    for name, wanted in model.state_dict().items():
        if name in weights and weights[name].dtype != wanted.dtype:
            text = f"{bundle.path / STUDENT}: does not fit: {name} is {weights[name].dtype}, expected {wanted.dtype}"
            raise BundleError(text, hint=bundle_files.FOREIGN)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]  # the rest lists every other tensor
        raise BundleError(
            f"{bundle.path / STUDENT}: does not fit: {' '.join(first).strip()}", hint=bundle_files.FOREIGN
        ) from error
    check_finite(weights, str(bundle.path / STUDENT), BundleError, hint="train it again")
    return model.eval()


def golden_pictures(bundle: Bundle) -> list[tuple[GoldenVector, npt.NDArray[np.uint8]]]:
    """Return the golden pictures, prepared: uint8 (h, w, 3). Raises BundleError where one cannot be decoded."""
    try:
        return [
            (
                vector,
                images.prepare(images.decode(bundle.pictures[vector.file], bundle.path / vector.file), bundle.size),
            )
            for vector in bundle.golden
        ]
    except ImageError as error:
        raise BundleError(f"{bundle.path}: golden picture: {error}", hint=bundle_files.FOREIGN) from error


def _prove(bundle: Bundle, engine: Engine, candidate: str) -> None:
    scores = golden_scores(bundle, engine, candidate)
    for vector in bundle.golden:
        score, expected = scores[vector.file], bundle.expected(vector, engine.identity)
        if not abs(score - expected) <= tolerance(bundle, engine.identity) * abs(expected):
            raise BundleError(
                f"{bundle.path / vector.file}: scores {score:.6g} on {engine.identity}, expected {expected:.6g}",
                hint="this machine computes otherwise than the one that trained; do not use the bundle here",
            )
