"""The command `revdist`: train, evaluate, calibrate, sensitivity, report, predict, show."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from revdist import (
    benchmark,
    bundle,
    calibrate,
    evaluate,
    heatmaps,
    holdout,
    images,
    recipe,
    sensitivity,
    summary,
    train,
)
from revdist.bundle import Bundle
from revdist.conformal import Calibration, Guarantee
from revdist.engine import Engine, Inspection
from revdist.errors import ImageError, RevdistError
from revdist.report import gather, page
from revdist.teacher import NAMES, load

FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 2 after an error that is told on stderr, or 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except RevdistError as error:
        print(f"revdist: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="revdist", description="Learn what good parts look like; find those that differ."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a product from pictures of good parts"))

    one = commands.add_parser("evaluate", help="measure a bundle on labelled test pictures (MVTec layout)")
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument(
        "--data", type=Path, required=True, metavar="ROOT", help="holds test/<kind> and ground_truth/<kind>"
    )
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_engine(one, _evaluate)

    one = commands.add_parser("calibrate", help="set the threshold for a false-reject rate from unseen good pictures")
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument("--good", type=Path, required=True, metavar="DIR", help="pictures of good parts")
    one.add_argument("--false-reject-rate", type=float, required=True, metavar="R", help="such as 0.01")
    _add_good(one)
    _add_engine(one, _calibrate)

    one = commands.add_parser("sensitivity", help="measure which synthetic defects, painted on good pictures, are seen")
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument("--good", type=Path, required=True, metavar="DIR", help="pictures of good parts, also in lots")
    pictures = "how many to paint on (default: %(default)s, which makes 588 inspections)"
    one.add_argument("--pictures", type=int, default=sensitivity.Grid().pictures, metavar="N", help=pictures)
    one.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_engine(one, _sensitivity)

    one = commands.add_parser("report", help="make a page about a bundle: its promise, what it misses, where it looks")
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument("--data", type=Path, metavar="ROOT", help="test pictures as for evaluate")
    painted = "good pictures to paint synthetic defects on (default: test/good of ROOT)"
    one.add_argument("--good", type=Path, metavar="DIR", help=painted)
    one.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, such as report.html")
    _add_engine(one, _report)

    one = commands.add_parser("predict", help="score pictures")
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    one.add_argument("--maps", type=Path, metavar="DIR", help="write raw anomaly maps as <stem>.npy")
    one.add_argument("--heatmaps", type=Path, metavar="DIR", help="write overlays as <stem>.png")
    one.add_argument("--json", action="store_true", help="one line of JSON for each image, as without a terminal")
    _add_engine(one, _predict)

    one = commands.add_parser("benchmark", help="train and evaluate every product of an MVTec-style folder")
    one.add_argument("root", type=Path, metavar="ROOT", help="holds <product>/train/good, test and ground_truth")
    one.add_argument("--output", type=Path, required=True, metavar="DIR", help="for bundles and results; goes on there")
    one.add_argument("--products", type=lambda text: text.split(","), default=[], metavar="A,B", help="(default: all)")
    one.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each product (%(default)s)")
    _add_recipe(one)
    _add_engine(one, _benchmark)

    one = commands.add_parser("show", help="tell what a bundle is, and check its files")
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.set_defaults(command=_show)
    return parser


def _add_train(one: argparse.ArgumentParser) -> None:
    plain = recipe.Recipe()
    one.add_argument("--good", type=Path, required=True, metavar="DIR", help="pictures of good parts")
    one.add_argument("--product", required=True, metavar="NAME")
    one.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    _add_recipe(one)
    one.add_argument("--seed", type=int, metavar="N", help=f"(default: {plain.seed})")
    _add_good(one)
    _add_engine(one, _train)


def _add_recipe(one: argparse.ArgumentParser) -> None:
    plain = recipe.Recipe()
    one.add_argument("--teacher", choices=NAMES, default=plain.teacher, metavar="NAME", help=f"{', '.join(NAMES)}")
    one.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: by teacher)")
    one.add_argument("--size", type=_size, metavar="N|HxW", help="input size, multiples of 32 (default: by teacher)")
    one.add_argument("--batch", type=int, metavar="N", help="pictures a step (default: by teacher)")
    one.add_argument("--holdout", type=float, metavar="SHARE", help=f"for calibration (default: {plain.holdout})")
    rate = f"wanted share of good parts rejected (default: {plain.false_reject_rate})"
    one.add_argument("--false-reject-rate", type=float, metavar="R", help=rate)


def _add_good(one: argparse.ArgumentParser) -> None:
    """What training and calibration ask of the threshold and of the pictures of good parts."""
    kinds = get_args(Guarantee)
    when = "the rate holds on average over calibrations, or for this one with 95 %% confidence (default: %(default)s)"
    one.add_argument("--guarantee", choices=kinds, default=kinds[0], help=when)
    blocks = "hold out whole lots or days: 'folders' for subfolders, or a pattern on the path such as 'lot(\\d+)_'"
    one.add_argument("--blocks", default="", metavar="REGEX", help=blocks)
    left_out = "pictures in DIR to leave out; the bundle keeps a record of them"
    one.add_argument("--exclude", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help=left_out)
    overlays = "write overlays of the held-out pictures with the highest scores"
    one.add_argument("--suspects", type=Path, metavar="FOLDER", help=overlays)


def _add_engine(one: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    one.add_argument("--teacher-weights", type=Path, metavar="FILE", help="state dict, .pth or .safetensors")
    one.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    one.set_defaults(command=command)


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, write 256 or 256x320 (height x width)")
    return int(sides[0]), int(sides[-1])


def _train(options: argparse.Namespace) -> int:
    made = _recipe(options)
    job = train.Job(
        good=options.good,
        product=options.product,
        output=options.output,
        recipe=made,
        exclude=tuple(options.exclude),
    )
    teacher = load(options.teacher, options.teacher_weights)
    trained = train.train(job, teacher, device=options.device)
    print(trained.path)
    for calibration in trained.calibrations.values():
        _print(summary.calibration(calibration))
    if options.suspects:
        engine = Engine(teacher, device=options.device)
        _write_suspects(options, engine, bundle.load(trained.path, engine))
    return 0


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def _write_suspects(options: argparse.Namespace, engine: Engine, found: Bundle) -> None:
    calibration = found.calibration(engine.identity)
    holdout.write_suspects(options.suspects, engine, found.product, calibration, options.good)


def _recipe(options: argparse.Namespace) -> recipe.Recipe:
    names = ("size", "steps", "batch", "holdout", "seed", "false_reject_rate", "guarantee", "blocks")
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return replace(recipe.default(options.teacher), **given)


def _benchmark(options: argparse.Namespace) -> int:
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
    found = bundle.read(options.bundle)
    engine = Engine(load(found.teacher.name, options.teacher_weights), device=options.device)
    calibration = found.calibration(engine.identity)
    return bundle.load(options.bundle, engine), engine, calibration


def _evaluate(options: argparse.Namespace) -> int:
    found, engine, calibration = _open(options)
    result = evaluate.evaluate(engine, found.product, calibration, options.data)
    if options.json:
        print(json.dumps(result.to_json()))
        return 0
    print(f"{found.product}: {result.good} good and {result.defective} defective pictures on {result.engine}")
    _print(summary.evaluation(result))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    found = bundle.read(options.bundle)
    engine = Engine(load(found.teacher.name, options.teacher_weights), device=options.device)
    request = calibrate.Request(
        good=options.good,
        false_reject_rate=options.false_reject_rate,
        guarantee=options.guarantee,
        blocks=options.blocks,
        exclude=tuple(options.exclude),
    )
    done = calibrate.recalibrate(options.bundle, request, engine)
    if done.left_out:
        print(f"{done.left_out} pictures left out: the student was trained on them")
    print(options.bundle)
    _print(summary.calibration(done.bundle.calibration(engine.identity)))
    if options.suspects:
        _write_suspects(options, engine, done.bundle)
    return 0


def _sensitivity(options: argparse.Namespace) -> int:
    grid = sensitivity.Grid(pictures=options.pictures)
    found, engine, calibration = _open(options)
    unseen = holdout.unseen(found, images.pictures_below(images.good_folder(options.good)))
    pictures = evaluate.read_prepared(sensitivity.draw(unseen, grid.pictures, options.seed), found.size)
    result = sensitivity.measure(engine, found.product, calibration, pictures, seed=options.seed, grid=grid)
    if options.json:
        print(json.dumps(result.to_json()))
    else:
        _print(summary.sensitivity(result))
    return 0


def _report(options: argparse.Namespace) -> int:
    page.check_place(options.output)
    found, engine, _ = _open(options)
    request = gather.Request(data=options.data, good=options.good)
    page.write(options.output, gather.gather(found, engine, request, datetime.now().astimezone()))
    print(options.output)
    return 0


def _predict(options: argparse.Namespace) -> int:
    _check_stems(options)
    found, engine, calibration = _open(options)
    as_json = options.json or not sys.stdout.isatty()
    for folder in filter(None, (options.maps, options.heatmaps)):
        folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in options.images:
        try:
            picture = images.read(path)
        except ImageError as error:  # told, and the others are scored
            print(f"revdist: {error}", file=sys.stderr)
            failed = FAILED
            continue
        inspection = engine.inspect([images.prepare(picture, found.size)], [found.product])
        _tell(path, float(inspection.scores[0]), calibration, as_json=as_json)
        _write_maps(options, path, picture, inspection, calibration)
    return failed


def _check_stems(options: argparse.Namespace) -> None:
    twice = [stem for stem, count in Counter(path.stem for path in options.images).items() if count > 1]
    if twice and (options.maps or options.heatmaps):
        same = ", ".join(str(path) for path in options.images if path.stem == twice[0])
        raise RevdistError(f"{same} would overwrite each other's {twice[0]}.npy or .png", hint="run them one by one")


def _tell(path: Path, score: float, calibration: Calibration, *, as_json: bool) -> None:
    decision, p_value, estimate = calibration.decide(score), calibration.p_value(score), calibration.p_estimate(score)
    if as_json:
        line = {"image": str(path), "score": score, "threshold": calibration.threshold}
        print(json.dumps(line | {"decision": decision, "p_value": p_value, "p_estimate": estimate}), flush=True)
    else:
        told = "" if estimate is None else f" (estimated {estimate:.5f})"
        print(f"{decision:6}  {score / calibration.threshold:6.2f} x threshold  p {p_value:.4f}{told}  {path}")


def _write_maps(
    options: argparse.Namespace, path: Path, picture: images.Pixels, inspection: Inspection, calibration: Calibration
) -> None:
    try:
        if options.maps:
            np.save(options.maps / f"{path.stem}.npy", inspection.map(0))
        if options.heatmaps:
            overlay = heatmaps.heatmap(picture, inspection.map(0), calibration.threshold)
            Image.fromarray(overlay).save(options.heatmaps / f"{path.stem}.png")
    except OSError as error:
        raise RevdistError(
            f"{error.filename or options.maps or options.heatmaps}: cannot be written: {error}"
        ) from error


def _show(options: argparse.Namespace) -> int:
    found = bundle.read(options.bundle)
    _print(summary.bundle(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
