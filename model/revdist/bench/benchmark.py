"""Train and evaluate every product of an MVTec-style folder, several seeds each, beside the published numbers.

    ROOT/<product>/train/good, test/<kind>, ground_truth/<kind>

Each run ends in a bundle and a result file. A run whose files exist is not repeated, and a stopped training goes on.
Nothing is chosen by test pictures: each figure belongs to the weights after the last step.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revdist.bundle import bundle, bundle_files
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.errors import DataError
from revdist.evaluation import evaluate
from revdist.files import trouble
from revdist.networks.teacher import Teacher
from revdist.recipe import Recipe
from revdist.training import train

log = logging.getLogger("revdist")

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro_per_image": "PRO per image", "pro": "PRO"}
# Deng & Li, CVPR 2022, tables 1 and 2: WideResNet50-2, 256 pixels, percent. Their PRO is computed image by image.
PUBLISHED: dict[str, tuple[float, float, float]] = {
    "carpet": (98.9, 98.9, 97.0),
    "grid": (100.0, 99.3, 97.6),
    "leather": (100.0, 99.4, 99.1),
    "tile": (99.3, 95.6, 90.6),
    "wood": (99.2, 95.3, 90.9),
    "bottle": (100.0, 98.7, 96.6),
    "cable": (95.0, 97.4, 91.0),
    "capsule": (96.3, 98.7, 95.8),
    "hazelnut": (99.9, 98.9, 95.5),
    "metal_nut": (100.0, 97.3, 92.3),
    "pill": (96.6, 98.2, 96.4),
    "screw": (97.0, 99.6, 98.2),
    "toothbrush": (99.5, 99.1, 94.5),
    "transistor": (96.7, 92.5, 78.0),
    "zipper": (98.5, 98.2, 95.4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The products to train and evaluate, and where the results go."""

    root: Path
    output: Path  # folder for bundles and results
    products: Sequence[str]
    recipe: Callable[[Path], Recipe]  # for the pictures of a product; its seed is replaced
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRow:
    """A product's figures in percent, one for each seed; None where the product has no masks."""

    product: str
    values: dict[str, list[float | None]]  # by METRICS

    def shown(self, metric: str) -> str:
        """Return the mean as text; with several seeds, also the standard deviation."""
        measured = [value for value in self.values[metric] if value is not None]
        if not measured:
            return "-"
        return f"{np.mean(measured):.2f}" + (f" +- {np.std(measured, ddof=1):.2f}" if len(measured) > 1 else "")

    def mean(self, metric: str) -> float | None:
        measured = [value for value in self.values[metric] if value is not None]
        return float(np.mean(measured)) if measured else None


def products(root: Path, wanted: Sequence[str] = ()) -> list[str]:
    """Return the wanted products of a folder, or all of them. Raises DataError for a product that is not there."""
    if wrong := trouble.why_not_folder(root):
        raise DataError(f"{trouble.shown(root)}: cannot be listed: {wrong.cause}", hint=wrong.hint)
    names = sorted(path.parent.parent.name for path in root.glob("*/train/good"))
    if not names:
        raise DataError(f"{root}: there is no <product>/train/good in it", hint="expected the layout of MVTec AD")
    if missing := [name for name in wanted if name not in names]:
        raise DataError(f"{root}: there is no product {missing[0]!r}", hint=f"there are {', '.join(names)}")
    return list(wanted) or names


def run(plan: Plan, teacher: Teacher, *, device: str = "auto") -> list[BenchmarkRow]:
    """Do the runs that have no result yet. Ctrl-C stops them; the same call goes on. Raises RevdistError."""
    rows = []
    for product in plan.products:
        figures: dict[str, list[float | None]] = {metric: [] for metric in METRICS}
        for seed in range(plan.seeds):
            result = _one(plan, teacher, product, seed, device)
            for metric, values in figures.items():
                values.append(None if result[metric] is None else 100 * result[metric])
            log.info("%s, seed %d: image AUROC %.2f", product, seed, 100 * result["image_auroc"])
        rows.append(BenchmarkRow(product=product, values=figures))
    return rows


def _one(plan: Plan, teacher: Teacher, product: str, seed: int, device: str) -> dict[str, Any]:
    """Return the figures of one run: from its result file, or measured now."""
    data = plan.root / product
    recipe = plan.recipe(data)
    recipe = Recipe.from_json(recipe.to_json() | {"seed": seed})
    place = plan.output / f"{product}-{seed}"
    file = place.with_suffix(".json")
    identity = {
        "recipe": json.loads(json.dumps(recipe.to_json())),
        "teacher": teacher.sha256,
        "data": images.fingerprint([*images.good_pictures(data), *(s.path for s in images.labelled_pictures(data))]),
    }
    if (stored := _kept(file)) and {name: stored.get(name) for name in identity} == identity:
        return stored
    job = train.Job(good=data, product=product, output=place.with_suffix(".bundle"), recipe=recipe, replace=True)
    engine = Engine(teacher, device=device)
    if not _trained(job, teacher, engine):
        train.train(job, teacher, device=device)
    trained = bundle.load(job.output, engine)
    figures = evaluate.evaluate(
        engine, product, trained.calibration(engine.identity), data, trained.recipe.reading
    ).to_json()
    _keep(file, identity | figures)
    return identity | figures


def _kept(file: Path) -> dict[str, Any]:
    """Return the figures of a result file; empty without a file. Raises DataError for a damaged file."""
    if not os.path.lexists(file):
        return {}
    hint = "delete it to measure again"
    figures = trouble.parse_json(trouble.read_text(file, DataError, hint=hint).encode(), file, DataError, hint=hint)
    if isinstance(figures, dict) and figures.keys() >= METRICS.keys():
        return figures
    raise DataError(f"{file}: holds no result", hint="delete it to measure again")


def _keep(file: Path, result: dict[str, Any]) -> None:
    part = file.with_suffix(".part")
    try:
        part.write_text(json.dumps(result, indent=1))
        os.replace(part, file)  # noqa: PTH105 - one step
    except trouble.FILE_ERRORS as error:
        raise trouble.error(DataError, error, file, "written", hint="make room, try again") from error


def _trained(job: train.Job, teacher: Teacher, engine: Engine) -> bool:
    """Return whether the run's bundle exists: the run was stopped between training and evaluation."""
    if not os.path.lexists(job.output / bundle_files.MANIFEST):
        return False
    trained = bundle.read(job.output)
    same_data = trained.fingerprint == images.fingerprint(images.good_pictures(job.good))
    same_teacher = trained.teacher.sha256 == teacher.sha256
    return trained.recipe == job.recipe and same_teacher and same_data and engine.identity in trained.calibrations


def table(rows: Sequence[BenchmarkRow]) -> str:
    """Return a Markdown table of our figures beside the paper's, in percent."""
    lines = [
        "| product | " + " | ".join(f"{name} | paper" if metric != "pro" else name for metric, name in METRICS.items())
    ]
    lines[0] += " |"
    lines.append("| --- |" + " --- |" * 7)
    for row in rows:
        cells = [row.shown(metric) for metric in METRICS]
        paper = [f"{value:.1f}" for value in PUBLISHED[row.product]] if row.product in PUBLISHED else ["-"] * 3
        lines.append(_line(row.product, cells, paper))
    if len(rows) > 1:
        cells = [_mean([row.mean(metric) for row in rows]) for metric in METRICS]
        published = [PUBLISHED[row.product] for row in rows if row.product in PUBLISHED]
        paper = (
            [f"{np.mean(column):.1f}" for column in zip(*published, strict=True)]
            if len(published) == len(rows)
            else ["-"] * 3
        )
        lines.append(_line("mean", cells, paper))
    return "\n".join(lines)


def _line(name: str, ours: Sequence[str], paper: Sequence[str]) -> str:
    pairs = [cell for pair in zip(ours, paper, strict=False) for cell in pair]
    return "| " + " | ".join([name, *pairs, ours[-1]]) + " |"


def _mean(values: Sequence[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return f"{np.mean(measured):.2f}" if measured else "-"
