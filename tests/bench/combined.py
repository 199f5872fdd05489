"""What the combined score is worth beside the paper's, with the same students: several sets and seeds.

    python tests/bench/combined.py --tiles ../shared/data/magnetic_tile --boards PCBData --output combined.jsonl

Each run trains the default recipe of efficientnet_lite0 at 224x224 on 200 pictures and appends one line; runs that are
there already are skipped. Statistics come from the pictures trained with. Misses are counted at the threshold that the
stated share of the tested good pictures exceeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sets import BOARDS, SETS, Data, load

from revdist import recipe
from revdist.data.images import Pixels
from revdist.engines.engine import Engine
from revdist.evaluation import measures
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.scoring.detector import Scoring
from revdist.training import score_units, train
from revdist.training.checkpoint import Checkpoint

TEACHER, BATCH, RATES = "efficientnet_lite0", 8, (0.01, 0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, metavar="ROOT", help="magnetic_tile in the MVTec layout")
    parser.add_argument("--boards", type=Path, metavar="ROOT", help="PCBData of DeepPCB")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--sets", nargs="+", choices=SETS + BOARDS, default=list(SETS + BOARDS), metavar="NAME")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    engine, lines = Engine(teacher.load(TEACHER), device="cpu"), _lines(options.output)
    for seed, name in itertools.product(options.seeds, options.sets):
        if any((line["set"], line["seed"]) == (name, seed) for line in lines):
            continue
        wanted = replace(recipe.default(TEACHER), seed=seed, score="combined")
        data = load(name, options.boards if name in BOARDS else options.tiles, wanted.size, seed)
        line = {"set": name, "seed": seed, **measured(engine, data, wanted)}
        with options.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print_table(_lines(options.output))
    return 0


def measured(engine: Engine, data: Data, wanted: Recipe) -> dict[str, dict[str, float]]:
    """Train one student and measure both scores with it."""
    student = train.make_student(wanted, teacher.load(TEACHER), engine.device)
    with tempfile.TemporaryDirectory() as folder:
        state = Checkpoint(Path(folder) / "state", {})
        trained = train.fit(engine, student, data.good, wanted, state, threading.Event()).average
    combination = score_units.measure(engine, trained, data.good, wanted)
    figures = {}
    for name, scoring in (("cosine", Scoring()), ("combined", Scoring(combination=combination))):
        engine.add(name, trained, wanted.size, scoring)
        scores = _scores(engine, name, data.tested)
        good, bad = np.sort(scores[~data.defective])[::-1], scores[data.defective]
        figures[name] = {"auroc": measures.auroc(data.defective, scores)} | {
            f"missed at {rate:.0%}": float((bad <= good[int(rate * len(good))]).mean()) for rate in RATES
        }
    return figures


def _scores(engine: Engine, product: str, pictures: list[Pixels]) -> npt.NDArray[np.float64]:
    batches = [pictures[begin : begin + BATCH] for begin in range(0, len(pictures), BATCH)]
    return np.concatenate([engine.inspect(batch, [product] * len(batch)).scores for batch in batches]).astype(float)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print mean and standard deviation over the seeds, in percent."""
    by_set: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_set[line["set"]].append(line)
    for name, runs in by_set.items():
        for figure in runs[0]["cosine"]:
            before, after = (np.array([run[score][figure] for run in runs]) * 100 for score in ("cosine", "combined"))
            spread = f"{before.std(ddof=1):.1f} {after.std(ddof=1):.1f}" if len(runs) > 1 else "-"
            print(f"{name:14} {figure:12} {before.mean():6.1f} {after.mean():6.1f} ({spread}, {len(runs)} seeds)")


if __name__ == "__main__":
    sys.exit(main())
