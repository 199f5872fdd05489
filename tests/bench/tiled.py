"""What tiles gain and cost: large pictures with one small defect, seen whole and small, or in tiles at full resolution.

    python tests/bench/tiled.py --output tiled.jsonl

The pictures are modules of 3x4 real solar cells (elpv, monocrystalline), put together at random from cells that are
either trained with or tested; a defective module has one surely defective cell. Last iterate, nothing selected. Runs
that are in the file already are skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ablation import cell
from sets import cells, draw
from training import TEACHER, fit

from revdist import recipe
from revdist.data import images
from revdist.data.images import Pixels, Size
from revdist.data.tiles import Tiles
from revdist.engines.engine import Engine
from revdist.evaluation import measures
from revdist.networks import teacher

ROWS, COLUMNS, SIDE = 3, 4, 300  # cells of a module; pixels of a cell
TRAINED, TESTED = 24, 60  # modules to train with; tested of each kind
WAYS: dict[str, tuple[Size, Size | None]] = {
    "whole, 288x384": ((288, 384), None),
    "whole, 448x608": ((448, 608), None),
    "896x1184, tiles of 160": ((896, 1184), (160, 160)),
    "896x1184, tiles of 256": ((896, 1184), (256, 256)),
}
WHOLE = "896x1184, trained in tiles of 256, judged whole"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    if not options.table:
        for seed in options.seeds:
            run(seed, options.steps, options.output)
    print_table(options.output)
    return 0


def run(seed: int, steps: int, output: Path) -> None:
    """All ways with one draw of modules."""
    good, tested, defective = modules(seed)
    encoder = teacher.load(TEACHER)
    for way, (sides, tile) in WAYS.items():
        if any((line["way"], line["seed"], line["steps"]) == (way, seed, steps) for line in lines_of(output)):
            continue
        made = replace(recipe.default(TEACHER), size=sides, tile=tile, steps=steps, seed=seed)
        engine = Engine(encoder, device="cpu")
        tiles = made.tiles
        begun = time.monotonic()
        parts = [part for picture in prepared(good, sides) for part in tiles.cut(picture)]
        student = fit(engine, parts, made)
        trained_s = time.monotonic() - begun
        engine.add(way, student, sides, tile=tile)
        found = {way: judged(engine, way, prepared(tested, sides), defective) | {"training s": trained_s}}
        if way.endswith("tiles of 256"):
            engine.add(WHOLE, student, sides)
            found[WHOLE] = judged(engine, WHOLE, prepared(tested, sides), defective)
        with output.open("a") as file:
            for name, figures in found.items():
                count = Tiles.of(sides, None if name == WHOLE else tile).count
                key = {"way": name, "seed": seed, "steps": steps, "tiles": count}
                file.write(json.dumps(key | figures) + "\n")
                print(key, figures, flush=True)


def modules(seed: int) -> tuple[list[Pixels], list[Pixels], np.ndarray]:
    """Modules to train with, modules to test, and which of those are defective."""
    rng = np.random.default_rng((seed, 11))
    all_good, _, all_bad = cells("mono")
    shuffled = draw(all_good, len(all_good), rng)
    fitted, rest = shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]
    count = ROWS * COLUMNS
    good = [module(draw(fitted, count, rng)) for _ in range(TRAINED)]
    tested = [module(draw(rest, count, rng)) for _ in range(2 * TESTED)]
    for row, bad in zip(range(TESTED, 2 * TESTED), draw(all_bad, TESTED, rng), strict=True):
        at = divmod(int(rng.integers(count)), COLUMNS)
        top, left = (place * SIDE for place in at)
        tested[row][top : top + SIDE, left : left + SIDE] = images.read(bad)
    return good, tested, np.arange(2 * TESTED) >= TESTED


def module(paths: Sequence[Path]) -> Pixels:
    """Pictures of cells as one (900, 1200, 3)."""
    pictures = np.stack([images.read(path) for path in paths]).reshape(ROWS, COLUMNS, SIDE, SIDE, 3)
    return np.ascontiguousarray(pictures.transpose(0, 2, 1, 3, 4).reshape(ROWS * SIDE, COLUMNS * SIDE, 3))


def prepared(pictures: Sequence[Pixels], sides: Size) -> list[Pixels]:
    return [images.prepare(picture, sides) for picture in pictures]


def judged(engine: Engine, name: str, pictures: list[Pixels], defective: np.ndarray) -> dict[str, float]:
    """Image AUROC, and the median time of a picture from its size to its score."""
    scores, times = [], []
    for picture in pictures:
        begun = time.perf_counter()
        scores.append(float(engine.inspect([picture], [name]).scores[0]))
        times.append(time.perf_counter() - begun)
    return {"image AUROC": measures.auroc(defective, np.array(scores)), "ms": 1e3 * float(np.median(times))}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(path: Path) -> None:
    """Mean and standard deviation over the seeds."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines_of(path):
        groups[line["way"]].append(line)
    print("| input | tiles | image AUROC | training s | ms a picture |\n| --- | --- | --- | --- | --- |")
    for way, runs in groups.items():
        trained = [run["training s"] for run in runs if "training s" in run]
        seconds = f"{np.median(trained):.0f}" if trained else "-"
        milliseconds = f"{np.median([run['ms'] for run in runs]):.0f}"
        auroc = cell([run["image AUROC"] for run in runs])
        print(f"| {way} | {runs[0]['tiles']} | {auroc} | {seconds} | {milliseconds} |")


if __name__ == "__main__":
    sys.exit(main())
