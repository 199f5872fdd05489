"""Training beside the paper's loop: seconds and AUROC of both on the same pictures.

    python tests/bench/training.py --tiles ../shared/data/magnetic_tile

The paper's loop is written anew operation for operation: every step reads its pictures with PIL, runs the plain teacher
and the official student, and Adam 5e-3 follows. Ours is the default recipe. efficientnet_lite0, last iterate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation import scores
from PIL import Image
from sets import load

from revdist import recipe
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.evaluation import measures
from revdist.networks import teacher
from revdist.networks.loss import flattened_cosine
from revdist.scoring import detector
from revdist.training import train
from revdist.training.checkpoint import Checkpoint

TEACHER = "efficientnet_lite0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, metavar="ROOT", help="magnetic_tile in the MVTec layout")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--own-steps", type=int, metavar="N", help="of the default recipe (default: as many)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    size = (options.size, options.size)
    made = replace(recipe.default(TEACHER), steps=options.own_steps or options.steps, size=size, batch=options.batch)
    data, encoder = load("magnetic_tile", options.tiles, size, made.seed), teacher.load(TEACHER)
    engine = Engine(encoder, device="cpu")
    begun = time.monotonic()
    ours = fit(engine, data.good, made)
    own_s = time.monotonic() - begun
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(data.good))]
        for path, picture in zip(paths, data.good, strict=True):
            Image.fromarray(picture).save(path)
        begun = time.monotonic()
        papers = official(encoder, paths, replace(made, steps=options.steps))
        papers_s = time.monotonic() - begun
    for name, seconds, student in (("the paper's loop", papers_s, papers), ("default recipe", own_s, ours)):
        found = scores(engine, student, data.tested, {})
        assert data.masks is not None
        auroc, pro = measures.auroc(data.defective, found["sum"]), measures.pro(data.masks, found["map of sum"])
        print(f"{name}: {seconds:.1f} s, image AUROC {auroc:.2%}, PRO {pro:.2%}")
    print(f"ratio {papers_s / own_s:.2f}")
    return 0


def fit(engine: Engine, pictures: list[images.Pixels], made: recipe.Recipe) -> torch.nn.Module:
    """As `revdist train` does."""
    student = train.make_student(made, teacher.load(TEACHER), engine.device)
    with tempfile.TemporaryDirectory() as folder:
        return train.fit(
            engine, student, pictures, made, Checkpoint(Path(folder) / "state", {}), threading.Event()
        ).average.eval()


def official(encoder: teacher.Teacher, paths: list[Path], made: recipe.Recipe) -> torch.nn.Module:
    """As main.py of the paper's code does, with this teacher."""
    torch.manual_seed(made.seed)
    student = detector.Student(TEACHER, design="official").train()
    parameters: list[Any] = [*student.decoder.parameters(), *student.bottleneck.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=5e-3, betas=(0.5, 0.999))
    order: list[int] = []
    for _ in range(made.steps):
        if len(order) < made.batch:
            order += torch.randperm(len(paths)).tolist()
        rows, order = order[: made.batch], order[made.batch :]
        pictures = [np.asarray(Image.open(paths[row]).convert("RGB").resize(made.size[::-1])) for row in rows]
        x = (torch.from_numpy(np.stack(pictures)).float() - encoder.mean) / encoder.std
        taught = encoder(x.permute(0, 3, 1, 2).contiguous())
        loss = flattened_cosine(taught, student(taught))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return student.eval()


if __name__ == "__main__":
    sys.exit(main())
