"""Runs the commands that judge pictures: evaluate, sensitivity, report, look, predict."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np

from revdist.bundle import bundle, choice
from revdist.bundle.bundle import Bundle
from revdist.cli import output, summary
from revdist.data import fitting, images, survey
from revdist.data.reading import Reading
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.engines.loaded_product import Inspection
from revdist.errors import ImageError, RevdistError
from revdist.evaluation import advice, evaluate, heatmaps, look, near_copies, progress, sensitivity, what_if
from revdist.files import trouble
from revdist.files.console import FAILED
from revdist.networks.teacher import Teacher, load
from revdist.report import folder as pictures_folder
from revdist.report import folder_page, gather, page
from revdist.thresholds.conformal import Calibration
from revdist.training import holdout


def run_evaluate(options: argparse.Namespace) -> int:
    product_bundle, engine, calibration = _open(options)
    tests = images.labelled_pictures(options.data)
    holdout.check_tests(product_bundle, [sample.path for sample in tests])
    paths, how = [sample.path for sample in tests], product_bundle.recipe.reading
    plain = engine if engine.teaches else Engine(_teacher(product_bundle, options), device=engine.device.type)
    near_copies.groups_told(plain, paths, how, "each of them counts in the figures")
    good = [sample.path for sample in tests if not sample.defective]
    unlike = look.unlike(
        plain,
        product_bundle.trained_appearance,
        good,
        product_bundle.recipe,
        "the good test pictures",
        product_bundle.mask,
    )
    inspected = evaluate.inspect_labelled(engine, product_bundle.product, options.data, how)
    result = evaluate.measure(inspected, calibration)
    table = what_if.choices(inspected.defective, inspected.scores, calibration.threshold)
    advices = advice.of_test(inspected, calibration, product_bundle.recipe, result.image_auroc, table)
    if options.json:
        more = {"what_if": [choice.to_json() for choice in table], "next": [found.to_json() for found in advices]}
        print(json.dumps(result.to_json() | {"unlike": unlike} | more))
        return 0
    print(f"{product_bundle.product}: {result.good} good and {result.defective} defective pictures on {result.engine}")
    output.show(summary.evaluation(result))
    output.show(summary.what_if(table))
    output.show(advice.told(advices))
    return 0


def _teacher(product_bundle: Bundle, options: argparse.Namespace) -> Teacher:
    return load(product_bundle.teacher.name, options.teacher_weights)


def run_sensitivity(options: argparse.Namespace) -> int:
    grid = sensitivity.Grid(pictures=options.pictures)
    product_bundle, engine, calibration = _open(options)
    unseen = holdout.unseen(product_bundle, images.pictures_below(images.good_folder(options.good)))
    drawn = sensitivity.draw(unseen, grid.pictures, options.seed)
    holdout.check_depth(product_bundle, drawn)
    pictures = evaluate.read_prepared(drawn, product_bundle.size, product_bundle.recipe.reading)
    result = sensitivity.measure(engine, product_bundle.product, calibration, pictures, seed=options.seed, grid=grid)
    advices = advice.of_sensitivity(result, calibration, product_bundle.recipe)
    if options.json:
        print(json.dumps(result.to_json() | {"next": [found.to_json() for found in advices]}))
    else:
        output.show(summary.sensitivity(result))
        output.show(advice.told(advices))
    return 0


def run_report(options: argparse.Namespace) -> int:
    page.check_place(options.output)
    product_bundle, engine, _ = _open(options)
    request = gather.ReportRequest(data=options.data, good=options.good)
    page.write(options.output, gather.gather(product_bundle, engine, request, datetime.now().astimezone()))
    print(options.output)
    return 0


def run_look(options: argparse.Namespace) -> int:
    root = options.folder.resolve()
    page_file = options.output or root.with_name(f"{root.name}-look.html")
    page.check_place(page_file)
    engine = None if options.no_teacher else Engine(load("efficientnet_lite0"), device="cpu")
    contents = pictures_folder.gather(options.folder, Reading(bits=options.bits or 0), engine)
    folder_page.write(page_file, contents)
    output.show(folder_page.lines(contents))
    print(page_file)
    return 0


def run_predict(options: argparse.Namespace) -> int:
    _check_stems(options)
    product_bundle, engine, calibration = _open(options)
    as_json = options.json or not sys.stdout.isatty()
    for folder in filter(None, (options.maps, options.heatmaps)):
        _make(folder)
    failed = 0
    with progress.bar("predict", len(options.images), quiet=sys.stdout.isatty()) as shown:
        for path in options.images:
            shown.update()
            try:
                picture = survey.read(path, product_bundle.recipe.reading)
            except ImageError as error:  # reported; the other pictures are scored
                print(f"revdist: {error}", file=sys.stderr)
                failed = FAILED
                continue
            prepared = images.prepare(picture, product_bundle.size, product_bundle.recipe.fit)
            inspection = engine.inspect([prepared], [product_bundle.product])
            _tell(path, inspection, calibration, as_json=as_json)
            _write_maps(options, path, picture, inspection, calibration, product_bundle)
            if options.heatmaps and options.heatmap_scale == "paper":
                scales = engine.scale_maps(prepared, product_bundle.product)
                of_coarsest = fitting.over_picture(scales[-1], picture.shape, product_bundle.recipe.fit)
                overlay = heatmaps.as_in_the_paper(picture, of_coarsest)
                output.write(options.heatmaps / f"{path.stem}.png", images.encode_png(overlay))
    return failed


def _open(options: argparse.Namespace) -> tuple[Bundle, Engine, Calibration]:
    product_bundle = bundle.read(options.bundle, weights=False)
    name = backend.parse(options.engine)
    if options.engine == backend.AUTO:
        name = choice.engine([product_bundle], backend.Name(backend.AUTO, backend.AUTO, backend.AUTO))
    engine = Engine(_teacher(product_bundle, options), **asdict(name))
    calibration = product_bundle.calibration(engine.identity)
    return bundle.install(product_bundle, engine), engine, calibration


def _make(folder: Path) -> None:
    """Make a folder that takes files. Raises RevdistError before a picture is scored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except trouble.FILE_ERRORS as error:
        raise trouble.error(RevdistError, error, folder, "made", hint="choose another folder") from error
    if wrong := trouble.why_not_writable(folder / "map"):
        raise RevdistError(f"{trouble.shown(folder)}: cannot be written: {wrong.cause}", hint=wrong.hint)


def _check_stems(options: argparse.Namespace) -> None:
    repeated_stems = [stem for stem, count in Counter(path.stem for path in options.images).items() if count > 1]
    if repeated_stems and (options.maps or options.heatmaps):
        clashing = ", ".join(str(path) for path in options.images if path.stem == repeated_stems[0])
        raise RevdistError(
            f"{clashing} would overwrite each other's {repeated_stems[0]}.npy or .png", hint="run them one by one"
        )


def _tell(path: Path, inspection: Inspection, calibration: Calibration, *, as_json: bool) -> None:
    score = float(inspection.scores[0])
    decision, p_value, estimate = calibration.decide(score), calibration.p_value(score), calibration.p_estimate(score)
    if as_json:
        line = {"image": str(path), "score": score, "score_max": float(inspection.maxima[0])}
        line |= {"threshold": calibration.threshold}
        print(json.dumps(line | {"decision": decision, "p_value": p_value, "p_estimate": estimate}), flush=True)
    else:
        estimated = "" if estimate is None else f" (estimated {estimate:.5f})"
        print(f"{decision:6}  {score / calibration.threshold:6.2f} x threshold  p {p_value:.4f}{estimated}  {path}")


def _write_maps(
    options: argparse.Namespace,
    path: Path,
    picture: images.Pixels,
    inspection: Inspection,
    calibration: Calibration,
    product_bundle: Bundle,
) -> None:
    if options.maps:
        content = io.BytesIO()
        np.save(content, inspection.map(0))
        output.write(options.maps / f"{path.stem}.npy", content.getvalue())
    if options.heatmaps and options.heatmap_scale == "threshold":
        fit, mask = product_bundle.recipe.fit, product_bundle.mask
        overlay = heatmaps.heatmap(
            picture, fitting.over_picture(inspection.map(0), picture.shape, fit), calibration.threshold
        )
        if mask:
            overlay = heatmaps.hatched(
                overlay, fitting.over_picture(mask.masked.astype(np.float32), picture.shape, fit)
            )
        output.write(options.heatmaps / f"{path.stem}.png", images.encode_png(overlay))
