"""What drift looks at: one judged part, how its picture looks, and what is known of good ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from rejectd.contract.messages import Pixels
from rejectd.drift.change import Values

GRID = 16  # cells a side that a picture is divided into
LOOKS = ("brightness", "contrast", "sharpness")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A judged frame, as far as drift needs it."""

    camera: str
    product: str
    model: str  # key: another bundle begins anew
    pixels: Pixels  # uint8 (h, w, 3), prepared
    score: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """What a bundle says of good parts."""

    scores: Values  # (n,) of held-out pictures
    looks: Mapping[str, Values] = field(default_factory=dict)  # of the training pictures, by name; empty: not known


def cells(pixels: Pixels) -> Values:
    """Return the mean of each cell of a picture (GRID * GRID,), as so many times the usual difference from the median.

    Light that changes everywhere alike leaves them as they are, and so does a spot elsewhere.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float64)
    low, middle, high = np.quantile(small, (0.25, 0.5, 0.75))
    return np.asarray(((small - middle) / (high - low + 1.0)).ravel(), np.float64)
