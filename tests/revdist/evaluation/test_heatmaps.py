"""revdist.evaluation.heatmaps and revdist.data.painted_defects"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from revdist.data import images, painted_defects
from revdist.evaluation import heatmaps


def test_the_scale_is_the_threshold_and_never_the_picture() -> None:
    picture = np.full((60, 80, 3), 100, np.uint8)
    calm = np.zeros((32, 32), np.float32)
    calm[10, 10] = 0.4  # its own maximum, yet far below the threshold of 1
    assert np.array_equal(heatmaps.heatmap(picture, calm, 1.0), picture)
    hot = np.full((32, 32), 3.0, np.float32)
    overlay = heatmaps.heatmap(picture, hot, 1.0)
    assert overlay.shape == picture.shape
    assert overlay.dtype == np.uint8
    red, green, blue = overlay[30, 40].tolist()
    assert red > green
    assert red > blue
    assert np.array_equal(overlay, heatmaps.heatmap(picture, hot * 2, 1.0)), "saturated is saturated"


def test_the_overlay_lies_where_the_anomaly_is() -> None:
    picture = np.full((100, 200, 3), 100, np.uint8)
    found = np.zeros((32, 32), np.float32)
    found[24:28, 4:8] = 2.0  # low and left
    ys, xs = np.nonzero((heatmaps.heatmap(picture, found, 1.0) != picture).any(axis=2))
    assert 70 < ys.mean() < 95
    assert 20 < xs.mean() < 55


def test_a_scratch_is_the_same_for_the_same_seed_and_small(good_cells: list[Path]) -> None:
    cell = images.read(good_cells[0])
    painted = painted_defects.scratch(cell, 1)
    assert np.array_equal(painted, painted_defects.scratch(cell, 1))
    assert not np.array_equal(painted, painted_defects.scratch(cell, 2))
    changed = (painted != cell).any(axis=2).mean()
    assert 0.001 < changed < 0.05
