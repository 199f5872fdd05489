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


def test_what_is_over_the_threshold_has_an_outline_and_nothing_else() -> None:
    picture = np.full((100, 200, 3), 100, np.uint8)
    ramp = np.linspace(0, 2, 64, dtype=np.float32)[None].repeat(32, 0)
    overlay = heatmaps.heatmap(picture, ramp, 1.0)
    _, columns = np.nonzero((overlay == heatmaps.OUTLINE).all(axis=2))
    assert 98 <= columns.min() <= 103, "the ramp reaches the threshold in the middle"
    plain = heatmaps.coloured(picture, ramp, 1.0)
    assert not (plain == heatmaps.OUTLINE).all(axis=2).any()
    calm = heatmaps.heatmap(picture, ramp / 2.01, 1.0)
    assert not (calm == heatmaps.OUTLINE).all(axis=2).any()


def test_a_reject_has_an_outline_however_small_the_picture() -> None:
    speck = np.zeros((512, 512), np.float32)
    speck[300, 300] = 2.0
    overlay = heatmaps.heatmap(np.full((32, 32, 3), 100, np.uint8), speck, 1.0)
    assert (overlay == heatmaps.OUTLINE).all(axis=2).any()


def test_no_colour_is_green_and_colours_grow_lighter() -> None:
    ramp = np.linspace(0.5, 1.5, 101, dtype=np.float32)[None].repeat(4, 0)
    colours = heatmaps.coloured(np.full((4, 101, 3), 128, np.uint8), ramp, 1.0)[2].astype(float)
    assert (colours[10:, 1] < colours[10:, [0, 2]].max(axis=1) - 10).all(), "green is never the strongest"
    red, green, blue = (
        np.interp(place, range(101), colours[:, channel]) for channel, place in ((0, 50), (1, 50), (2, 50))
    )
    assert min(red, blue) > green + 20, "purple at the threshold"
    opaque = colours[50:] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(opaque) > -1).all()


def test_the_paper_s_colours_run_from_the_lowest_to_the_highest_value_of_each_picture() -> None:
    picture = np.full((10, 40, 3), 100, np.uint8)
    faint = np.linspace(0.1, 0.2, 40, dtype=np.float32)[None].repeat(10, 0)
    overlay = heatmaps.as_in_the_paper(picture, faint)
    assert np.array_equal(overlay, heatmaps.as_in_the_paper(picture, faint * 10))
    first, last = overlay[5, 0].astype(int), overlay[5, -1].astype(int)
    assert first[2] > first[0]
    assert last[0] > last[2]
    flat = heatmaps.as_in_the_paper(picture, np.ones((4, 4), np.float32))
    assert (flat == flat[0, 0]).all(), "a map of one value has one colour"


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
