"""revdist.evaluation.evaluate, with masks as different tools write them"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.errors import DataError
from revdist.evaluation import evaluate
from revdist.evaluation.evaluate import Evaluation

Run = Callable[..., tuple[int, str, str]]
Save = Callable[[np.ndarray, Path], None]


@pytest.fixture
def masked(tmp_path: Path, good_cells: list[Path], broken_cells: list[Path]) -> Path:
    """Six good cells and six broken ones, each with a mask of 0 and 255."""
    root = tmp_path / "masked"
    for kind, cells in (("good", good_cells[30:36]), ("crack", broken_cells[:6])):
        (root / "test" / kind).mkdir(parents=True)
        for path in cells:
            shutil.copy(path, root / "test" / kind)
    for row, path in enumerate(_masks(root)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((300, 300), np.uint8)
        pixels[40 + 20 * row : 120 + 20 * row, 60:200] = 255
        Image.fromarray(pixels).save(path)
    return root


def _masks(root: Path) -> list[Path]:
    return [
        root / "ground_truth" / "crack" / f"{path.stem}_mask.png" for path in sorted((root / "test/crack").iterdir())
    ]


@pytest.fixture
def measure(tiny: Bundle, engine: Engine) -> Iterator[Callable[[Path], Evaluation]]:
    loaded = bundle.load(tiny.path, engine)
    yield lambda root: evaluate.evaluate(engine, loaded.product, loaded.calibration(engine.identity), root)
    engine.remove(loaded.product)


def _palette(pixels: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(pixels // 255).convert("P")
    picture.putpalette([0, 0, 0, 200, 40, 40] + [0] * 750)
    picture.save(path)


_OTHERS: dict[str, Save] = {
    "0 and 1": lambda pixels, path: Image.fromarray(pixels // 255).save(path),
    "0 and 100": lambda pixels, path: Image.fromarray(pixels // 255 * 100).save(path),
    "16 bits": lambda pixels, path: Image.fromarray(pixels.astype(np.uint16) * 257).save(path),
    "a palette": _palette,
    "one bit": lambda pixels, path: Image.fromarray(pixels).convert("1").save(path),
    "colour": lambda pixels, path: Image.fromarray(np.stack([pixels, pixels * 0, pixels * 0], 2)).save(path),
}


@pytest.mark.parametrize("kind", _OTHERS)
def test_masks_half_in_another_form_give_the_figures_of_the_clean_set(
    kind: str, masked: Path, measure: Callable[[Path], Evaluation]
) -> None:
    clean = measure(masked)
    for path in _masks(masked)[::2]:
        _OTHERS[kind](images.read(path)[..., 0], path)
    mixed = measure(masked)
    for name in ("image_auroc", "pixel_auroc", "pro", "pro_per_image", "false_reject_rate", "escape_rate"):
        assert getattr(clean, name) is not None
        assert getattr(mixed, name) == getattr(clean, name), name


def test_empty_and_full_masks_of_defective_pictures_are_named(
    masked: Path, measure: Callable[[Path], Evaluation], caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third, *_ = _masks(masked)
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(first)
    Image.fromarray(np.full((300, 300), 255, np.uint8)).save(second)
    Image.fromarray(np.ones((300, 300), np.uint8)).save(third)
    assert measure(masked).pixel_auroc is not None
    assert "1 masks of defective pictures are empty: " in caplog.text
    assert first.name in caplog.text
    assert "2 masks of defective pictures are full: " in caplog.text
    assert second.name in caplog.text
    assert third.name in caplog.text


def test_masks_that_are_all_empty_are_refused(masked: Path, measure: Callable[[Path], Evaluation]) -> None:
    for path in _masks(masked):
        Image.fromarray(np.zeros((300, 300), np.uint8)).save(path)
    with pytest.raises(DataError, match="all 6 masks are empty"):
        measure(masked)


def test_near_copies_and_equal_scores_among_test_pictures_are_named(
    run: Run, tiny: Bundle, masked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(masked / "ground_truth")
    first, second, *_ = sorted((masked / "test" / "good").iterdir())
    brighter = np.clip(images.read(first).astype(float) * 1.02, 0, 255).round().astype(np.uint8)
    Image.fromarray(brighter).save(masked / "test" / "good" / "brighter.png")
    shutil.copy(second, masked / "test" / "good" / "same.png")
    assert run("evaluate", tiny.path, "--data", masked, "--engine", "cpu")[0] == 0
    near = next(record.message for record in caplog.records if "nearly the same" in record.message)
    assert near.startswith("4 pictures are nearly the same as others, in 2 groups, and each of them counts")
    tied = next(record.message for record in caplog.records if "share their score" in record.message)
    assert tied.startswith("2 test pictures share their score with another")
    assert f"good/{second.name} = test/good/same.png" in tied
