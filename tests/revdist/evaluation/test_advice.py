"""revdist.evaluation.advice and revdist.evaluation.what_if: rules speak where their evidence is, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from revdist.data import images
from revdist.evaluation import advice, measures, what_if
from revdist.evaluation.advice import Advice
from revdist.evaluation.evaluate import Inspected, Pixelwise
from revdist.evaluation.sensitivity import Probe, Sensitivity
from revdist.recipe import Recipe
from revdist.thresholds import conformal
from revdist.thresholds.conformal import Calibration

RNG = np.random.default_rng(0)
MANY = conformal.calibrate(RNG.uniform(0.2, 1, 2000), 0.01, engine="e", fingerprint="f")
FEW = conformal.calibrate(RNG.uniform(0.2, 1, 20), 0.01, engine="e", fingerprint="f")


def inspected(good: list[float], bad: list[float], side: int = 40, *, elsewhere: bool = False) -> Inspected:
    """Pictures with these scores; defects of so many pixels a side, where the map is highest unless it is elsewhere."""
    scores = np.array([*good, *bad])
    defective = [False] * len(good) + [True] * len(bad)
    masks = np.zeros((len(scores), 128, 128), bool)
    maps = np.zeros((len(scores), 128, 128), np.float32)
    for row, (own, score) in enumerate(zip(defective, scores, strict=True)):
        if own:
            masks[row, 10 : 10 + side, 10 : 10 + side] = True
        maps[row, 100 if elsewhere else 12, 12] = score
    samples = tuple(
        images.Sample(path=Path(f"{row}.png"), kind="crack" if own else "good", mask=None)
        for row, own in enumerate(defective)
    )
    pixelwise = Pixelwise(maps=maps, masks=masks)
    return Inspected(samples=samples, scores=scores, pixelwise=pixelwise, elapsed_s=1.0, engine="e")


def advised(seen: Inspected, calibration: Calibration = MANY, recipe: Recipe | None = None) -> list[Advice]:
    auroc = measures.auroc(seen.defective, seen.scores)
    table = what_if.choices(seen.defective, seen.scores, calibration.threshold)
    return advice.of_test(seen, calibration, recipe or Recipe(), auroc, table)


def test_where_all_is_well_nothing_is_advised() -> None:
    assert advised(inspected([0.5] * 40, [2.0] * 10)) == []
    assert list(advice.told([])) == ["what to do next: nothing that these pictures ask for"]


def test_a_perfect_auroc_with_a_miss_says_which_threshold_catches_all() -> None:
    (found,) = advised(inspected([0.3] * 38 + [0.5, 0.6], [2.0] * 9 + [0.7]))
    assert found.do == "lower the threshold"
    assert "1 of 10 defects pass though the image AUROC is 1.000; at 0.7 none would" in found.evidence
    assert "0 of 40 good pictures would be rejected (0.0% to 8.8%)" in found.evidence


def test_small_missed_defects_ask_for_more_pixels_and_say_what_they_cost() -> None:
    seen = inspected([0.5] * 40, [0.4] * 8 + [2.0] * 4, side=4)
    found = next(each for each in advised(seen) if each.do == "show the networks more pixels")
    assert "8 of 8 missed defects are smaller than 10 pixels at 256x256, half of them smaller than 4" in found.evidence
    assert "`revdist train --size 1024x1024`, which costs about 16 times the time" in found.command
    large = inspected([0.5] * 40, [0.4] * 8 + [2.0] * 4, side=40)
    assert all(each.do != "show the networks more pixels" for each in advised(large))
    tiled = next(each for each in advised(seen, recipe=Recipe(size=(512, 768))) if "pixels" in each.do)
    assert "--size 2048x3072 --tile 256" in tiled.command


def test_a_map_that_is_highest_elsewhere_asks_for_a_mask() -> None:
    seen = inspected([0.5] * 40, [0.4] * 8, elsewhere=True)
    assert "in 8 of 8 missed defects the map is highest away" in " ".join(each.evidence for each in advised(seen))
    assert all("away" not in each.evidence for each in advised(inspected([0.5] * 40, [0.4] * 8)))


def test_the_combined_score_is_named_to_those_who_have_not_tried_it() -> None:
    seen = inspected([0.5] * 40, [0.4] * 8)
    assert "try the combined score" in [each.do for each in advised(seen)]
    assert "try the combined score" not in [each.do for each in advised(seen, recipe=Recipe(score="combined"))]


def test_few_held_out_pictures_ask_for_more() -> None:
    (found,) = advised(inspected([0.5] * 40, [2.0] * 10), FEW)
    assert found.do == "hold out more good pictures"
    assert (
        "the threshold is made of 20, so that up to 13.9% of good parts may be rejected instead of 1.0%"
        in found.evidence
    )


def test_more_false_rejects_than_chance_explains_ask_for_other_lots() -> None:
    (found,) = advised(inspected([0.5] * 30 + [1.5] * 10, [2.0] * 10))
    assert found.do == "take in pictures of other lots and days"
    assert "10 of 40 good test pictures are rejected" in found.evidence


@pytest.mark.parametrize(("detected", "told"), [(10, []), (5, ["show the networks more pixels"])])
def test_painted_defects_that_must_be_large_ask_for_more_pixels(detected: int, told: list[str]) -> None:
    probes = tuple(
        Probe(kind="scratch", size_px=size, contrast=1.0, pictures=10, detected=detected) for size in (8.0, 16.0)
    )
    measured = Sensitivity(probes=probes, threshold=1, pictures=10, clean_rejected=0, size=(256, 256), seed=0)
    assert [each.do for each in advice.of_sensitivity(measured, MANY, Recipe())] == told
    rejected = replace(measured, clean_rejected=8)
    assert advice.of_sensitivity(rejected, MANY, Recipe())[0].do == "take in pictures of other lots and days"


def test_the_table_counts_both_kinds_at_each_threshold_and_names_each_once() -> None:
    defective = np.array([False] * 100 + [True] * 10)
    scores = np.array([*np.linspace(0.01, 1, 100), *np.linspace(0.5, 1.4, 10)])
    table = what_if.choices(defective, scores, 1.2)
    assert [choice.threshold for choice in table] == sorted((choice.threshold for choice in table), reverse=True)
    assert len({(choice.rejected, choice.missed) for choice in table}) == len(table)
    for choice in table:
        assert choice.rejected == (scores[~defective] > choice.threshold).sum()
        assert choice.missed == (scores[defective] <= choice.threshold).sum()
        assert choice.interval[0] - 1e-9 <= choice.rejected / 100 <= choice.interval[1]
    by_name = {choice.name: choice for choice in table}
    assert (by_name["in force"].rejected, by_name["in force"].missed) == (0, 8)
    assert by_name["5% of good"].rejected == 5
    assert what_if.all_caught(table).missed == 0
    assert what_if.all_caught(table).rejected == (scores[~defective] >= 0.5).sum()


def test_a_larger_input_is_a_multiple_of_the_stride_and_larger() -> None:
    assert advice.larger((224, 320), 1.5) == (352, 480)
    assert advice.larger((224, 224), 1.0) == (256, 256)
