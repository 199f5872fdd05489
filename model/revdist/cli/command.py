"""The command `revdist`: train, look, evaluate, calibrate, report, predict, export, bench, and others.

Nothing here imports torch, which takes seconds: --help, --version and a mistake in the arguments are answered at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import get_args

from revdist import recipe
from revdist.bench import defaults as bench
from revdist.cli import shared_options, typed
from revdist.errors import RevdistError
from revdist.evaluation import defaults as sensitivity
from revdist.files import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0; 2 after an error, printed on stderr; 130 after Ctrl-C; 141 if the reader has gone."""
    console.prepare()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return console.run("revdist", lambda: _told(arguments))


def _told(arguments: Sequence[str] | None) -> int:
    """Run a command; print an error that a person can mend on stderr."""
    options = _parser().parse_args(arguments)
    try:
        _check_bundle(options)
        return _run(options)
    except RevdistError as error:
        print(f"revdist: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return console.FAILED


def _check_bundle(options: argparse.Namespace) -> None:
    """Raise BundleError for a folder without a bundle: a mistyped name is reported before torch is imported."""
    from revdist.bundle import bundle_files

    looks_itself = hasattr(options, "random")  # bench: its arguments may name a bundle and a teacher, which is refused
    if getattr(options, "bundle", None) is not None and not looks_itself:
        bundle_files.content(options.bundle, bundle_files.MANIFEST)


def _run(options: argparse.Namespace) -> int:
    """Import what a command needs, count free processors meanwhile, and run the command."""
    from revdist.engines.free_threads import FreeThreads

    # None: quick commands, and bench, which decides itself
    thread_count: int | None = getattr(options, "threads", None)
    threads = None if thread_count is None else FreeThreads(fixed=thread_count)
    import torch

    module, _, function = options.command.partition(".")
    command: Callable[[argparse.Namespace], int] = getattr(import_module(f"revdist.cli.{module}"), function)
    with threads.deciding(torch.get_num_threads, torch.set_num_threads) if threads else nullcontext():
        return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="revdist", description="Learn what good parts look like; find those that differ."
    )
    parser.add_argument("--version", action=console.ShowVersion, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(subparsers.add_parser("train", help="train a product from pictures of good parts"))

    command = subparsers.add_parser("evaluate", help="measure a bundle on labelled test pictures (MVTec layout)")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument(
        "--data", type=Path, required=True, metavar="ROOT", help="holds test/<kind> and ground_truth/<kind>"
    )
    command.add_argument("--json", action="store_true", help="print JSON for programs")
    shared_options.add_engine(command, "judging_commands.run_evaluate")

    command = subparsers.add_parser(
        "calibrate", help="set the threshold for a false-reject rate from unseen good pictures"
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--good", type=Path, required=True, metavar="DIR", help="pictures of good parts")
    command.add_argument("--false-reject-rate", type=float, required=True, metavar="R", help="such as 0.01")
    share = "for int8: take the teacher's ranges from another bundle, so that one pass of it serves both products"
    command.add_argument("--share", type=Path, metavar="BUNDLE", help=share)
    shared_options.add_good(command)
    shared_options.add_teacher_weights(command)
    names = "what to calibrate for, such as torch-cpu-bfloat16, cpu-int8, cuda-float16 or openvino-cpu-bfloat16 "
    names += "(default: every engine that the bundle is calibrated for and this machine has)"
    command.add_argument("--engine", metavar="NAME", help=names)
    replaced = "the threshold is made of the pictures in DIR alone; without, they are added to those it is made of"
    command.add_argument("--replace-held-out", action="store_true", help=replaced)
    shared_options.add_confirmation(command)
    shared_options.add_threads(command)
    command.set_defaults(command="training_commands.run_calibrate")

    command = subparsers.add_parser(
        "sensitivity", help="measure which synthetic defects, painted on good pictures, are seen"
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--good", type=Path, required=True, metavar="DIR", help="pictures of good parts, also in lots")
    pictures = "how many to paint on (default: %(default)s, which makes 588 inspections)"
    command.add_argument("--pictures", type=int, default=sensitivity.PICTURES, metavar="N", help=pictures)
    command.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON for programs")
    shared_options.add_engine(command, "judging_commands.run_sensitivity")

    command = subparsers.add_parser(
        "report", help="make a page about a bundle: its promise, what it misses, where it looks"
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--data", type=Path, metavar="ROOT", help="test pictures as for evaluate")
    painted = "good pictures to paint synthetic defects on (default: test/good of ROOT)"
    command.add_argument("--good", type=Path, metavar="DIR", help=painted)
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, such as report.html")
    shared_options.add_engine(command, "judging_commands.run_report")

    command = subparsers.add_parser("look", help="show what a folder of pictures is, before it is trained with")
    command.add_argument("folder", type=Path, metavar="DIR", help="pictures, also in subfolders or in MVTec layout")
    page = "the page (default: <DIR>-look.html beside DIR)"
    command.add_argument("--output", type=Path, metavar="FILE", help=page)
    command.add_argument("--bits", type=int, metavar="N", help="bits that count in 16-bit pictures (default: all 16)")
    quick = "look for no odd ones and near copies, which takes a pass of a network for each picture"
    command.add_argument("--no-teacher", action="store_true", help=quick)
    command.set_defaults(command="judging_commands.run_look")

    command = subparsers.add_parser("predict", help="score pictures")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    command.add_argument("--maps", type=Path, metavar="DIR", help="write raw anomaly maps as <stem>.npy")
    command.add_argument("--heatmaps", type=Path, metavar="DIR", help="write overlays as <stem>.png")
    coloured = (
        "threshold: comparable between pictures; paper: the coarsest scale alone, each picture from its lowest to its "
    )
    coloured += "highest value, to compare with the article's figures (default: %(default)s)"
    command.add_argument("--heatmap-scale", choices=("threshold", "paper"), default="threshold", help=coloured)
    command.add_argument("--json", action="store_true", help="one line of JSON for each image, as without a terminal")
    shared_options.add_engine(command, "judging_commands.run_predict")

    command = subparsers.add_parser("export", help="write a bundle as an ONNX model, for runtimes other than torch")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="the model, such as cell.onnx")
    command.add_argument("--batch", type=int, default=0, metavar="N", help="pictures at once (default: any number)")
    shared_options.add_teacher_weights(command)
    command.set_defaults(command="bundle_commands.run_export")

    _add_bench(subparsers.add_parser("bench", help="measure how fast a bundle's engines are, beside peers, in one run"))

    command = subparsers.add_parser("benchmark", help="train and evaluate every product of an MVTec-style folder")
    command.add_argument("root", type=Path, metavar="ROOT", help="holds <product>/train/good, test and ground_truth")
    command.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for bundles and results; goes on there"
    )
    command.add_argument(
        "--products", type=lambda text: text.split(","), default=[], metavar="A,B", help="(default: all)"
    )
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each product (%(default)s)")
    shared_options.add_recipe(command)
    shared_options.add_threads(command)
    shared_options.add_device(command, "training_commands.run_benchmark")

    command = subparsers.add_parser("import-rd4ad", help="make a bundle of a checkpoint of the paper's official code")
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .pth file that holds bn and decoder")
    command.add_argument(
        "--teacher", choices=recipe.RESNETS, required=True, metavar="NAME", help=", ".join(recipe.RESNETS)
    )
    command.add_argument("--product", required=True, metavar="NAME")
    unseen = "pictures of good parts that it was not trained with: they set the threshold"
    command.add_argument("--good", type=Path, required=True, metavar="DIR", help=unseen)
    shared_options.add_output(command)
    command.add_argument(
        "--size", type=typed.size, default=(256, 256), metavar="N|HxW", help="input size (default: 256)"
    )
    rate = "wanted share of good parts rejected (default: %(default)s)"
    command.add_argument("--false-reject-rate", type=float, default=0.01, metavar="R", help=rate)
    shared_options.add_bits(command)
    shared_options.add_confirmation(command)
    shared_options.add_threads(command)
    shared_options.add_device(command, "training_commands.run_import_rd4ad")

    command = subparsers.add_parser("show", help="tell what a bundle is, and check its files")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.set_defaults(command="bundle_commands.run_show")
    return parser


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE")
    drawn = "random weights for this teacher in the place of a bundle: time does not depend on them"
    parser.add_argument("--random", choices=recipe.TEACHERS, metavar="TEACHER", help=drawn)
    parser.add_argument(
        "--size", type=typed.size, metavar="N|HxW", help="input size, with --random (default: by teacher)"
    )
    parser.add_argument("--tile", type=typed.size, metavar="N|HxW", help="of tiles, with --random (default: none)")
    students = get_args(recipe.StudentName)
    parser.add_argument("--student", choices=students, help="its design, with --random (default: by teacher)")
    bottlenecks = get_args(recipe.BottleneckName)
    parser.add_argument("--bottleneck", choices=bottlenecks, help="its bottleneck, with --random (default: by teacher)")
    engines = "such as cpu-int8, several times (default: every precision that this machine has)"
    parser.add_argument("--engine", action="append", default=[], metavar="NAME", help=engines)
    others = (
        "rd4ad: the paper's loop, written anew, or of a clone with rd4ad=CHECKOUT; openvino; anomalib (%(default)s)"
    )
    parser.add_argument("--against", default=bench.PEER, metavar="PEER,PEER", help=others)
    batches = ",".join(map(str, bench.BATCHES))
    parser.add_argument(
        "--batches", type=typed.numbers, default=bench.BATCHES, metavar="A,B", help=f"(default: {batches})"
    )
    side = "pixels a side of the picture that a call begins with (default: %(default)s)"
    parser.add_argument("--picture", type=int, default=bench.PICTURE_PX, metavar="N", help=side)
    time = "for the rounds of all batch sizes together, one of each at least (default: %(default)s)"
    parser.add_argument("--seconds", type=float, default=bench.SECONDS, metavar="S", help=time)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the times a picture")
    shared_options.add_device(parser, "bundle_commands.run_bench")


def _add_train(parser: argparse.ArgumentParser) -> None:
    plain = recipe.Recipe()
    parser.add_argument("--good", type=Path, required=True, metavar="DIR", help="pictures of good parts")
    parser.add_argument("--product", required=True, metavar="NAME")
    shared_options.add_output(parser)
    shared_options.add_recipe(parser)
    parser.add_argument("--seed", type=int, metavar="N", help=f"(default: {plain.seed})")
    budget = "train in this time at most, such as 90s, 10m or 2h: steps, then student, then size are planned for it"
    parser.add_argument("--budget", type=typed.duration, metavar="TIME", help=budget)
    reference = "a picture whose part lies right: parts that lie shifted or turned are brought to its position"
    parser.add_argument("--align", type=Path, metavar="FILE", help=reference)
    area = "where the part lies in that picture, pixels (default: all of it)"
    parser.add_argument("--align-area", type=typed.area, metavar="X,Y,W,H", help=area)
    limits = "most that a part may lie off: pixels, degrees and share of its size (default: 20,5,0)"
    parser.add_argument("--align-limits", type=typed.limits, metavar="PX,DEG,SHARE", help=limits)
    masked = "what is not inspected, such as a serial number: a picture (not 0 where it is masked), or polygons as YAML"
    parser.add_argument("--mask", type=Path, metavar="FILE", help=masked)
    smallest = "smallest defect that must be seen, such as 12 (pixels of the pictures) or 0.3mm: the input size follows"
    parser.add_argument("--defect", type=typed.extent, metavar="N|Nmm", help=smallest)
    field = "what the longer side of a picture shows, for a defect in mm, such as 80mm"
    parser.add_argument("--field", type=typed.extent, metavar="Nmm", help=field)
    changed = "go on with a stopped run though pictures have changed since"
    parser.add_argument("--go-on", action="store_true", help=changed)
    shared_options.add_good(parser)
    shared_options.add_confirmation(parser)
    shared_options.add_threads(parser)
    shared_options.add_device(parser, "training_commands.run_train")


if __name__ == "__main__":
    sys.exit(main())
