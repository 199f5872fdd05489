"""What a step of a training run uses, by its place in the schedule: learning rate, masked share, pictures."""

from __future__ import annotations

import math

import numpy as np

from revdist.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate: it rises linearly, then stays or falls along a cosine to `final_share` of the top."""
    warmup = round(recipe.warmup_share * recipe.steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warmup) / max(1, recipe.steps - warmup)
    return recipe.learning_rate * (recipe.final_share + (1 - recipe.final_share) * (1 + math.cos(math.pi * done)) / 2)


def masked_share(recipe: Recipe, step: int) -> float:
    """Return the share of locations whose gradient is masked at a step; it rises linearly from 0."""
    ramp = recipe.masked_ramp_share * recipe.steps
    return recipe.masked_share * min(1.0, step / ramp if ramp else 1.0)


def batch_rows(recipe: Recipe, pictures: int, step: int) -> list[int]:
    """Return the rows of a step's batch (B), by the seed: shuffled passes over all pictures, one after the other.

    With epochs, the last batch of a pass may be smaller; without, a batch may span two passes.
    """
    first, end = step * recipe.batch, (step + 1) * recipe.batch
    if recipe.epochs:
        turn, within = divmod(step, recipe.steps_of_epoch(pictures))
        first, end = (turn * pictures + min(pictures, place * recipe.batch) for place in (within, within + 1))
    places = range(first, end)
    orders = {
        turn: np.random.default_rng((recipe.seed, turn)).permutation(pictures)
        for turn in {place // pictures for place in places}
    }
    return [int(orders[place // pictures][place % pictures]) for place in places]
