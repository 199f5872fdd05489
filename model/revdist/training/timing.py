"""Measure how long training will take on this machine, and plan what can be trained in a given time.

Time does not depend on what pictures show, so one teacher pass and two steps on noise are measured.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from revdist.engines.engine import Engine
from revdist.errors import TrainError
from revdist.evaluation.look import ASKED
from revdist.recipe import STRIDE, Recipe
from revdist.training import feature_cache, score_units

STEPS_SHARE = 1 / 3  # of the recipe's steps: before fewer, a smaller student or size is tried
SMALLEST_SIDE = 128  # pixels: smallest side that a budget may choose
FEWEST_STEPS = 10
PLANNED = 0.85  # share of a budget that is planned; the rest is for errors of measurement
_PASSES = 8  # pictures of a measured teacher pass
_SCORE_PASSES = 3  # of the pictures trained with, for the combined score: two, with products of matrices
_ENDING_S = 3.0  # s for golden pictures and files

Step = Callable[[Sequence[torch.Tensor]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The numbers of pictures."""

    trained: int
    held_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """The time that a run will take, by phase."""

    before_s: float  # for the teacher's features and the comparison of sets
    step_s: float
    steps: int
    after_s: float  # for calibration

    @property
    def whole_s(self) -> float:
        return self.before_s + self.step_s * self.steps + self.after_s

    def sentence(self) -> str:
        parts = f"features {shown(self.before_s)}, {self.steps} steps {shown(self.step_s * self.steps)}"
        return f"this will take about {shown(self.whole_s)} here: {parts}, calibration {shown(self.after_s)}"


def shown(seconds: float) -> str:
    """Format a time as a person says it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def duration(engine: Engine, recipe: Recipe, pictures: Pictures, step: Step) -> Duration:
    """Measure a recipe. `step` runs an optimiser step of a throw-away student on a batch of features."""
    height, width = recipe.tile or recipe.size
    tiles = recipe.tiles.count
    noise = np.random.default_rng(0).integers(0, 256, (_PASSES, height, width, 3), np.uint8)
    shown_once = [np.ascontiguousarray(picture) for picture in noise]
    engine.features(shown_once)  # the first pass sets up what later ones use
    begun_s = time.perf_counter()
    maps = engine.features(shown_once)
    _wait(engine)
    pass_s = (time.perf_counter() - begun_s) / _PASSES
    rows = torch.arange(recipe.batch, device=engine.device) % _PASSES
    taught = [feature_map[rows] for feature_map in maps]
    step(taught)
    begun_s = time.perf_counter()
    for _ in range(2):
        step(taught)
    _wait(engine)
    step_s = (time.perf_counter() - begun_s) / 2
    count = pictures.trained * tiles * (1 + recipe.copies)
    kept = feature_cache.fits(engine, maps, count)
    looked = (min(ASKED, pictures.trained) + min(ASKED, pictures.held_out)) * pass_s
    judged_s = pass_s + step_s / recipe.batch / 2  # a student's pass is about half of a step's work
    engines = 2 if engine.device.type == "cpu" else 1  # a processor's bundle is calibrated for OpenVINO too
    measured = _SCORE_PASSES * len(score_units.chosen(range(pictures.trained))) if recipe.score == "combined" else 0
    return Duration(
        before_s=looked + (count * pass_s if kept else 0.0),
        step_s=step_s + (0.0 if kept else recipe.batch * pass_s),
        steps=recipe.steps,
        after_s=(engines * pictures.held_out + measured) * tiles * judged_s + _ENDING_S,
    )


def _wait(engine: Engine) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)


def plan(recipe: Recipe, budget_s: float, asked: frozenset[str], measure: Callable[[Recipe], Duration]) -> Recipe:
    """Plan a recipe that can be trained within `budget_s` from now; settings in `asked` stay as they are.

    First the steps shrink, down to a third; then the student becomes slim; then the sides of the input shrink by 32
    pixels at a time, down to 128; then the steps shrink further. Raises TrainError where even that takes too long.
    """
    begun_s = time.monotonic()
    steps, chosen, took = 0, recipe, None
    wanted = recipe.steps if "steps" in asked else max(FEWEST_STEPS, math.ceil(STEPS_SHARE * recipe.steps))
    for chosen in _smaller(recipe, asked):
        took = measure(chosen)
        left_s = PLANNED * budget_s - (time.monotonic() - begun_s) - took.before_s - took.after_s
        steps = min(recipe.steps, int(left_s / took.step_s))
        if steps >= wanted:
            break
    if steps < (recipe.steps if "steps" in asked else FEWEST_STEPS):
        assert took is not None, "the recipe itself comes first"
        fewest = recipe.steps if "steps" in asked else FEWEST_STEPS
        needed_s = (took.before_s + took.after_s + fewest * took.step_s) / PLANNED + time.monotonic() - begun_s
        raise TrainError(
            f"a budget of {shown(budget_s)} is too short for {fewest} steps at {chosen.size[0]}x{chosen.size[1]}",
            hint=f"give about {shown(1.2 * needed_s)} or more, or a smaller --size, or another --teacher",
        )
    return dataclasses.replace(chosen, steps=steps, epochs=0)


def _smaller(recipe: Recipe, asked: frozenset[str]) -> Iterator[Recipe]:
    """Yield the recipe, then smaller and smaller ones."""
    yield recipe
    if "student" not in asked and recipe.student != "slim":
        recipe = dataclasses.replace(recipe, student="slim")
        yield recipe
    if asked & {"size", "tile"} or recipe.tile:
        return
    while min(recipe.size) > SMALLEST_SIDE:
        height, width = (max(SMALLEST_SIDE, side - STRIDE) for side in recipe.size)
        recipe = dataclasses.replace(recipe, size=(height, width))
        yield recipe
