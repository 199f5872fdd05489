"""Runs the commands that make a bundle or set its threshold: train, import-rd4ad, benchmark, calibrate."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from revdist import recipe
from revdist.bench import benchmark
from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import output, summary
from revdist.data import images
from revdist.data.defect_size import Defect
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.errors import RecipeError, RevdistError
from revdist.exchange import official
from revdist.networks.teacher import load
from revdist.training import aligning, recalibrate, suspects, train

log = logging.getLogger("revdist")


def run_train(options: argparse.Namespace) -> int:
    chosen_recipe, asked = _recipe(options), ("steps", "size", "student", "tile")
    planned: frozenset[str] = frozenset()
    if defect := _defect(options):
        chosen_recipe = _for_defect(defect, chosen_recipe, options)
        planned = frozenset(("size", "tile"))
    job = train.Job(
        good=options.good,
        product=options.product,
        output=options.output,
        recipe=chosen_recipe,
        exclude=tuple(options.exclude),
        replace=options.replace,
        budget_s=options.budget,
        asked=planned | {name for name in asked if getattr(options, name) is not None},
        confirm=_confirmed(options),
        go_on=options.go_on,
        mask=options.mask,
        align=_align(options),
    )
    teacher = load(options.teacher, options.teacher_weights)
    trained = train.train(job, teacher, device=options.device)
    print(trained.path)
    output.show(summary.promises(trained))
    if options.suspects:
        engine = Engine(teacher, device=options.device)
        _write_suspects(options, engine, bundle.load(trained.path, engine))
    return 0


def _align(options: argparse.Namespace) -> aligning.Align | None:
    if options.align is None:
        if options.align_area or options.align_limits:
            raise RevdistError("--align-area and --align-limits need a reference", hint="give --align FILE too")
        return None
    limits = dict(zip(("shift_px", "angle_deg", "scale"), options.align_limits or (), strict=False))
    return aligning.Align(reference=options.align, area=options.align_area, **limits)


def run_import_rd4ad(options: argparse.Namespace) -> int:
    request = official.Import(
        checkpoint=options.checkpoint,
        product=options.product,
        good=options.good,
        output=options.output,
        size=options.size,
        bits=options.bits or 0,
        false_reject_rate=options.false_reject_rate,
        confirm=_confirmed(options),
        replace=options.replace,
    )
    imported = official.import_checkpoint(
        request, load(options.teacher, options.teacher_weights), device=options.device
    )
    print(imported.path)
    output.show(summary.promises(imported))
    return 0


def run_benchmark(options: argparse.Namespace) -> int:
    plan = benchmark.Plan(
        root=options.root,
        output=options.output,
        products=benchmark.products(options.root, options.products),
        recipe=lambda _data: _recipe(options),
        seeds=options.seeds,
    )
    rows = benchmark.run(plan, load(options.teacher, options.teacher_weights), device=options.device)
    print(benchmark.table(rows))
    return 0


def run_calibrate(options: argparse.Namespace) -> int:
    product_bundle = bundle.read(options.bundle, weights=False)
    teacher = load(product_bundle.teacher.name, options.teacher_weights)
    names, skipped = (
        recalibrate.engines(product_bundle) if options.engine is None else ([backend.parse(options.engine)], {})
    )
    request = recalibrate.RecalibrationRequest(
        good=options.good,
        false_reject_rate=options.false_reject_rate,
        guarantee=options.guarantee,
        blocks=options.blocks,
        exclude=tuple(options.exclude),
        share=options.share,
        replace_held_out=options.replace_held_out,
        confirm=_confirmed(options),
    )
    print(options.bundle)
    for number, name in enumerate(names):
        plain = Engine(teacher, device=name.device)
        engine = plain if name == backend.Name(name.device) else Engine(teacher, **asdict(name))
        recalibration = recalibrate.recalibrate(options.bundle, request, engine, plain)
        _tell_recalibration(recalibration, engine, plain)
        if options.suspects and number == 0:
            _write_suspects(options, engine, recalibration.bundle)
    for identity, why in skipped.items():
        print(f"{identity}: keeps its old threshold, {product_bundle.calibrations[identity].threshold:.6g}: {why}")
    other_engines = set(bundle.read(options.bundle, weights=False).calibrations) - set(skipped)
    if options.engine is not None and (other_engines := other_engines - {engine.identity}):
        print(
            f"left with their old thresholds: {', '.join(sorted(other_engines))} (without --engine all are calibrated)"
        )
    return 0


def _recipe(options: argparse.Namespace) -> recipe.Recipe:
    names = [
        "size",
        "bits",
        "fit",
        "tile",
        "steps",
        "batch",
        "student",
        "bottleneck",
        "scales",
        "combine",
        "score",
        "holdout",
        "seed",
        "false_reject_rate",
    ]
    names += ["guarantee", "blocks"]
    settings: dict[str, Any] = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if "steps" in settings:
        settings["epochs"] = 0
    return replace(recipe.NAMED[options.recipe](options.teacher), **settings)


def _defect(options: argparse.Namespace) -> Defect | None:
    """Return the smallest defect that must be seen, where one is named. Raises RecipeError."""
    if options.defect is None:
        if options.field is not None:
            raise RecipeError("--field says nothing without --defect", hint="add --defect, such as --defect 0.3mm")
        return None
    size, unit = options.defect
    if (unit == "mm") != (options.field is not None) or (options.field and options.field[1] != "mm"):
        hint = "write --defect 0.3mm --field 80mm, or --defect 12 in pixels of the pictures"
        raise RecipeError("a defect in mm needs the field of view in mm, and one in pixels none", hint=hint)
    return Defect(size=size, field_mm=options.field[0] if options.field else None)


def _for_defect(defect: Defect, wanted: recipe.Recipe, options: argparse.Namespace) -> recipe.Recipe:
    """Choose input size and tiles for a defect, unless they are named, and say how large it is."""
    folder = images.good_folder(options.good)
    first = (images.pictures_below(folder) if options.blocks else images.pictures_in(folder))[0]
    height, width = images.read(first, wanted.reading).shape[:2]
    if options.size is None:
        size, tile = defect.plan((height, width), wanted.size)
        wanted = replace(wanted, size=size, tile=tile if options.tile is None else options.tile)
    log.info("%s", defect.sentence((height, width), wanted.size))
    return wanted


def _confirmed(options: argparse.Namespace) -> tuple[Path, ...] | None:
    return None if options.confirm_outliers is None else tuple(options.confirm_outliers)


def _write_suspects(options: argparse.Namespace, engine: Engine, product_bundle: Bundle) -> None:
    calibration = product_bundle.calibration(engine.identity)
    how = product_bundle.recipe.reading
    suspects.write(options.suspects, engine, product_bundle.product, calibration, options.good, how)


def _tell_recalibration(done: recalibrate.Recalibration, engine: Engine, plain: Engine) -> None:
    calibration = done.bundle.calibration(engine.identity)
    if done.left_out:
        print(f"{done.left_out} pictures left out: the student was trained on them")
    if done.observed:
        print(f"{done.observed} unseen pictures were taken for the ranges of maps")
    print(
        f"{done.added} pictures are new to the threshold on {engine.identity}; it is made of {len(calibration.scores)}"
    )
    if len(done.deviations):
        median, most = np.median(done.deviations), done.deviations.max()
        print(f"scores differ from {plain.identity} by {median:.2%} (median), {most:.2%} at most")
    output.show(summary.calibration(calibration, done.bundle.recipe.holdout))
