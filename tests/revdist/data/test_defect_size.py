"""revdist.data.defect_size"""

from __future__ import annotations

import pytest

from revdist.data.defect_size import ENOUGH_PX, Defect
from revdist.errors import RecipeError


def test_millimetres_become_pixels_along_the_longer_side() -> None:
    defect = Defect(size=0.3, field_mm=80)
    assert defect.in_picture((1200, 1600)) == pytest.approx(6.0)
    assert defect.in_picture((1600, 1200)) == pytest.approx(6.0)
    assert Defect(size=6).in_picture((1200, 1600)) == 6.0


@pytest.mark.parametrize("picture", [(480, 640), (1200, 1600), (3000, 4000), (64, 64)])
@pytest.mark.parametrize("size", [2, 8, 12, 30, 200])
def test_the_input_that_is_planned_shows_the_defect_as_well_as_the_picture_does(
    picture: tuple[int, int], size: float
) -> None:
    defect = Defect(size=size)
    planned, tile = defect.plan(picture, (224, 224))
    assert all(side % 32 == 0 and side >= 224 for side in planned)
    assert defect.in_input(picture, planned) >= min(ENOUGH_PX, size) - 1e-9
    assert (tile is not None) == (max(planned) > 1024)
    smaller = (planned[0] - 32, planned[1] - 32)
    if min(smaller) >= 224:
        assert defect.in_input(picture, smaller) < ENOUGH_PX, "no input is larger than it must be"


def test_a_defect_that_the_picture_hardly_shows_asks_for_another_camera() -> None:
    told = Defect(size=0.1, field_mm=100).sentence((600, 800), (608, 800))
    assert "a defect of 0.1 mm is 0.8 pixels of a picture of 600x800, and 0.8 at the input of 608x800" in told
    assert "a camera with more pixels or a smaller field" in told


def test_a_size_that_is_too_small_for_the_defect_says_so() -> None:
    defect = Defect(size=20)
    assert "leave --size out" in defect.sentence((1200, 1600), (224, 224))
    assert defect.sentence((1200, 1600), (800, 800)).endswith("and 10.0 at the input of 800x800")


@pytest.mark.parametrize(("size", "field"), [(0, None), (-1, None), (float("nan"), 80), (1, 0), (90, 80)])
def test_impossible_sizes_are_refused(size: float, field: float | None) -> None:
    with pytest.raises(RecipeError):
        Defect(size=size, field_mm=field)
