"""What each part of the recipe and of the score is worth: several sets and seeds, last iterate, nothing selected.

    python tests/bench/ablation.py --tiles ../shared/data/magnetic_tile --output results.jsonl

Each run appends one line; runs that are there already are skipped, so it can be stopped at any time. The table of all
lines is printed in the end (`--table` prints it alone). One teacher, one input size, one number of steps for all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from revdist import detector, evaluate, images, measures, recipe, teacher, train
from revdist.engine import Engine
from revdist.recipe import Recipe
from revdist.resume import Checkpoint

SETS = ("magnetic_tile", "elpv mono", "elpv poly")
TRAINED, HELD_OUT, TESTED = 200, 50, 150  # good pictures to train with and held out; tested of each kind
ADAM: dict[str, Any] = {
    "optimiser": "adam", "learning_rate": 5e-3, "betas": (0.5, 0.999), "weight_decay": 0.0, "schedule": "constant",
    "warmup_share": 0.0, "gradient_clip": 0.0, "masked_share": 0.0,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "rd4ad": ADAM,
    "AdamW, cosine": {"masked_share": 0.0},
    "AdamW, cosine, masking": {},
    "... and pasting": {"pasted_share": 0.5},
    "... and copies": {"copies": 2},
    "AdamW, cosine, pasting": {"masked_share": 0.0, "pasted_share": 0.5},
}


@dataclass(frozen=True)
class Data:
    """Prepared pictures."""

    good: list[images.Pixels]
    held_out: list[images.Pixels]  # good too, not trained with
    tested: list[images.Pixels]
    defective: npt.NDArray[np.bool_]
    masks: npt.NDArray[np.bool_] | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, metavar="ROOT", help="magnetic_tile in the MVTec layout")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="NAME")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if not options.table:
        run_all(options)
    print_table(options.output)
    return 0


def run_all(options: argparse.Namespace) -> None:
    engine = Engine(teacher.load("efficientnet_lite0"), device="cpu")
    plain = replace(recipe.default("efficientnet_lite0"), steps=options.steps, size=(options.size, options.size))
    for seed in range(options.seeds):
        for name in options.sets:
            data = load(name, options.tiles, plain.size, seed)
            for variant in options.variants:
                key = {"set": name, "variant": variant, "seed": seed, "steps": options.steps, "size": options.size}
                if any(key.items() <= line.items() for line in lines(options.output)):
                    continue
                found = run(engine, data, replace(plain, seed=seed, average_share=0.1, **VARIANTS[variant]))
                with options.output.open("a") as file:
                    file.write(json.dumps(key | found | {"load": os.getloadavg()[0]}) + "\n")
                print(key, found, flush=True)


def load(name: str, tiles: Path, size: tuple[int, int], seed: int) -> Data:
    """Draw pictures of a set. What is tested was never trained with."""
    rng = np.random.default_rng((seed, 7))
    if name == "magnetic_tile":
        samples = images.labelled_pictures(tiles)
        good = draw(images.good_pictures(tiles), TRAINED + HELD_OUT, rng)
        tested, defective = [each.path for each in samples], [each.defective for each in samples]
        masks = [images.read_mask(each.mask, size) if each.mask else np.zeros(size, bool) for each in samples]
    else:
        all_good, bad = cells(name.removeprefix("elpv "))
        drawn = draw(all_good, TRAINED + HELD_OUT + TESTED, rng)
        good, rest, bad = drawn[:-TESTED], drawn[-TESTED:], draw(bad, TESTED, rng)
        tested, defective, masks = rest + bad, [False] * len(rest) + [True] * len(bad), []
    fitted, held_out = good[:TRAINED], good[TRAINED:]
    return Data(
        evaluate.read_prepared(fitted, size),
        evaluate.read_prepared(held_out, size),
        evaluate.read_prepared(tested, size),
        np.array(defective),
        np.stack(masks) if masks else None,
    )


def cells(kind: str) -> tuple[list[Path], list[Path]]:
    """Photographs of functional (probability of a defect 0) and of surely defective solar cells (probability 1)."""
    found = importlib.util.find_spec("elpv_dataset")
    assert found
    assert found.origin
    data = Path(found.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return tuple([data / path for path, label, each in rows if each == kind and float(label) == p] for p in (0.0, 1.0))  # type: ignore[return-value]


def draw(paths: list[Path], count: int, rng: np.random.Generator) -> list[Path]:
    return [paths[row] for row in rng.permutation(len(paths))[:count]]


def run(engine: Engine, data: Data, made: Recipe) -> dict[str, Any]:
    """Train once; measure the last student and the average, each with several scores."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fitted = train.fit(engine, data.good, made, Checkpoint(Path(folder) / "state", {}), threading.Event())
    seconds = time.monotonic() - begun
    found: dict[str, Any] = {"seconds": seconds}
    heads = {name: Head(engine, data.good, pool) for name, pool in POOLS.items()}
    for name, student in (("last", fitted.last), ("average", fitted.average)):
        tested = scores(engine, student, data.tested, heads)
        usual = scores(engine, student, data.held_out, heads)
        for head in heads:
            tested |= together(tested, usual, head)
        for score, values in tested.items():
            if values.ndim == 1:
                found[f"{name} {score}"] = measures.auroc(data.defective, values)
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
    size = pictures[0].shape[:2]
    for at in range(0, len(pictures), 8):
        taught = engine.features(pictures[at : at + 8])
        scales = [
            F.interpolate(detector.cosine_distance(t, s)[:, None], size, mode="bilinear", align_corners=True)[:, 0]
            for t, s in zip(taught, student(taught), strict=True)
        ]
        for name, fused in fusions(scales).items():
            smoothed = detector.smooth(fused)
            found[name].append(smoothed.amax((1, 2)).numpy())
            if name in ("sum", "product"):
                found[f"map of {name}"].append(smoothed.numpy())
            if name == "sum":
                most = smoothed.flatten(1).topk(smoothed[0].numel() // 100).values
                found["top 1 %"].append(most.mean(1).numpy())
        for name, head in heads.items():
            found[name].append(head(taught))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def fusions(scales: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    fine, middle, coarse = scales
    return {
        "sum": fine + middle + coarse, "product": fine * middle * coarse, "fine": fine, "middle": middle,
        "coarse": coarse, "middle + coarse": middle + coarse, "fine + middle": fine + middle,
    }  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(path: Path) -> None:
    """Mean and standard deviation over the seeds, percent."""
    groups: dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines(path):
        groups[line["size"], line["steps"], line["variant"]][line["set"]].append(line)
    for what in (
        "last sum",
        "average sum",
        "average top 1 %",
        "average product",
        "last head",
        "average PRO map of sum",
    ):
        print(f"\n{what}\n| size, steps, recipe | " + " | ".join(SETS) + " |\n| --- |" + " --- |" * len(SETS))
        for key, by_set in groups.items():
            print(f"| {key[0]}, {key[1]}, {key[2]} | " + " | ".join(cell(by_set[name], what) for name in SETS) + " |")


def cell(found: list[Mapping[str, Any]], what: str) -> str:
    values = [100 * line[what] for line in found if what in line]
    return (
        f"{np.mean(values):.2f} +- {np.std(values, ddof=min(1, len(values) - 1)):.2f} ({len(values)})"
        if values
        else "-"
    )


if __name__ == "__main__":
    sys.exit(main())
