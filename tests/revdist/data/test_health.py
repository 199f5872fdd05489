"""revdist.data.health: what is no picture of a part is told from a picture with a defect, on real photographs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import health, images
from revdist.data.health import Limits
from revdist.data.images import Pixels
from revdist.engines.engine import Engine
from revdist.networks import teacher
from revdist.training import recalibrate


@pytest.fixture(scope="module")
def limits(good_cells: list[Path]) -> Limits:
    return health.learn(health.measure(images.read(path)) for path in good_cells[:24])


SPOILT: dict[str, Callable[[Pixels], Pixels]] = {
    "black": lambda cell: np.asarray(cell // 40, np.uint8),
    "saturated": lambda cell: np.where(np.indices(cell.shape)[0] < 250, np.uint8(255), cell),
    "low contrast": lambda cell: np.asarray(128 + (cell.astype(int) - 128) // 30, np.uint8),
    "defocused": lambda cell: np.asarray(cv2.GaussianBlur(cell, (0, 0), 8.0), np.uint8),
    "wrong size": lambda cell: cell[:200],
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_picture_is_told_with_what_to_look_at(limits: Limits, good_cells: list[Path], kind: str) -> None:
    for path in good_cells[30:36]:
        fault = limits.fault(health.measure(SPOILT[kind](images.read(path))))
        assert fault.startswith(f"{kind}: ")
        assert fault.endswith("?")


def test_good_and_defective_parts_are_both_left_to_the_model(
    limits: Limits, good_cells: list[Path], broken_cells: list[Path]
) -> None:
    faults = [limits.fault(health.measure(images.read(path))) for path in (*good_cells[24:], *broken_cells)]
    assert len(faults) > 300
    assert [fault for fault in faults if fault] == []


def test_more_good_pictures_widen_limits_and_never_narrow_them(limits: Limits, good_cells: list[Path]) -> None:
    dark = health.learn([health.measure(np.asarray(images.read(good_cells[0]) // 4, np.uint8))])
    both = limits.joined(dark)
    assert both == dark.joined(limits)
    assert both.brightness_least == dark.brightness_least < limits.brightness_least
    assert both.saturated_most == limits.saturated_most
    assert both.shape_most == limits.shape_most


def test_a_black_picture_among_the_good_ones_teaches_nothing(good_cells: list[Path], limits: Limits) -> None:
    seen = [health.measure(images.read(path)) for path in good_cells[:24]]
    assert health.learn([*seen, health.measure(np.zeros((300, 300, 3), np.uint8))]) == limits
    assert health.learn([]) == health.USUAL


@pytest.mark.parametrize("entry", [{"brightness_least": "dark"}, {"noise": 3.0}, {"shape_most": float("inf")}])
def test_limits_from_a_file_are_checked(entry: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"statistics\.health\."):
        health.restored(entry)
    assert health.restored(Limits(brightness_least=9).to_json()) == Limits(brightness_least=9)


def test_a_bundle_has_learnt_limits_and_recalibration_widens_them(
    tiny: Bundle, tiny_copy: Path, lite0: teacher.Teacher, good_cells: list[Path], tmp_path: Path
) -> None:
    assert tiny.health is not None
    assert tiny.health.fault(health.measure(SPOILT["black"](images.read(good_cells[40])))).startswith("black")
    folder = tmp_path / "darker"
    folder.mkdir()
    for path in good_cells[30:34]:
        cv2.imwrite(str(folder / path.name), images.read(path) // 8)
    for path in good_cells[34:50]:
        shutil.copy(path, folder)
    engine = Engine(lite0, device="cpu")
    request = recalibrate.RecalibrationRequest(good=folder, false_reject_rate=0.2, confirm=())
    recalibrate.recalibrate(tiny_copy, request, engine, engine)
    widened = bundle.read(tiny_copy).health
    assert widened is not None
    assert widened.brightness_least < 0.6 * tiny.health.brightness_least
