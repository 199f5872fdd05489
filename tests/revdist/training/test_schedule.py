"""revdist.training.schedule"""

from __future__ import annotations

import pytest

from revdist.recipe import Recipe
from revdist.training import schedule


def test_batches_are_shuffled_passes_over_all_pictures() -> None:
    recipe = Recipe(batch=4, seed=1)
    drawn = [row for step in range(25) for row in schedule.batch_rows(recipe, 10, step)]
    for turn in range(10):
        assert sorted(drawn[turn * 10 : turn * 10 + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20]
    assert drawn != [row for step in range(25) for row in schedule.batch_rows(Recipe(batch=4, seed=2), 10, step)]
    assert len(schedule.batch_rows(Recipe(batch=16), 3, 0)) == 16, "fewer pictures than a batch are drawn again"


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warmup_share=0.1, learning_rate=1.0, final_share=0.1)
    rates = [schedule.learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    constant = Recipe(steps=100, warmup_share=0, schedule="constant", learning_rate=5e-3)
    assert {schedule.learning_rate(constant, step) for step in range(100)} == {5e-3}


def test_masking_is_ramped_up() -> None:
    recipe = Recipe(steps=100, masked_share=0.9, masked_ramp_share=0.5)
    assert [schedule.masked_share(recipe, step) for step in (0, 25, 50, 99)] == pytest.approx([0, 0.45, 0.9, 0.9])
    assert schedule.masked_share(Recipe(masked_ramp_share=0), 0) == 0.9
