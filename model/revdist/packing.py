"""The last step to a bundle: calibrate a student, add golden pictures, write it with all that explains it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from revdist import bundle, evaluate, holdout, images, synthetic
from revdist.bundle import Bundle, Golden, Parts, TeacherId
from revdist.detector import Scoring
from revdist.engine import Engine
from revdist.holdout import GoodPictures
from revdist.recipe import Recipe

VERSIONS = ("rejectd", "torch", "numpy")
GOLDEN_GOOD = 4
GOLDEN_SCRATCHED = 2


def pack(
    engine: Engine,
    student: nn.Module,
    recipe: Recipe,
    *,
    product: str,
    output: Path,
    good: GoodPictures,
    fitted: Sequence[Path],
    held_out: Sequence[Path],
    quality: Mapping[str, float],
) -> Bundle:
    """Write the bundle of a student. `fitted` are the pictures that it was trained with, where they are known.

    Raises CalibrationError, ImageError, or BundleError where it cannot be written.
    """
    engine.add(product, student, recipe.size, Scoring.of(recipe))
    calibration = holdout.calibrate(engine, product, good, held_out, recipe)
    golden = _golden(engine, product, evaluate.read_prepared(held_out[:GOLDEN_GOOD], recipe.size), recipe.seed)
    caught = [vector.score > calibration.threshold for vector, _ in golden if vector.kind == "scratch"]
    found = {"pictures_held_out": len(calibration.scores), "scratches_caught": float(np.mean(caught))}
    parts = Parts(
        product=product,
        recipe=recipe,
        teacher=TeacherId(name=engine.teacher_name, sha256=engine.teacher_sha256),
        fingerprint=images.fingerprint(good.used),
        trained_on=[images.content_hash(path) for path in fitted],
        quality={**quality, **found, "pictures_trained": len(fitted)},
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
        calibration=calibration,
        golden=golden,
        student=student,
    )
    bundle.write(output, parts)
    return bundle.read(output)


def _golden(
    engine: Engine, product: str, pictures: list[images.Pixels], seed: int
) -> list[tuple[Golden, images.Pixels]]:
    """Held-out pictures as they are, and some with a scratch painted on, with their scores when inspected alone."""
    scratched = [synthetic.scratch(each, seed + row) for row, each in enumerate(pictures[:GOLDEN_SCRATCHED])]
    named = [(f"golden/good-{row}.png", "good", each) for row, each in enumerate(pictures)]
    named += [(f"golden/scratch-{row}.png", "scratch", each) for row, each in enumerate(scratched)]
    golden = []
    for file, kind, pixels in named:
        score = float(engine.inspect([pixels], [product]).scores[0])
        golden.append((Golden(file=file, kind="good" if kind == "good" else "scratch", score=score), pixels))
    return golden
