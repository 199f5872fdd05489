"""Declares the options that several commands of `revdist` share. Imports nothing that takes long."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from revdist import recipe
from revdist.cli import typed
from revdist.data.reading import Fit
from revdist.thresholds.guarantee import Guarantee


def add_confirmation(parser: argparse.ArgumentParser) -> None:
    confirmed = "outliers that a person has found to be good parts: these files, or all; until then they move nothing"
    parser.add_argument("--confirm-outliers", type=Path, nargs="*", action="extend", metavar="FILE", help=confirmed)


def add_bits(parser: argparse.ArgumentParser) -> None:
    depth = "bits that count in 16-bit or deeper pictures, such as 12 for a camera's 12-bit format (default: all 16)"
    parser.add_argument("--bits", type=int, metavar="N", help=depth)


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--replace", action="store_true", help="also in the place of a bundle that is there")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    plain = recipe.Recipe()
    parser.add_argument(
        "--teacher",
        choices=recipe.TEACHERS,
        default=plain.teacher,
        metavar="NAME",
        help=f"{', '.join(recipe.TEACHERS)}",
    )
    recipes = "default, or rd4ad: as the paper's code does, 200 epochs at 256 pixels (default: %(default)s)"
    parser.add_argument("--recipe", choices=recipe.NAMED, default="default", metavar="NAME", help=recipes)
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: by recipe and teacher)")
    parser.add_argument(
        "--size", type=typed.size, metavar="N|HxW", help="input size, multiples of 32 (default: by teacher)"
    )
    add_bits(parser)
    fits = (
        "how a picture comes to the input's aspect ratio: each side by itself, whole with its edges repeated around, "
    )
    fits += "or the middle of it (default: stretch)"
    parser.add_argument("--fit", choices=get_args(Fit), help=fits)
    tiles = "the networks see a picture in tiles of this size: for large pictures with small defects"
    parser.add_argument("--tile", type=typed.size, metavar="N|HxW", help=tiles)
    parser.add_argument("--batch", type=int, metavar="N", help="pictures, or tiles, a step (default: by teacher)")
    students = "official: the paper's; slim: narrow, several times less work (default: slim for efficientnet_lite0)"
    parser.add_argument("--student", choices=get_args(recipe.StudentName), help=students)
    bottlenecks = "full: all scales, trained (MFF and OCE); oce: zeros for all but the coarsest; coarse: the same "
    bottlenecks += (
        "without layers that see zeros; pretrained: the teacher's own last stage, frozen (default: by teacher)"
    )
    parser.add_argument("--bottleneck", choices=get_args(recipe.BottleneckName), help=bottlenecks)
    scales = "scales that count in the anomaly map: 1 fine, 2 middle, 3 coarse (default: 1,2,3)"
    parser.add_argument("--scales", type=typed.scales, metavar="A,B", help=scales)
    combine = f"how the maps of the scales become one (default: {plain.combine})"
    parser.add_argument("--combine", choices=get_args(recipe.Combine), help=combine)
    scores = (
        "cosine: the paper's map; combined: with what is usual at each place, and how features differ in good parts "
    )
    scores += f"(default: {plain.score})"
    parser.add_argument("--score", choices=get_args(recipe.ScoreName), help=scores)
    parser.add_argument("--holdout", type=float, metavar="SHARE", help=f"for calibration (default: {plain.holdout})")
    rate = f"wanted share of good parts rejected (default: {plain.false_reject_rate})"
    parser.add_argument("--false-reject-rate", type=float, metavar="R", help=rate)


def add_good(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and calibration share: for the threshold and the pictures of good parts."""
    kinds = get_args(Guarantee)
    when = "the rate holds on average over calibrations, or for this one with 95 %% confidence (default: %(default)s)"
    parser.add_argument("--guarantee", choices=kinds, default=kinds[0], help=when)
    blocks = "hold out whole lots or days: 'folders' for subfolders, or a pattern on the path such as 'lot(\\d+)_'"
    parser.add_argument("--blocks", default="", metavar="REGEX", help=blocks)
    left_out = "pictures in DIR to leave out; the bundle keeps a record of them"
    parser.add_argument("--exclude", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help=left_out)
    overlays = "write overlays of the held-out pictures with the highest scores"
    parser.add_argument("--suspects", type=Path, metavar="FOLDER", help=overlays)


def add_engine(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a command that runs a bundle on an engine."""
    add_teacher_weights(parser)
    names = "auto, or an engine that the bundle is calibrated for, such as cpu or torch-cpu-bfloat16 (%(default)s: the "
    names += "fastest of them on this machine)"
    parser.add_argument("--engine", default="auto", metavar="NAME", help=names)
    add_threads(parser)
    parser.set_defaults(command=command)


def add_device(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a command that runs on a device, whatever a bundle is calibrated for."""
    add_teacher_weights(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.set_defaults(command=command)


def add_teacher_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher-weights", type=Path, metavar="FILE", help="state dict, .pth or .safetensors")


def add_threads(parser: argparse.ArgumentParser) -> None:
    threads = "threads to compute with (default: as many as other programs leave processors free)"
    parser.add_argument("--threads", type=typed.threads, default=0, metavar="N", help=threads)
