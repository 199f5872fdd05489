"""revdist.data.fitting: pictures of another aspect ratio than the input, and maps back over them"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import fitting, images
from revdist.data.reading import Fit, Reading
from revdist.engines.engine import Engine
from revdist.errors import RecipeError
from revdist.evaluation import evaluate
from revdist.networks import teacher
from revdist.training import train

WIDE, TALL = (90, 160), (160, 90)
SIZE = (64, 96)


def _spot(shape: tuple[int, int], row: int, column: int, side: int = 8) -> images.Pixels:
    picture = np.full((*shape, 3), 40, np.uint8)
    picture[row : row + side, column : column + side] = 250
    return picture


@pytest.mark.parametrize(
    ("fit", "digest"),
    [("stretch", "6d8509fa55e74890"), ("pad", "65ae70e895367657"), ("crop", "9e674dde50a64dab")],
)
def test_preparing_is_guarded_by_a_golden_hash(fit: Fit, digest: str) -> None:
    rows, columns = np.indices((90, 200))
    picture = np.stack([rows * 2, columns, (rows * columns) % 251], 2).astype(np.uint8)
    prepared = images.prepare(picture, SIZE, fit)
    assert hashlib.sha256(prepared.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("shape", [WIDE, TALL, (64, 96), (61, 61), (7, 300)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_spot_is_found_back_where_it_is_in_the_picture(fit: Fit, shape: tuple[int, int]) -> None:
    rows, columns = shape
    side = max(2, min(shape) // 8)
    row, column = (rows - side) // 2, (columns - side) // 2 + side // 2
    prepared = images.prepare(_spot(shape, row, column, side), SIZE, fit)
    assert prepared.shape == (*SIZE, 3)
    assert not prepared.flags.writeable
    assert prepared.flags.c_contiguous
    back = fitting.over_picture(prepared[..., 0].astype(np.float32), shape, fit)
    assert back.max() == prepared[..., 0].max(), "the score stays the highest value of the map"
    scale_rows, scale_columns = rows / back.shape[0], columns / back.shape[1]
    bright = np.argwhere(back > 0.5 * (40 + float(back.max())))
    middle = (bright.mean(0) + 0.5) * (scale_rows, scale_columns)
    assert middle == pytest.approx((row + side / 2, column + side / 2), abs=max(scale_rows, scale_columns) + 0.5)


@pytest.mark.parametrize("shape", [WIDE, TALL])
def test_a_padded_picture_keeps_its_shape_and_a_cropped_one_too(shape: tuple[int, int]) -> None:
    square = _spot(shape, shape[0] // 2 - 10, shape[1] // 2 - 10, 20)
    for fit in ("pad", "crop"):
        seen = np.argwhere(images.prepare(square, (64, 64), fit)[..., 0] > 145)  # type: ignore[arg-type]
        high, wide = seen.max(0) - seen.min(0) + 1
        assert abs(int(high) - int(wide)) <= 1, fit
    stretched = np.argwhere(images.prepare(square, (64, 64))[..., 0] > 145)
    high, wide = stretched.max(0) - stretched.min(0) + 1
    assert abs(int(high) - int(wide)) > 3


def test_what_is_found_in_the_padding_counts_for_the_edge_beside_it() -> None:
    found = np.zeros((64, 64), np.float32)
    found[2, 30] = 5.0
    back = fitting.over_picture(found, WIDE, "pad")
    assert back.shape == (36, 64)
    assert np.unravel_index(int(back.argmax()), back.shape) == (0, 30)
    assert back.max() == 5.0


def test_a_mask_is_padded_with_nothing_defective() -> None:
    whole = np.full((*WIDE, 3), 255, np.uint8)
    mask = images.prepare_mask(whole, (64, 64), "pad")[..., 0] > 127
    assert mask.sum() == 36 * 64
    assert (images.prepare_mask(whole, (64, 64), "crop")[..., 0] > 127).all()
    assert (images.prepare_mask(whole, (64, 64), "stretch")[..., 0] > 127).all()


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_training_evaluation_and_bundle_share_the_fit(
    fit: Fit, tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path,
    run: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    wide = tmp_path / "wide"
    wide.mkdir()
    for path in images.good_pictures(good_folder):
        Image.fromarray(np.ascontiguousarray(images.read(path)[60:200])).save(wide / path.name)
    recipe = dataclasses.replace(tiny.recipe, fit=fit, steps=2)
    made = train.train(train.Job(good=wide, product="w", output=tmp_path / "w", recipe=recipe), lite0, device="cpu")
    assert bundle.read(made.path).recipe.fit == fit
    engine = Engine(lite0, device="cpu")
    bundle.load(made.path, engine)
    calibration = made.calibration(engine.identity)
    path = next(path for path in sorted(wide.iterdir()) if images.content_hash(path) in calibration.held_out)
    [score] = evaluate.scores(engine, "w", [path], made.recipe.reading)
    assert min(abs(score - calibration.scores)) < 1e-5, "what calibrates is prepared alike"
    plain = evaluate.scores(engine, "w", [path], Reading())
    assert abs(plain[0] - score) > 1e-4
    status, _, _ = run("predict", made.path, path, "--heatmaps", tmp_path / "heat", "--engine", "cpu")
    assert status == 0
    assert images.read(tmp_path / "heat" / f"{path.stem}.png").shape == (140, 300, 3)


def test_another_fit_is_refused() -> None:
    from revdist.recipe import Recipe

    with pytest.raises(RecipeError, match="fit is 'squeeze', must be stretch or pad or crop"):
        Recipe(fit="squeeze")  # type: ignore[arg-type]
