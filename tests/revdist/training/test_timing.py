"""revdist.training.timing: what a run takes, and what is given up for a budget"""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from revdist.cli import typed
from revdist.engines.engine import Engine
from revdist.errors import TrainError
from revdist.recipe import Recipe
from revdist.training import timing
from revdist.training.timing import Duration, Pictures

WHOLE = Recipe(steps=300, size=(256, 256))


def _measured(recipe: Recipe) -> Duration:
    """A machine on which a step takes 1 s at 256 x 256, a third of it with a slim student, and less for less pixels."""
    pixels = recipe.size[0] * recipe.size[1] / 256**2
    return Duration(
        before_s=5, step_s=pixels * (1 / 3 if recipe.student == "slim" else 1), steps=recipe.steps, after_s=5
    )


@pytest.mark.parametrize(
    ("budget_s", "steps", "student", "side"),
    [
        (1000, 300, "official", 256),  # all of it
        (200, 159, "official", 256),  # fewer steps
        (60, 123, "slim", 256),  # more than half of the steps would go: the student first
        (30, 121, "slim", 160),  # then the size
        (18, 63, "slim", 128),  # then the rest of the steps
    ],
)
def test_steps_go_first_then_the_student_then_the_size(budget_s: float, steps: int, student: str, side: int) -> None:
    planned = timing.plan(WHOLE, budget_s, frozenset(), _measured)
    assert (planned.student, planned.size) == (student, (side, side))
    assert planned.steps == pytest.approx(steps, abs=2)
    assert _measured(planned).whole_s <= budget_s


def test_what_was_asked_for_by_name_stays() -> None:
    planned = timing.plan(WHOLE, 60, frozenset({"student", "size"}), _measured)
    assert (planned.student, planned.size, planned.steps) == ("official", (256, 256), 40)
    planned = timing.plan(WHOLE, 60, frozenset({"steps"}), _measured)
    assert (planned.steps, planned.student) == (300, "slim")
    assert planned.size[0] < 256
    with pytest.raises(TrainError, match="a budget of 60 s is too short for 300 steps at 256x256; give about"):
        timing.plan(WHOLE, 60, frozenset({"steps", "size", "student"}), _measured)


def test_a_budget_that_nothing_fits_into_is_refused_with_one_that_would_do() -> None:
    with pytest.raises(
        TrainError, match="a budget of 11 s is too short for 10 steps at 128x128; give about 15 s or more"
    ):
        timing.plan(WHOLE, 11, frozenset(), _measured)


def test_epochs_become_the_planned_steps() -> None:
    planned = timing.plan(Recipe(steps=300, epochs=20), 200, frozenset(), _measured)
    assert (planned.epochs, planned.steps) == (0, 159)


def test_a_duration_is_told_as_a_person_says_it() -> None:
    took = Duration(before_s=30, step_s=0.5, steps=1000, after_s=4)
    assert took.sentence() == "this will take about 9 min here: features 30 s, 1000 steps 8 min, calibration 4 s"
    assert [timing.shown(seconds) for seconds in (0.1, 89, 120, 7200)] == ["1 s", "89 s", "2 min", "2.0 h"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_a_budget_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert typed.duration(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "", "-5m", "0s", "nanh", "infh", "5 minutes"])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no time|must be over 0"):
        typed.duration(text)


def test_the_combined_score_takes_passes_of_the_pictures_trained_with(engine: Engine) -> None:
    recipe = Recipe(teacher="efficientnet_lite0", student="slim", size=(64, 64), steps=1, batch=1)
    pictures = Pictures(trained=10_000, held_out=1)
    combined = replace(recipe, score="combined")
    plain_s, longer_s = (
        timing.duration(engine, wanted, pictures, lambda _taught: 0.0).after_s for wanted in (recipe, combined)
    )
    assert longer_s > plain_s + 0.2, "the time of 1,500 passes is no rounding"
