"""revdist.recipe"""

from __future__ import annotations

import json
from typing import Any

import pytest

from revdist import recipe
from revdist.errors import RecipeError
from revdist.networks import teacher
from revdist.recipe import Recipe


def test_a_recipe_survives_json() -> None:
    made = Recipe(
        teacher="resnet18", size=(96, 160), optimiser="adam", learning_rate=5e-3, betas=(0.5, 0.999),
        student="slim", bottleneck="pretrained", scales=(2, 3), combine="multiply",
    )  # fmt: skip
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_the_official_recipe_can_be_said() -> None:
    Recipe(
        optimiser="adam", learning_rate=5e-3, betas=(0.5, 0.999), weight_decay=0.0, schedule="constant",
        warmup_share=0.0, gradient_clip=0.0, masked_share=0.0, batch=16, steps=3000, seed=111,
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"teacher": "vgg16"}, {"size": (100, 96)}, {"size": (0, 32)}, {"size": (32,)}, {"steps": 0}, {"steps": 1.5},
        {"steps": True}, {"batch": 0}, {"optimiser": "sgd"}, {"learning_rate": 0}, {"learning_rate": float("nan")},
        {"betas": (0.9, 1.0)}, {"betas": (0.9,)}, {"weight_decay": -1}, {"schedule": "linear"}, {"final_share": 2},
        {"warmup_share": -0.1}, {"gradient_clip": float("inf")}, {"masked_share": 1.1}, {"masked_factor": -1},
        {"masked_ramp_share": 3}, {"holdout": 0}, {"holdout": 1}, {"seed": -1}, {"false_reject_rate": 0},
        {"false_reject_rate": 1}, {"copies": -1}, {"copies": 0.5}, {"average_share": 1.5}, {"pasted_share": -0.1},
        {"top_share": 2}, {"bottleneck": "mff"}, {"bottleneck": True}, {"combine": "max"}, {"scales": ()},
        {"scales": (0, 1)}, {"scales": (1, 4)}, {"scales": (2, 1)}, {"scales": (1, 1)}, {"scales": 3},
        {"scales": (True, 2)}, {"scales": "12"}, {"student": "wide"},
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_it_must_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=rf"recipe: {next(iter(wrong))} is .*, must be "):
        Recipe(**wrong)


def test_unknown_and_missing_values_are_named() -> None:
    values = Recipe().to_json()
    del values["steps"]
    with pytest.raises(RecipeError, match="unknown or missing: speed, steps"):
        Recipe.from_json(values | {"speed": 1})
    with pytest.raises(RecipeError, match="unknown or missing: fusion"):
        Recipe.from_json(Recipe().to_json() | {"fusion": True})


def test_every_teacher_has_a_recipe() -> None:
    assert set(recipe.TEACHERS) == set(teacher.NAMES)
    for name in teacher.NAMES:
        assert recipe.default(name).teacher == name
    with pytest.raises(RecipeError, match="teacher is 'vgg16'"):
        recipe.default("vgg16")
