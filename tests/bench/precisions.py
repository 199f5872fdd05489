"""What coarser engines cost in accuracy on real pictures: each calibrated for itself, as a user would.

    python tests/bench/precisions.py --tiles ../shared/data/magnetic_tile

On a processor without bfloat16, `--simulate` tells what torch's engine would give, and no time: it computes in float32
and rounds as that would.

One student a set and seed, trained in float32 by the default recipe. int8 takes the ranges of maps from pictures that
the student was trained with. The thresholds are for one of twenty good parts, from 50 held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sets

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import simulated

from revdist import recipe
from revdist.data import images
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.evaluation import measures
from revdist.networks import teacher
from revdist.thresholds import conformal
from revdist.training import train
from revdist.training.checkpoint import Checkpoint

EXACT = "torch-cpu-float32"
ENGINES = [EXACT, "torch-cpu-bfloat16", "torch-cpu-int8", "openvino-cpu-bfloat16", "openvino-cpu-int8"]
RATE = 0.05
OBSERVED = 32  # pictures for the ranges
Scores = npt.NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, metavar="ROOT", help="magnetic_tile in the MVTec layout")
    parser.add_argument("--sets", nargs="+", choices=sets.SETS, default=sets.SETS[:2], metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--steps", type=int, default=recipe.default("efficientnet_lite0").steps)
    parser.add_argument("--engines", nargs="+", choices=ENGINES[1:], default=ENGINES[1:], metavar="NAME")
    parser.add_argument("--simulate", action="store_true", help="torch's bfloat16 alone, on any processor")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    encoder = teacher.load("efficientnet_lite0")
    names = ["torch-cpu-bfloat16"] if options.simulate else options.engines
    rows = []
    for name in options.sets:
        for seed in options.seeds:
            made = replace(recipe.default("efficientnet_lite0"), steps=options.steps, seed=seed)
            data = sets.load(name, options.tiles, made.size, seed)
            for engine, found in measure(encoder, data, made, names, simulate=options.simulate).items():
                rows.append({"set": name, "seed": seed, "engine": engine} | found)
                print(rows[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    return 0


def measure(
    encoder: teacher.Teacher, data: sets.Data, made: recipe.Recipe, names: list[str], *, simulate: bool
) -> dict[str, dict[str, float]]:
    """Train once, score everything on each engine."""
    plain = Engine(encoder, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        state = Checkpoint(Path(folder) / "state", {})
        student = train.make_student(made, encoder, plain.device)
        fitted = train.fit(plain, student, data.good, made, state, threading.Event())
    plain.add("product", fitted.average, made.size)
    ranges = plain.observe("product", data.good[:: max(1, len(data.good) // OBSERVED)])
    scores: dict[str, tuple[Scores, Scores]] = {EXACT: both(plain, data)}
    for name in names:
        with simulated.bfloat16() if simulate else nullcontext():
            engine = Engine(encoder, **asdict(backend.parse(name)))
            engine.add("product", fitted.average, made.size, ranges=ranges if engine.needs_ranges else None)
        scores[name] = both(engine, data)
    return {name: compare(own, scores[EXACT], data) for name, own in scores.items()}


def both(engine: Engine, data: sets.Data) -> tuple[Scores, Scores]:
    return inspect(engine, data.held_out), inspect(engine, data.tested)


def inspect(engine: Engine, pictures: list[images.Pixels]) -> Scores:
    parts = [pictures[at : at + 8] for at in range(0, len(pictures), 8)]
    return np.concatenate([engine.inspect(part, ["product"] * len(part)).scores for part in parts]).astype(np.float64)


def compare(own: tuple[Scores, Scores], exact: tuple[Scores, Scores], data: sets.Data) -> dict[str, float]:
    rejected, expected = (decisions(*scores) for scores in (own, exact))
    deviations = np.abs(own[1] / exact[1] - 1)
    return {
        "image AUROC": measures.auroc(data.defective, own[1]),
        "image AUROC of float32": measures.auroc(data.defective, exact[1]),
        "decisions alike": float((rejected == expected).mean()),
        "false rejects": float(rejected[~data.defective].mean()),
        "escapes": float((~rejected[data.defective]).mean()),
        "deviation, median": float(np.median(deviations)),
        "deviation, highest": float(deviations.max()),
    }


def decisions(held_out: Scores, tested: Scores) -> npt.NDArray[np.bool_]:
    return np.asarray(tested > conformal.calibrate(held_out, RATE, engine="bench", fingerprint="").threshold)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Means over the seeds; of the change of AUROC the range, in points."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["set"], row["engine"]].append(row)
    print("\n| set | engine | image AUROC | change, points | decisions alike | false rejects | escapes | scores off |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (name, engine), group in groups.items():
        mean = {
            key: float(np.mean([row[key] for row in group])) for key in group[0] if isinstance(group[0][key], float)
        }
        change = [100 * (row["image AUROC"] - row["image AUROC of float32"]) for row in group]
        print(
            f"| {name} | {engine} | {mean['image AUROC']:.2%} | {min(change):+.2f} to {max(change):+.2f} "
            f"| {mean['decisions alike']:.1%} | {mean['false rejects']:.1%} | {mean['escapes']:.1%} "
            f"| {mean['deviation, median']:.2%} |"
        )


if __name__ == "__main__":
    sys.exit(main())
