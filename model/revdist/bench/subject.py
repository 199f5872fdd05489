"""The detector that is benched: from a bundle, or with random weights where only time matters.

h w: size of the model's input, pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from revdist import recipe
from revdist.bundle import bundle
from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines.engine import Engine
from revdist.engines.loaded_product import Ranges
from revdist.networks import teacher
from revdist.networks.teacher import Teacher
from revdist.recipe import BottleneckName, Recipe, StudentName
from revdist.scoring import detector
from revdist.scoring.detector import Scoring

PICTURES = 3  # that a random detector is given
_SEED = 0
_SETTLING = 8, 64  # random batch norms take their statistics from 8 pictures of 64 pixels a side


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A detector and prepared pictures for it."""

    name: str
    teacher: Teacher
    student: detector.Student
    size: tuple[int, int]
    recipe: Recipe  # that the student is built by
    scoring: Scoring
    pictures: Sequence[Pixels]  # golden pictures, or pictures drawn at random
    plain: Engine  # float32 on the processor; it holds the student under `name`
    known_ranges: Ranges | None  # None unless the bundle is calibrated for int8

    def ranges(self) -> Ranges:
        """Return ranges for int8: the bundle's, or those of its few golden pictures, which suffice to measure time."""
        return self.known_ranges or self.plain.observe(self.name, self.pictures)

    def add_to(self, engine: Engine) -> None:
        """Add the student to an engine, without a calibration: timing needs none."""
        ranges = self.ranges() if engine.needs_ranges else None
        engine.add(self.name, self.student, self.size, self.scoring, tile=self.recipe.tile, ranges=ranges)

    def picture(self, side: int) -> Pixels:
        """Return a picture of side x side pixels, as a camera could give it."""
        large = cv2.resize(self.pictures[0], (side, side), interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(large, dtype=np.uint8)


def of_bundle(path: Path, weights: Path | None) -> Subject:
    """Load a bundle and check it with its golden pictures. Raises RevdistError."""
    product_bundle = bundle.read(path, weights=False)
    taught_by = teacher.load(product_bundle.teacher.name, weights)
    plain = Engine(taught_by, device="cpu")
    bundle.install(product_bundle, plain)
    return Subject(
        name=product_bundle.product,
        teacher=taught_by,
        student=bundle.student(product_bundle),
        size=product_bundle.size,
        recipe=product_bundle.recipe,
        scoring=bundle.scoring(product_bundle),
        pictures=[pixels for _, pixels in bundle.golden_pictures(product_bundle)],
        plain=plain,
        known_ranges=product_bundle.ranges,
    )


def random(
    name: str,
    size: tuple[int, int] | None = None,
    design: StudentName | None = None,
    bottleneck: BottleneckName | None = None,
    tile: tuple[int, int] | None = None,
) -> Subject:
    """Build a detector with random weights, the same each time. None stands for the teacher's default.

    Raises RevdistError for an unknown teacher or an impossible size.
    """
    trunk = teacher.build(name)
    usual = recipe.default(name)
    chosen_recipe = replace(
        usual,
        size=size or usual.size,
        tile=tile,
        student=design or usual.student,
        bottleneck=bottleneck or usual.bottleneck,
    )
    input_size = chosen_recipe.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        detector.initialise(trunk)
        student = detector.Student(name, design=chosen_recipe.student, bottleneck=chosen_recipe.bottleneck)
        _settle(trunk, student)
    taught_by = Teacher(name, trunk, sha256="random")
    plain = Engine(taught_by, device="cpu")
    plain.add("random", student.eval(), input_size, tile=tile)
    generator = np.random.default_rng(_SEED)
    return Subject(
        name="random",
        teacher=taught_by,
        student=student,
        size=input_size,
        recipe=chosen_recipe,
        scoring=detector.PLAIN,
        pictures=[_drawn(generator, input_size) for _ in range(PICTURES)],
        plain=plain,
        known_ranges=None,
    )


@torch.no_grad()
def _settle(trunk: nn.Module, student: nn.Module) -> None:
    """Set the batch norms' statistics from random pictures, so that maps neither vanish nor overflow."""
    count, side = _SETTLING
    norms = [part for module in (trunk, student) for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of the last batch alone
    student.train()(trunk.train()(torch.randn(count, 3, side, side)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _drawn(generator: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Draw coarse coloured blots with fine noise, because real pictures have both."""
    height, width = size
    coarse = generator.uniform(40, 215, (8, 8, 3)).astype(np.float32)
    blots = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(blots + generator.normal(0, 6, blots.shape), 0, 255)
    return images.prepare(noisy.astype(np.uint8), size)
