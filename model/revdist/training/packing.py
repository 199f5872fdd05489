"""The last step to a bundle: calibrate a student, add golden pictures, write it with all that explains it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import safetensors.torch
from torch import nn

from revdist.bundle import bundle, bundle_files, score_file
from revdist.bundle.bundle import Bundle, GoldenVector, TeacherId
from revdist.bundle.bundle_files import MANIFEST
from revdist.data import health, images, painted_defects
from revdist.data.health import Limits
from revdist.data.inspection_mask import InspectionMask
from revdist.data.reading import Reading
from revdist.engines import backend
from revdist.engines.backend import AUTO, Name
from revdist.engines.engine import Engine
from revdist.engines.loaded_product import Ranges
from revdist.errors import BundleError
from revdist.evaluation import evaluate
from revdist.networks.teacher import Teacher
from revdist.recipe import Recipe
from revdist.scoring.combination import Combination
from revdist.scoring.detector import Scoring
from revdist.thresholds.conformal import Calibration
from revdist.training import holdout, score_units
from revdist.training.confirmation import NOTHING, Confirmed
from revdist.training.holdout import GoodPictures

VERSIONS = ("rejectd", "torch", "numpy")
GOLDEN_GOOD = 4
GOLDEN_SCRATCHED = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BundleParts:
    """The parts of a new bundle."""

    product: str
    recipe: Recipe
    teacher: TeacherId
    fingerprint: str
    trained_on: Sequence[str]
    picture_size: tuple[int, int] | None  # (height, width) of most pictures before preparation
    pixels: Mapping[str, str]  # SHA-256 of a picture's file -> SHA-256 of its pixels
    statistics: Mapping[str, Any]  # of the pictures that it was trained with
    quality: Mapping[str, float]
    versions: Mapping[str, str]
    calibrations: Sequence[Calibration]
    golden: Sequence[tuple[GoldenVector, npt.NDArray[np.uint8]]]  # each with its prepared picture (h, w, 3)
    student: nn.Module
    combination: Combination | None  # of the combined score
    score_pictures: int  # that the combination was measured on
    mask: InspectionMask | None = None


def engines(teacher: Teacher, trained_on: Engine) -> list[Engine]:
    """Return the engines that a new bundle is calibrated for: where it was trained, and what `auto` runs there.

    Both compute in float32, so the scores of golden pictures hold for both.
    """
    name = backend.fastest(Name(trained_on.device.type, "float32", AUTO), [])
    usual = backend.target(name.device, name.precision, name.runtime)
    if usual.identity == trained_on.identity:
        return [trained_on]
    return [trained_on, Engine(teacher, **dataclasses.asdict(name))]


def pack(
    engines: Sequence[Engine],
    student: nn.Module,
    recipe: Recipe,
    *,
    product: str,
    output: Path,
    good: GoodPictures,
    fitted: Sequence[Path],
    held_out: Sequence[Path],
    quality: Mapping[str, float],
    seen_before: Collection[str] = (),
    statistics: Mapping[str, Any] = MappingProxyType({}),
    confirmed: Confirmed = NOTHING,
    combination: Combination | None = None,
    replace: bool = False,
    mask: InspectionMask | None = None,
) -> Bundle:
    """Calibrate a student on each engine and write its bundle; the first engine scores the golden pictures.

    `fitted`: the pictures that the student was trained with, where they are known; `seen_before`: SHA-256 of other
    pictures that the student has seen; `confirmed`: outliers that a person has confirmed as good parts; `replace`:
    overwrite a bundle at `output`.
    Raises CalibrationError, ImageError, or BundleError where the bundle cannot be written.
    """
    engine = engines[0]
    for scorer in engines:
        scorer.add(product, student, recipe.size, Scoring.of(recipe, combination), tile=recipe.tile, mask=mask)
    calibrations = holdout.calibrations_from_pictures(engines, product, good, held_out, recipe, confirmed)
    calibration = calibrations[0]
    golden = _golden(
        engine,
        product,
        evaluate.read_prepared(_typical(held_out, calibration), recipe.size, recipe.reading),
        recipe.seed,
    )
    caught = [vector.score > calibration.threshold for vector, _ in golden if vector.kind == "scratch"]
    held_out_quality = {"pictures_held_out": len(calibration.scores), "scratches_caught": float(np.mean(caught))}
    parts = BundleParts(
        product=product,
        recipe=recipe,
        teacher=TeacherId(name=engine.teacher_name, sha256=engine.teacher_sha256),
        fingerprint=images.fingerprint(good.with_copies),
        trained_on=sorted({*(images.content_hash(path) for path in fitted), *seen_before}),
        picture_size=_usual_size(held_out[:GOLDEN_GOOD], recipe.reading),
        pixels=seen_pixels(good),
        statistics={**statistics, health.HEALTH: healthy(good, calibration).to_json()},
        quality={**quality, **held_out_quality, "pictures_trained": len(fitted)},
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
        calibrations=calibrations,
        golden=golden,
        student=student,
        mask=mask,
        combination=combination,
        score_pictures=len(score_units.chosen(fitted)) if combination else 0,
    )
    write(output, parts, replace=replace)
    return bundle.read(output)


def seen_pixels(good: GoodPictures) -> dict[str, str]:
    """Map the SHA-256 of each picture's file to that of its pixels, so that copies are recognised in any format."""
    return {images.content_hash(look.path): look.pixels for look in good.looks}


def healthy(good: GoodPictures, calibration: Calibration) -> Limits:
    """Learn from good pictures what counts as a picture of a part; outliers that nobody has confirmed teach nothing."""
    waiting = {outlier.sha256 for outlier in calibration.unconfirmed}
    shown = [look for look in good.looks if not waiting or images.content_hash(look.path) not in waiting]
    return health.learn(look.health for look in shown)


def _usual_size(pictures: Sequence[Path], how: Reading) -> tuple[int, int] | None:
    """Return the (height, width) that most of these pictures have."""
    sizes = Counter(images.read(path, how).shape[:2] for path in pictures)
    return next(((height, width) for (height, width), _ in sizes.most_common(1)), None)


def _typical(held_out: Sequence[Path], calibration: Calibration) -> list[Path]:
    """Choose golden pictures from the lower half of the scores, so that a lower threshold does not reject them soon."""
    low = set(calibration.held_out[: max(GOLDEN_GOOD, len(calibration.held_out) // 2)])
    return [path for path in held_out if images.content_hash(path) in low][:GOLDEN_GOOD]


def _golden(
    engine: Engine, product: str, pictures: list[images.Pixels], seed: int
) -> list[tuple[GoldenVector, images.Pixels]]:
    """Score held-out pictures as they are, and some with a painted scratch, each picture inspected alone."""
    mask = engine.mask(product)
    scratched = [
        painted_defects.scratch(picture, seed + row, None if mask is None else mask.inspected)
        for row, picture in enumerate(pictures[:GOLDEN_SCRATCHED])
    ]
    named = [(f"golden/good-{row}.png", "good", picture) for row, picture in enumerate(pictures)]
    named += [(f"golden/scratch-{row}.png", "scratch", picture) for row, picture in enumerate(scratched)]
    golden = []
    for file, kind, pixels in named:
        score = float(engine.inspect([pixels], [product]).scores[0])
        golden.append((GoldenVector(file=file, kind="good" if kind == "good" else "scratch", score=score), pixels))
    return golden


def write(path: Path, parts: BundleParts, *, replace: bool) -> None:
    """Write a bundle in one step. A bundle holds no time, so equal parts give equal bytes.

    Raises BundleError where the disk is full or something else is at `path`; nothing is left behind then.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in parts.student.state_dict().items()}
    files = {bundle.STUDENT: safetensors.torch.save(state), bundle.CALIBRATION: _scores(parts.calibrations)}
    if parts.combination is not None:
        files[bundle.SCORE] = score_file.content(parts.combination)
    files |= {vector.file: images.encode_png(pixels) for vector, pixels in parts.golden}
    files |= {bundle.MASK: parts.mask.png()} if parts.mask else {}
    aligned = parts.recipe.alignment
    files |= {bundle.REFERENCE: images.encode_png(images.to_rgb(aligned.reference))} if aligned else {}
    manifest = {
        "schema": bundle.ALIGNED_SCHEMA if aligned else bundle.SCHEMA,
        "product": parts.product,
        "size": parts.recipe.size,
        "picture_size": parts.picture_size,
        "recipe": parts.recipe.to_json(),
        "teacher": dataclasses.asdict(parts.teacher),
        "preprocessing": images.PREPROCESSING,
        "fingerprint": parts.fingerprint,
        "trained_on": sorted(parts.trained_on),
        "pixels": dict(parts.pixels),
        "statistics": dict(parts.statistics),
        "quality": dict(parts.quality),
        "versions": dict(parts.versions),
        "calibrations": {calibration.engine: calibration.to_json() for calibration in parts.calibrations},
        "score": {"kind": "combined", "pictures": parts.score_pictures} if parts.combination else None,
        "golden": [dataclasses.asdict(vector) for vector, _ in parts.golden],
    }
    if parts.mask:
        manifest["mask"] = {"file": bundle.MASK, "fill": parts.mask.fill}
    if aligned:
        manifest["alignment"] = aligned.to_json(bundle.REFERENCE)
    bundle_files.commit(path, manifest, files, replace=replace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The ranges of maps for int8, and the SHA-256 of the unseen pictures that they were taken from."""

    ranges: Ranges
    pictures: frozenset[str]


def recalibrate(
    old: Bundle,
    calibration: Calibration,
    golden: Mapping[str, float],
    observed: Observed | None = None,
    pixels: Mapping[str, str] = MappingProxyType({}),
    limits: Limits | None = None,
) -> Bundle:
    """Put a calibration into a bundle and replace an older one for the same engine; all else in the bundle stays.

    `golden`: scores of the golden pictures on that engine, by file; `pixels`: see `seen_pixels`; `limits`: of the new
    pictures, by which those of the bundle are widened. `observed`: new ranges for int8; calibrations of other int8
    engines are removed then, because their scores no longer hold.
    """
    if bundle_files.content(old.path, MANIFEST) != old.manifest:
        raise BundleError(f"{old.path}: was changed meanwhile, and is as it was left", hint="calibrate it again")
    manifest = json.loads(old.manifest)
    files = {name: bundle_files.checked(old.path, name, sha256) for name, sha256 in manifest["files"].items()}
    kept = dict(old.calibrations)
    if observed is not None:
        tables = {"teacher": observed.ranges.teacher.table, "student": observed.ranges.student.table}
        content = safetensors.numpy.save(tables)
        if content != files.get(bundle.RANGES):
            kept = {engine: earlier for engine, earlier in kept.items() if not engine.endswith("-int8")}
        files[bundle.RANGES] = content
        manifest["ranges_from"] = sorted(observed.pictures)
    calibrations = {**kept, calibration.engine: calibration}
    files[bundle.CALIBRATION] = _scores(list(calibrations.values()))
    manifest["calibrations"] = {engine: entry.to_json() for engine, entry in calibrations.items()}
    scores = {engine: scores for engine, scores in old.golden_scores.items() if engine in kept}
    remembered = (*calibration.held_out, *(outlier.sha256 for outlier in calibration.unconfirmed))
    manifest["pixels"] = dict(old.pixels) | {sha: pixels[sha] for sha in remembered if sha in pixels}
    manifest["golden_scores"] = {**scores, calibration.engine: dict(golden)}
    if limits is not None:
        widened = limits if old.health is None else old.health.joined(limits)
        manifest["statistics"] = {**old.statistics, health.HEALTH: widened.to_json()}
    bundle_files.commit(old.path, manifest, files, replace=True)
    return bundle.read(old.path)


def _scores(calibrations: Sequence[Calibration]) -> bytes:
    return safetensors.numpy.save({calibration.engine: np.array(calibration.scores) for calibration in calibrations})
