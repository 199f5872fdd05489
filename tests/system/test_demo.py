"""What `make demo` left behind. `.ci/run` runs it, twice, before the tests; elsewhere it is run by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from peers import run_command

pytestmark = pytest.mark.system

DEMO = Path(__file__).parents[2] / "demo-run"


@pytest.fixture
def demo() -> Path:
    if not (DEMO / "bundle" / "bundle.json").is_file():
        message = "NOT TESTED: `make demo` has not been run in this checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return DEMO


def test_the_cells_that_pass_the_cameras_are_told_apart(demo: Path) -> None:
    made = run_command("revdist", "evaluate", demo / "bundle", "--data", demo / "pictures", "--json")
    assert made.returncode == 0, made.stderr
    figures = json.loads(made.stdout)
    assert figures["image_auroc"] >= 0.97
    assert figures["pixel_auroc"] is None, "these photographs come without masks"


def test_rejects_left_heat_maps_that_differ_from_their_photographs(demo: Path) -> None:
    heat_maps = sorted((demo / "state" / "evidence").glob("*/*-heat.jpg"))
    assert len(heat_maps) > 20
    for heat_map in heat_maps[:5]:
        shown = cv2.imread(str(heat_map))
        picture = cv2.imread(str(heat_map).replace("-heat.jpg", ".png"))
        assert shown is not None
        assert picture is not None
        assert shown.shape == picture.shape
        assert np.abs(shown.astype(int) - picture.astype(int)).max() > 60
