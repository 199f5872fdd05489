"""revdist.data.appearance and revdist.data.likeness: sets of real photographs that look alike, or do not"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from revdist.data import appearance, images, likeness
from revdist.data.appearance import Appearance
from revdist.errors import ImageError

SIZE = (128, 128)
Rows = npt.NDArray[np.int64]


def _appearance(paths: Sequence[Path]) -> Appearance:
    return appearance.measure([images.prepare(images.read(path), SIZE) for path in paths], paths)


def _of(whole: Appearance, rows: Rows) -> Appearance:
    return {name: values[rows] for name, values in whole.items()}


@pytest.fixture(scope="module")
def shuffled(good_cells: list[Path]) -> list[Path]:
    """200 cells in no order: those of one module, and so of one exposure, follow one another."""
    return [good_cells[row] for row in np.random.default_rng(0).permutation(len(good_cells))[:200]]


@pytest.fixture(scope="module")
def cells(shuffled: list[Path]) -> Appearance:
    return _appearance(shuffled)


def _false_alarms(whole: Appearance, trials: int) -> int:
    count, alarms = len(whole[appearance.BRIGHTNESS]), 0
    for seed in range(trials):
        order = np.random.default_rng(seed).permutation(count)
        trained, others = [20, 60, 140][seed % 3], [6, 20, 60][seed % 5 % 3]
        told = likeness.warnings(
            _of(whole, order[:trained]), _of(whole, order[trained : trained + others]), "the held-out pictures"
        )
        alarms += bool(told)
    return alarms


def test_random_halves_of_one_set_of_cells_give_no_more_alarms_than_stated(cells: Appearance) -> None:
    assert _false_alarms(cells, 1000) <= 1000 * likeness.FALSE_ALARMS + 2


def test_random_halves_of_a_factory_s_set_give_no_more_alarms_than_stated(magnetic_tile: Path) -> None:
    whole = _appearance(images.good_pictures(magnetic_tile))
    assert _false_alarms(whole, 1000) <= 1000 * likeness.FALSE_ALARMS + 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cell: (cell * 0.2).astype(np.uint8), "are all darker than every picture trained with (brightness "),
        (lambda cell: np.maximum(cell, 225), "are all brighter than every picture trained with"),
        (lambda cell: cv2.GaussianBlur(cell, (0, 0), 6), "less sharp than every picture trained with (sharpness 0."),
        (lambda cell: cell[60:-60], "are all wider than every picture trained with (aspect ratio 1.67 in the middle, "),
        (lambda cell: (cell // 4 + 120).astype(np.uint8), "of lower contrast than every picture trained with"),
    ],
)
def test_what_changed_from_one_set_to_the_other_is_named(
    change: Callable[[images.Pixels], images.Pixels],
    said: str,
    cells: Appearance,
    shuffled: list[Path],
    tmp_path: Path,
) -> None:
    paths = [tmp_path / path.name for path in shuffled[150:180]]
    for path, cell in zip(paths, shuffled[150:180], strict=True):
        Image.fromarray(np.ascontiguousarray(change(images.read(cell)))).save(path)
    told = likeness.warnings(_of(cells, np.arange(100)), _appearance(paths), "the good test pictures")
    assert any(said in sentence for sentence in told), told
    assert likeness.warnings(_of(cells, np.arange(100)), _of(cells, np.arange(150, 180)), "the same, as it was") == []


def test_some_pictures_that_are_darker_than_all_trained_with_are_counted(cells: Appearance) -> None:
    trained, others = _of(cells, np.arange(150)), dict(_of(cells, np.arange(150, 190)))
    others["brightness"] = np.maximum(others["brightness"], trained["brightness"].min())
    others["brightness"][:8] = cells["brightness"].min() - 20
    [told] = likeness.warnings(trained, others, "the held-out pictures")
    assert told.startswith("8 of 40 of the held-out pictures are darker than every picture trained with (brightness ")


def test_a_difference_that_cannot_matter_is_not_told_however_sure_it_is() -> None:
    trained = {"brightness": np.full(400, 100.0), "aspect ratio": np.zeros(400)}
    others = {"brightness": np.full(400, 101.0), "aspect ratio": np.full(400, 0.01)}
    assert likeness.differences(trained, others) == []
    others["brightness"] += 3
    assert [difference.measure for difference in likeness.differences(trained, others)] == ["brightness"]


def test_too_few_pictures_say_nothing() -> None:
    dark = np.zeros(likeness.FEWEST - 1)
    assert likeness.differences({"brightness": np.full(100, 90.0)}, {"brightness": dark}) == []
    assert likeness.differences({}, {"brightness": np.zeros(100)}) == []


def test_the_probability_of_pictures_beyond_all_others_is_the_exact_one() -> None:
    # Of 3 new and 2 trained values, all 3 new ones are on top in 1 of C(5, 3) = 10 orders; at least one in 3 of 5.
    assert likeness._p_beyond(3, 3, 2) == pytest.approx(1 / 10)
    assert likeness._p_beyond(1, 3, 2) == pytest.approx(3 / 5)


def test_the_rank_sum_agrees_with_scipy(noise: np.random.Generator) -> None:
    from scipy.stats import mannwhitneyu

    trained, others = np.sort(noise.integers(0, 9, 60)).astype(float), np.sort(noise.integers(1, 10, 40)).astype(float)
    expected = mannwhitneyu(others, trained, method="asymptotic")
    ahead, p_value = likeness._rank_sum(trained, others)
    assert (ahead, p_value) == (pytest.approx(expected.statistic / 2400), pytest.approx(expected.pvalue))


def test_a_bundle_keeps_few_numbers_of_however_many_pictures(noise: np.random.Generator) -> None:
    kept = appearance.kept({"brightness": noise.normal(100, 9, 5000), "contrast": np.array([3.0, 1.0, 2.0])})
    assert (len(kept["brightness"]), kept["contrast"]) == (appearance.KEPT_MOST, [1.0, 2.0, 3.0])
    assert kept["brightness"] == sorted(kept["brightness"])


def test_a_picture_that_has_gone_meanwhile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read any more"):
        appearance.aspect(tmp_path / "gone.png")
