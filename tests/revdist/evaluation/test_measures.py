"""revdist.evaluation.measures, against scikit-learn and against plain loops over scikit-image's regions"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import label, regionprops
from sklearn.metrics import auc, roc_auc_score

from revdist.errors import DataError
from revdist.evaluation import measures

Masks = npt.NDArray[np.bool_]
Maps = npt.NDArray[np.float32]


def _made(seed: int, n: int = 12, side: int = 48, *, levels: int = 0) -> tuple[Masks, Maps]:
    """Maps of uneven gain over pictures with up to three regions that touch at corners too; some pictures are good."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, side, side), bool)
    for row in range(n - 4):
        for _ in range(rng.integers(1, 4)):
            y, x, h, w = rng.integers(0, side - 10, 2).tolist() + rng.integers(2, 10, 2).tolist()
            masks[row, y : y + h, x : x + w] = True
            masks[row, y + h, x + w] = True
    gain = rng.uniform(0.6, 1.6, (n, 1, 1))
    maps = (gain * rng.random(masks.shape) + 0.5 * masks).astype(np.float32)
    return masks, np.round(maps * levels) / np.float32(levels) if levels else maps


@pytest.mark.parametrize("levels", [0, 5])
def test_auroc_equals_scikit_learn_with_and_without_ties(levels: int) -> None:
    masks, maps = _made(1, levels=levels)
    assert measures.auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    labels = masks.any(axis=(1, 2))
    scores = maps.max(axis=(1, 2))
    assert measures.auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert measures.auroc(~labels, scores) == pytest.approx(1 - roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_of_nothing_but_ties_is_one_half() -> None:
    assert measures.auroc(np.array([True, False, False]), np.ones(3)) == 0.5


def test_auroc_without_one_of_the_classes_or_with_nan_is_refused() -> None:
    with pytest.raises(DataError, match="both good and defective"):
        measures.auroc(np.zeros(3, bool), np.ones(3))
    with pytest.raises(DataError, match="finite"):
        measures.auroc(np.array([True, False]), np.array([np.nan, 1.0]))


def _plain_pro(masks: Masks, maps: Maps, limit: float) -> float:
    """Every distinct value as a threshold, one after the other."""
    regions = [(row, region.coords) for row in range(len(masks)) for region in regionprops(label(masks[row]))]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        overlap = np.mean([above[row][coords[:, 0], coords[:, 1]].mean() for row, coords in regions])
        points.append((above[~masks].mean(), float(overlap)))
    x, y = np.array(points).T
    kept = x <= limit
    return float(auc(np.append(x[kept], limit), np.append(y[kept], np.interp(limit, x, y))) / limit)


@pytest.mark.parametrize(("levels", "limit"), [(0, 0.3), (9, 0.3), (9, 0.05)])
def test_data_set_pro_equals_a_loop_over_every_threshold(levels: int, limit: float) -> None:
    masks, maps = _made(2, n=7, side=20, levels=levels)
    assert measures.pro(masks, maps, limit) == pytest.approx(_plain_pro(masks, maps, limit), abs=1e-9)


def test_pro_of_perfect_maps_is_one_and_of_constant_maps_is_the_diagonal() -> None:
    masks, _ = _made(3)
    assert measures.pro(masks, masks.astype(np.float32)) == pytest.approx(1.0)
    assert measures.pro(masks, np.ones(masks.shape, np.float32)) == pytest.approx(0.15)


def _plain_official(mask: Masks, values: npt.NDArray[np.float64]) -> float:
    """One picture: 200 thresholds over its own range, its own rates below 0.3, divided by the largest."""
    low, high = values.min(), values.max()
    rates, overlaps = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        above = values > threshold
        shares = [above[region.coords[:, 0], region.coords[:, 1]].mean() for region in regionprops(label(mask))]
        rates.append(above[~mask].mean())
        overlaps.append(np.mean(shares))
    kept = np.array(rates) < 0.3
    x, y = np.array(rates)[kept], np.array(overlaps)[kept]
    return float(auc(x / x.max(), y))


def test_per_image_pro_equals_the_official_procedure() -> None:
    masks, maps = _made(4, n=9)
    expected = [_plain_official(m, v.astype(np.float64)) for m, v in zip(masks, maps, strict=True) if m.any()]
    assert measures.pro_per_image(masks, maps) == pytest.approx(float(np.mean(expected)), abs=1e-9)


def test_the_two_kinds_of_pro_are_not_the_same_thing() -> None:
    masks, maps = _made(5, n=40)
    assert measures.pro_per_image(masks, maps) - measures.pro(masks, maps) > 0.02


def test_pro_without_defects_is_refused() -> None:
    nothing = np.zeros((2, 8, 8), bool)
    for measure in (measures.pro, measures.pro_per_image):
        with pytest.raises(DataError, match="PRO needs"):
            measure(nothing, np.ones(nothing.shape, np.float32))


def test_flat_maps_count_as_nothing_per_image() -> None:
    masks, _ = _made(6)
    assert measures.pro_per_image(masks, np.ones(masks.shape, np.float32)) == 0


def test_all_measures_of_a_hundred_maps_take_seconds() -> None:
    masks, maps = _made(7, n=100, side=256)
    begun = time.perf_counter()
    measures.pro(masks, maps)
    measures.pro_per_image(masks, maps)
    measures.auroc(masks, maps)
    assert time.perf_counter() - begun < 20


def test_the_curves_end_at_one_and_tell_the_point_of_a_threshold() -> None:
    masks, maps = _made(8, levels=7)
    labels, scores = masks.any(axis=(1, 2)), maps.mean(axis=(1, 2))
    roc, overlap = measures.roc_curve(labels, scores), measures.pro_curve(masks, maps)
    for curve in (roc, overlap):
        assert (curve.false[0], curve.detected[0]) == (0, 0)
        assert (curve.false[-1], curve.detected[-1]) == pytest.approx((1, 1))
    assert roc.area(1.0) == pytest.approx(measures.auroc(labels, scores), abs=1e-12)
    threshold = float(np.median(scores))
    assert roc.at(threshold) == pytest.approx(
        ((scores > threshold)[~labels].mean(), (scores > threshold)[labels].mean())
    )
    tied = float(np.unique(maps)[3])  # what equals a threshold is not over it
    assert overlap.at(tied)[0] == pytest.approx((maps > tied)[~masks].mean())
    assert overlap.at(np.inf) == (0, 0)


def test_a_roc_curve_of_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="both good and defective"):
        measures.roc_curve(np.ones(3, bool), np.ones(3))
