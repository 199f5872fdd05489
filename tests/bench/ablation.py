"""What each part of the recipe and of the score is worth: several sets and seeds, last iterate, nothing selected.

    python tests/bench/ablation.py --tiles ../shared/data/magnetic_tile --output results.jsonl

Each run appends one line; runs that are there already are skipped, so it can be stopped at any time. The table of all
lines is printed in the end (`--table` prints it alone). One teacher and one number of steps for all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sets import BOARDS, SETS, Data, load

from revdist import recipe
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.evaluation import measures
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.scoring import detector
from revdist.training import train
from revdist.training.checkpoint import Checkpoint

KEY = ("set", "variant", "seed", "steps", "size")
SHOWN = {
    "Image AUROC, last weights": "last sum",
    "Image AUROC, averaged weights": "average sum",
    "Image AUROC, averaged weights, doubtful cells too": "average sum, doubtful too",
    "Image AUROC, averaged weights, mean of the top 1 %": "average top 1 %",
    "Image AUROC, averaged weights, mean of the top 10 %": "average top 10 %",
    "Image AUROC, averaged weights, maps multiplied": "average product",
    "Image AUROC, averaged weights, middle and coarse scale": "average middle + coarse",
    "Image AUROC, Mahalanobis head on pooled features alone": "average head spread",
    "Image AUROC, map and head, sum of z": "average sum of z, head spread",
    "Pixel AUROC, averaged weights": "average pixel map of sum",
    "PRO, averaged weights": "average PRO map of sum",
}
ADAM: dict[str, Any] = {"schedule": "constant", "masked_share": 0.0}
ADAMW: dict[str, Any] = {
    "optimiser": "adamw", "betas": (0.9, 0.999), "weight_decay": 1e-5, "warmup_share": 0.05, "gradient_clip": 0.1,
}  # fmt: skip
DEFAULT: dict[str, Any] = {"pasted_share": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": DEFAULT,
    "default, copies": DEFAULT | {"copies": 2},
    "default, fusion": DEFAULT | {"bottleneck": "full"},
    "default, fusion of zeros": DEFAULT | {"bottleneck": "oce"},
    "default, official student": DEFAULT | {"student": "official", "bottleneck": "full"},
    "rd4ad, slim student, fusion": ADAM | {"bottleneck": "full"},
    "default, pretrained bottleneck": DEFAULT | {"bottleneck": "pretrained"},
    "default, no masking, fusion": DEFAULT | {"masked_share": 0.0, "bottleneck": "full"},
    "rd4ad, official student (as published)": ADAM | {"student": "official", "bottleneck": "full"},
    "rd4ad, masking, pasting": ADAM | {"masked_share": 0.9, "pasted_share": 0.5},
    "AdamW, cosine": ADAMW | {"masked_share": 0.0},
    "AdamW, cosine, masking": ADAMW,
    "AdamW, cosine, masking, copies": ADAMW | {"copies": 2},
    "AdamW, clipped; cosine, masking, pasting, fusion": ADAMW | {"pasted_share": 0.5, "bottleneck": "full"},
    "AdamW, cosine, pasting": ADAMW | {"masked_share": 0.0, "pasted_share": 0.5},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, metavar="ROOT", help="magnetic_tile in the MVTec layout")
    parser.add_argument("--boards", type=Path, metavar="ROOT", help="PCBData of DeepPCB")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sizes", type=size, nargs="+", default=[(160, 160)], metavar="N|HxW", help="of the input")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--sets", nargs="+", choices=SETS + BOARDS, default=list(SETS), metavar="NAME")
    parser.add_argument("--others", type=Path, nargs="+", default=[], metavar="FILE", help="runs that are done already")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    if not options.table:
        for sets, root, option in (({"magnetic_tile"}, options.tiles, "--tiles"), (BOARDS, options.boards, "--boards")):
            if root is None and any(name in sets for name in options.sets):
                parser.error(f"{option} says where {', '.join(sets)} lie")
        logging.basicConfig(level=logging.WARNING)
        run_all(options)
    print_table([options.output, *options.others])
    return 0


def run_all(options: argparse.Namespace) -> None:
    encoder = teacher.load("efficientnet_lite0")
    engine = Engine(encoder, device="cpu")
    plain = replace(recipe.default("efficientnet_lite0"), steps=options.steps, pasted_share=0.0)
    for seed, sides, name in itertools.product(options.seeds, options.sizes, options.sets):
        done = lines(options.output, *options.others)
        keys = {
            variant: {"set": name, "variant": variant, "seed": seed, "steps": options.steps, "size": written(sides)}
            for variant in options.variants
        }
        wanted = {
            variant: key for variant, key in keys.items() if not any(key.items() <= line.items() for line in done)
        }
        if wanted:
            data = load(name, options.boards if name in BOARDS else options.tiles, sides, seed)
            for variant, key in wanted.items():
                made = replace(plain, seed=seed, size=sides, average_share=0.1, **VARIANTS[variant])
                found = run(engine, train.make_student(made, encoder, engine.device), data, made)
                with options.output.open("a") as file:
                    file.write(json.dumps(key | found | {"load": os.getloadavg()[0]}) + "\n")
                print(key, found, flush=True)


def size(text: str) -> images.Size:
    """A size (h, w) from `160` or `160x256`."""
    sides = text.split("x")
    return int(sides[0]), int(sides[-1])


def written(sides: images.Size) -> int | str:
    """As `size` reads it."""
    return sides[0] if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def run(engine: Engine, student: detector.Student, data: Data, made: Recipe) -> dict[str, Any]:
    """Train once; measure the last student and the average, each with several scores."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        state = Checkpoint(Path(folder) / "state", {})
        fitted = train.fit(engine, student, data.good, made, state, threading.Event())
    seconds = time.monotonic() - begun
    found: dict[str, Any] = {"seconds": seconds}
    heads = {name: Head(engine, data.good, pool) for name, pool in POOLS.items()}
    for name, trained in (("last", fitted.last), ("average", fitted.average)):
        tested = scores(engine, trained, data.tested, heads)
        usual = scores(engine, trained, data.held_out, heads)
        doubtful = scores(engine, trained, data.doubtful, heads) if data.doubtful else {}
        for head in heads:
            tested |= together(tested, usual, head)
        for score, values in tested.items():
            if values.ndim == 1:
                found[f"{name} {score}"] = measures.auroc(data.defective, values)
                if score in doubtful:
                    everything = np.concatenate([values, doubtful[score]])
                    labels = np.concatenate([data.defective, np.ones(len(doubtful[score]), bool)])
                    found[f"{name} {score}, doubtful too"] = measures.auroc(labels, everything)
            elif data.masks is not None:
                found[f"{name} pixel {score}"] = measures.auroc(data.masks, values)
                found[f"{name} PRO {score}"] = measures.pro(data.masks, values)
    return found


def together(
    tested: Mapping[str, npt.NDArray[Any]], usual: Mapping[str, npt.NDArray[Any]], head: str
) -> dict[str, npt.NDArray[Any]]:
    """Map and head in one score, each in units of what held-out good pictures have."""
    z = [(tested[each] - usual[each].mean()) / usual[each].std() for each in ("sum", head)]
    scaled = [tested[each] / np.quantile(usual[each], 0.9) for each in ("sum", head)]
    return {
        f"sum of z, {head}": z[0] + z[1],
        f"max of z, {head}": np.maximum(*z),
        f"max of ratios, {head}": np.maximum(*scaled),
    }


Taught = tuple[torch.Tensor, ...]
POOLS: dict[str, Callable[[Taught], torch.Tensor]] = {
    "head coarse": lambda taught: taught[2].mean((2, 3)),
    "head all": lambda taught: torch.cat([each.mean((2, 3)) for each in taught], 1),
    "head spread": lambda taught: torch.cat([taught[2].mean((2, 3)), taught[2].std((2, 3))], 1),
}


class Head:
    """Mahalanobis distance of pooled features to those of the good pictures."""

    def __init__(self, engine: Engine, good: list[images.Pixels], pool: Callable[[Taught], torch.Tensor]) -> None:
        self._pool = pool
        pooled = np.concatenate([self._pooled(engine.features(good[at : at + 8])) for at in range(0, len(good), 8)])
        self._mean, self._std = pooled.mean(0), pooled.std(0) + 1e-6
        whitened = (pooled - self._mean) / self._std
        correlation, share = np.cov(whitened.T), shrinkage(whitened)
        self._inverse = np.linalg.inv((1 - share) * correlation + share * np.eye(len(correlation)))

    def _pooled(self, taught: Taught) -> npt.NDArray[np.float64]:
        return self._pool(taught).double().numpy()

    def __call__(self, taught: Taught) -> npt.NDArray[np.float64]:
        away = (self._pooled(taught) - self._mean) / self._std
        return np.asarray(np.einsum("ni,ij,nj->n", away, self._inverse, away) ** 0.5)


def shrinkage(x: npt.NDArray[np.float64]) -> float:
    """How far to shrink a correlation matrix to the identity: Schaefer & Strimmer 2005. x: standardised (n, d)."""
    n = len(x)
    mean = x.T @ x / n
    variance = ((x**2).T @ (x**2) / n - mean**2) * n / (n - 1) ** 2 / 1.0
    off = ~np.eye(len(mean), dtype=bool)
    return float(np.clip(variance[off].sum() / (mean[off] ** 2).sum(), 0.01, 1.0))


@torch.no_grad()
def scores(
    engine: Engine, student: torch.nn.Module, pictures: list[images.Pixels], heads: Mapping[str, Head]
) -> dict[str, npt.NDArray[Any]]:
    """Scores (n,) and maps (n, h, w) of pictures by their names."""
    found: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    sides = pictures[0].shape[:2]
    for at in range(0, len(pictures), 8):
        taught = engine.features(pictures[at : at + 8])
        scales = [
            F.interpolate(detector.cosine_distance(t, s)[:, None], sides, mode="bilinear", align_corners=True)[:, 0]
            for t, s in zip(taught, student(taught), strict=True)
        ]
        for name, fused in fusions(scales).items():
            smoothed = detector.smooth(fused)
            found[name].append(smoothed.amax((1, 2)).numpy())
            if name in ("sum", "product"):
                found[f"map of {name}"].append(smoothed.numpy())
            if name == "sum":
                found["top 1 %"].append(detector.scores(smoothed, 0.01).numpy())
                found["top 10 %"].append(detector.scores(smoothed, 0.1).numpy())
        for name, head in heads.items():
            found[name].append(head(taught))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def fusions(scales: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    fine, middle, coarse = scales
    return {
        "sum": fine + middle + coarse, "product": fine * middle * coarse, "fine": fine, "middle": middle,
        "coarse": coarse, "middle + coarse": middle + coarse, "fine + middle": fine + middle,
    }  # fmt: skip


def lines(*paths: Path) -> list[dict[str, Any]]:
    """The runs of some files, each once."""
    found = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    return list({tuple(line[name] for name in KEY): line for line in found}.values())


def print_table(paths: Sequence[Path]) -> None:
    """Mean and standard deviation over the seeds, percent; in brackets the number of seeds where it is not three."""
    groups: dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines(*paths):
        groups[line["size"], line["steps"], line["variant"]][line["set"]].append(line)
    sets = [name for name in SETS + BOARDS if any(name in by_set for by_set in groups.values())]
    for title, what in SHOWN.items():
        print(f"\n{title}\n\n| size, steps, recipe | " + " | ".join(sets) + " |\n| --- |" + " --- |" * len(sets))
        for (sides, steps, variant), by_set in groups.items():
            cells = [cell([line[what] for line in by_set[name] if what in line]) for name in sets]
            print(f"| {sides}, {steps}, {variant} | " + " | ".join(cells) + " |")


def cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}" + (f" ({len(values)})" if len(values) != 3 else "")


if __name__ == "__main__":
    sys.exit(main())
