"""Runs the commands of `revdist`: one function for each, from parsed arguments to printed lines."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from revdist import recipe
from revdist.bench import bench, bench_figures, benchmark, peers, subject
from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import summary
from revdist.data import fitting, images, survey
from revdist.data.reading import Fit, Reading
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.engines.loaded_product import Inspection
from revdist.errors import ImageError, RevdistError
from revdist.evaluation import evaluate, heatmaps, look, progress, sensitivity
from revdist.exchange import export, official
from revdist.files import folders, trouble
from revdist.files.console import FAILED
from revdist.networks.teacher import load
from revdist.report import folder as pictures_folder
from revdist.report import folder_page, gather, page
from revdist.thresholds.conformal import Calibration
from revdist.training import calibrate, holdout, train


def run_train(options: argparse.Namespace) -> int:
    chosen_recipe = _recipe(options)
    job = train.Job(
        good=options.good,
        product=options.product,
        output=options.output,
        recipe=chosen_recipe,
        exclude=tuple(options.exclude),
        replace=options.replace,
        budget_s=options.budget,
        asked=frozenset(name for name in ("steps", "size", "student", "tile") if getattr(options, name) is not None),
        go_on=options.go_on,
    )
    teacher = load(options.teacher, options.teacher_weights)
    trained = train.train(job, teacher, device=options.device)
    print(trained.path)
    for calibration in trained.calibrations.values():
        _print(summary.calibration(calibration, trained.recipe.holdout))
    if options.suspects:
        engine = Engine(teacher, device=options.device)
        _write_suspects(options, engine, bundle.load(trained.path, engine))
    return 0


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def _write_suspects(options: argparse.Namespace, engine: Engine, found: Bundle) -> None:
    calibration = found.calibration(engine.identity)
    holdout.write_suspects(options.suspects, engine, found.product, calibration, options.good, found.recipe.reading)


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
        "holdout",
        "seed",
        "false_reject_rate",
    ]
    names += ["guarantee", "blocks"]
    settings: dict[str, Any] = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if "steps" in settings:
        settings["epochs"] = 0
    return replace(recipe.NAMED[options.recipe](options.teacher), **settings)


def run_import_rd4ad(options: argparse.Namespace) -> int:
    request = official.Import(
        checkpoint=options.checkpoint,
        product=options.product,
        good=options.good,
        output=options.output,
        size=options.size,
        false_reject_rate=options.false_reject_rate,
        replace=options.replace,
    )
    imported = official.import_checkpoint(
        request, load(options.teacher, options.teacher_weights), device=options.device
    )
    print(imported.path)
    for calibration in imported.calibrations.values():
        _print(summary.calibration(calibration, imported.recipe.holdout))
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


def _open(options: argparse.Namespace) -> tuple[Bundle, Engine, Calibration]:
    product_bundle = bundle.read(options.bundle, weights=False)
    name = backend.parse(options.engine)
    if options.engine == "auto":
        name = replace(name, precision=backend.fastest(name.device, [product_bundle.calibrations]))
    engine = Engine(load(product_bundle.teacher.name, options.teacher_weights), **asdict(name))
    calibration = product_bundle.calibration(engine.identity)
    return bundle.install(product_bundle, engine), engine, calibration


def run_evaluate(options: argparse.Namespace) -> int:
    product_bundle, engine, calibration = _open(options)
    tests = images.labelled_pictures(options.data)
    holdout.check_tests(product_bundle, [sample.path for sample in tests])
    good = [sample.path for sample in tests if not sample.defective]
    unlike = look.unlike(
        engine, product_bundle.trained_appearance, good, product_bundle.recipe, "the good test pictures"
    )
    result = evaluate.evaluate(engine, product_bundle.product, calibration, options.data, product_bundle.recipe.reading)
    if options.json:
        print(json.dumps(result.to_json() | {"unlike": unlike}))
        return 0
    print(f"{product_bundle.product}: {result.good} good and {result.defective} defective pictures on {result.engine}")
    _print(summary.evaluation(result))
    return 0


def run_calibrate(options: argparse.Namespace) -> int:
    product_bundle = bundle.read(options.bundle, weights=False)
    teacher = load(product_bundle.teacher.name, options.teacher_weights)
    names, skipped = (
        calibrate.engines(product_bundle) if options.engine is None else ([backend.parse(options.engine)], {})
    )
    confirm = options.confirm_outliers
    request = calibrate.Request(
        good=options.good,
        false_reject_rate=options.false_reject_rate,
        guarantee=options.guarantee,
        blocks=options.blocks,
        exclude=tuple(options.exclude),
        share=options.share,
        replace_held_out=options.replace_held_out,
        confirm_all=confirm == [],
        confirm=tuple(confirm or ()),
    )
    print(options.bundle)
    for number, name in enumerate(names):
        plain = Engine(teacher, device=name.device)
        engine = plain if name == backend.Name(name.device) else Engine(teacher, **asdict(name))
        recalibration = calibrate.recalibrate(options.bundle, request, engine, plain)
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


def _tell_recalibration(done: calibrate.Recalibration, engine: Engine, plain: Engine) -> None:
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
    _print(summary.calibration(calibration, done.bundle.recipe.holdout))


def run_sensitivity(options: argparse.Namespace) -> int:
    grid = sensitivity.Grid(pictures=options.pictures)
    product_bundle, engine, calibration = _open(options)
    unseen = holdout.unseen(product_bundle, images.pictures_below(images.good_folder(options.good)))
    pictures = evaluate.read_prepared(
        sensitivity.draw(unseen, grid.pictures, options.seed), product_bundle.size, product_bundle.recipe.reading
    )
    result = sensitivity.measure(engine, product_bundle.product, calibration, pictures, seed=options.seed, grid=grid)
    if options.json:
        print(json.dumps(result.to_json()))
    else:
        _print(summary.sensitivity(result))
    return 0


def run_report(options: argparse.Namespace) -> int:
    page.check_place(options.output)
    product_bundle, engine, _ = _open(options)
    request = gather.Request(data=options.data, good=options.good)
    page.write(options.output, gather.gather(product_bundle, engine, request, datetime.now().astimezone()))
    print(options.output)
    return 0


def run_look(options: argparse.Namespace) -> int:
    root = options.folder.resolve()
    output = options.output or root.with_name(f"{root.name}-look.html")
    page.check_place(output)
    engine = Engine(load("efficientnet_lite0"), device="cpu")
    contents = pictures_folder.gather(options.folder, Reading(bits=options.bits or 0), engine)
    folder_page.write(output, contents)
    _print(folder_page.lines(contents))
    print(output)
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
            inspection = engine.inspect(
                [images.prepare(picture, product_bundle.size, product_bundle.recipe.fit)], [product_bundle.product]
            )
            _tell(path, float(inspection.scores[0]), calibration, as_json=as_json)
            _write_maps(options, path, picture, inspection, calibration, product_bundle.recipe.fit)
    return failed


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


def _tell(path: Path, score: float, calibration: Calibration, *, as_json: bool) -> None:
    decision, p_value, estimate = calibration.decide(score), calibration.p_value(score), calibration.p_estimate(score)
    if as_json:
        line = {"image": str(path), "score": score, "threshold": calibration.threshold}
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
    fit: Fit,
) -> None:
    if options.maps:
        content = io.BytesIO()
        np.save(content, inspection.map(0))
        _write(options.maps / f"{path.stem}.npy", content.getvalue())
    if options.heatmaps:
        overlay = heatmaps.heatmap(
            picture, fitting.over_picture(inspection.map(0), picture.shape, fit), calibration.threshold
        )
        _write(options.heatmaps / f"{path.stem}.png", images.encode_png(overlay))


def _write(file: Path, content: bytes) -> None:
    try:
        folders.write_file(file, content)
    except trouble.FILE_ERRORS as error:
        raise trouble.error(RevdistError, error, file, "written", hint="choose another place") from error


def run_export(options: argparse.Namespace) -> int:
    export.check(options.output)
    teacher = load(bundle.read(options.bundle).teacher.name, options.teacher_weights)
    model = export.export(options.bundle, options.output, teacher, batch=options.batch)
    print(model.path)
    if model.difference is None:
        print("not compared with torch: onnxruntime is missing (pip install onnxruntime)")
    else:
        print(
            f"{model.pictures} golden pictures: scores differ from torch's by {model.difference:.1e} at most, relative"
        )
    return 0


def run_bench(options: argparse.Namespace) -> int:
    if (options.bundle is None) == (options.random is None):
        raise RevdistError("bench: name a bundle, or a teacher with --random, and not both")
    if (options.size or options.tile) and options.random is None:
        raise RevdistError("bench: a bundle has its own size", hint="use --size and --tile with --random")
    if (options.student or options.bottleneck) and options.random is None:
        raise RevdistError("bench: a bundle has its own student", hint="use --student and --bottleneck with --random")
    _check_files(options)
    plan = bench.Plan(
        engines=tuple(options.engine),
        device=options.device,
        against=tuple(peers.parse(options.against)),
        batches=options.batches,
        picture=options.picture,
        seconds=options.seconds,
    )
    plan.targets()  # raises its error before the work
    if options.random is None:
        benched_detector = subject.of_bundle(options.bundle, options.teacher_weights)
    else:
        benched_detector = subject.random(
            options.random, options.size, options.student, options.bottleneck, options.tile
        )
    results = bench.bench(benched_detector, plan)
    for error in results.missing:  # reported; the other peers were measured
        print(f"revdist: {error}", file=sys.stderr)
    _print(bench_figures.table(results))
    if options.json:
        _write(options.json, json.dumps(bench_figures.to_json(results), indent=1).encode())
    if options.plot:
        _write(options.plot, bench_figures.chart(results).encode())
    return FAILED if results.missing else 0


def _check_files(options: argparse.Namespace) -> None:
    """Raise RevdistError before the work if --json or --plot names a file that cannot be written."""
    if options.plot and options.plot.suffix != ".svg":
        raise RevdistError(f"{options.plot}: a plot is written as SVG alone", hint="name a file such as speed.svg")
    for path in filter(None, (options.json, options.plot)):
        folders.check_takes_file(path, RevdistError, hint="name another file")


def run_show(options: argparse.Namespace) -> int:
    product_bundle = bundle.read(options.bundle)
    _print(summary.bundle(product_bundle))
    return 0
