"""Measures how well scores and maps tell good from defective: AUROC and per-region overlap (PRO), exact.

n pictures of h x w pixels. Higher scores mean more anomalous. All curves count what is strictly ordered: ties are
handled as in the literature (half for AUROC, together for PRO).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from revdist.errors import DataError

FPR_LIMIT = 0.3
THRESHOLDS = 200  # for each picture, in the official per-image PRO
_EIGHT = np.ones((3, 3), bool)  # 8-connected


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """The share found against the share falsely found as a threshold falls: (0, 0), then a point a distinct value."""

    false: npt.NDArray[np.float64]  # (m + 1,) 0..1, ascending
    detected: npt.NDArray[np.float64]  # (m + 1,) 0..1, ascending
    values: npt.NDArray[np.floating]  # (m,) descending; point k counts everything that is at least values[k - 1]

    def at(self, threshold: float) -> tuple[float, float]:
        """Return the point (false, found) of a threshold: every value greater than the threshold counts."""
        point = int(np.count_nonzero(self.values > np.float64(threshold)))
        return float(self.false[point]), float(self.detected[point])

    def area(self, limit: float) -> float:
        """Return the area below the curve from 0 to `limit` by trapezoids; the curve is interpolated at the limit."""
        inside = self.false <= limit
        x, y = self.false[inside], self.detected[inside]
        if len(x) < len(self.false):
            x, y = np.append(x, limit), np.append(y, np.interp(limit, self.false, self.detected))
        return float(np.trapezoid(y, x))


def auroc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Return the area under the ROC curve, exact with ties: P(positive > negative) + P(equal) / 2. Any equal shapes.

    Raises DataError where one of the classes is missing or a score is not finite.
    """
    positive, negative = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(positive) or not len(negative):
        raise DataError("AUROC needs both good and defective ones")
    if not (np.isfinite(positive[[0, -1]]).all() and np.isfinite(negative[[0, -1]]).all()):
        raise DataError("AUROC needs finite scores")
    few, many = (positive, negative) if len(positive) <= len(negative) else (negative, positive)
    below = np.searchsorted(many, few, side="left").sum(dtype=np.int64)
    tied = np.searchsorted(many, few, side="right").sum(dtype=np.int64) - below
    area = float((below + tied / 2) / (len(few) * len(many)))  # share of `many` that lies below `few`
    return area if few is positive else 1 - area


def roc_curve(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> Curve:
    """Return the share of positives found against the share of negatives falsely found. Any equal shapes.

    Raises DataError where one of the classes is missing.
    """
    positives, negatives = np.count_nonzero(labels), np.count_nonzero(~labels)
    if not positives or not negatives:
        raise DataError("a ROC curve needs both good and defective ones")
    return _curve(scores, labels / positives, ~labels / negatives)


def pro(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.floating], limit: float = FPR_LIMIT) -> float:
    """Return the data-set level PRO: the area below `pro_curve` up to a false-positive rate `limit`, over `limit`.

    The curve is interpolated at the limit. Raises DataError without defect or background.
    """
    return pro_curve(masks, maps).area(limit) / limit


def pro_curve(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.floating]) -> Curve:
    """Return the mean overlap of the defective regions against the share of good pixels falsely found.

    masks bool and maps float, both (n, h, w). One threshold for all pictures, good ones included; regions are
    8-connected and each counts alike; every distinct value is a threshold.
    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021. Raises DataError without defect or background.
    """
    weight, regions = _region_weights(masks)
    normal = ~masks
    if not regions or not normal.any():
        raise DataError("PRO needs both defective and good pixels")
    return _curve(maps, weight / regions, normal / np.count_nonzero(normal))


def _curve(values: npt.NDArray[np.floating], gain: npt.NDArray[np.float64], harm: npt.NDArray[np.float64]) -> Curve:
    """Return the curve over all values. A value adds its gain and its harm; gains sum up to 1, and so do harms."""
    order = np.argsort(values, axis=None, kind="stable")[::-1]
    ordered = values.ravel()[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # equal values cross a threshold together
    detected = np.append(0.0, np.cumsum(gain.ravel()[order])[ends])
    return Curve(false=np.append(0.0, np.cumsum(harm.ravel()[order])[ends]), detected=detected, values=ordered[ends])


def _region_weights(masks: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], int]:
    """Return 1 / (area of its region) for each defective pixel, 0 elsewhere; and the number of regions."""
    weight = np.zeros(masks.shape, np.float64)
    regions = 0
    for row in np.flatnonzero(masks.any(axis=(1, 2))):
        labels, count = ndimage.label(masks[row], _EIGHT)
        areas = np.bincount(labels.ravel(), minlength=count + 1).astype(np.float64)
        areas[0] = np.inf
        weight[row] = 1 / areas[labels]
        regions += count
    return weight, regions


def pro_per_image(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.floating]) -> float:
    """Return PRO as the official RD4AD code computes it, mean over the defective pictures: not comparable with `pro`.

    A picture has 200 thresholds of its own, from its smallest to its largest value, and its own false-positive rates.
    Points with a rate below 0.3 are kept, and their rates are divided by the largest one. A picture without two such
    points, or where no good pixel is ever over a threshold, counts as 0. masks bool, maps float, both (n, h, w).
    """
    rows = np.flatnonzero(masks.any(axis=(1, 2)))
    if not len(rows):
        raise DataError("PRO needs defective pixels")
    return float(np.mean([_official_pro(masks[row], maps[row].astype(np.float64)) for row in rows]))


def _official_pro(mask: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> float:
    low, high = values.min(), values.max()
    if low == high or mask.all():
        return 0.0
    thresholds = np.arange(low, high, (high - low) / THRESHOLDS)
    labels, count = ndimage.label(mask, _EIGHT)
    overlap = np.mean([_share_above(values[labels == region], thresholds) for region in range(1, count + 1)], axis=0)
    false = _share_above(values[~mask], thresholds)
    within_limit = false < FPR_LIMIT
    if np.count_nonzero(within_limit) < 2 or false[within_limit].max() == 0:
        return 0.0
    # rates fall as thresholds rise
    return float(-np.trapezoid(overlap[within_limit], false[within_limit] / false[within_limit].max()))


def _share_above(values: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(values), thresholds, side="right") / len(values)
