"""Augment training pictures and their features, so that the student learns more from few pictures.

B batch, C channels, H W of a feature map, h w the model's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch

Pixels: TypeAlias = npt.NDArray[np.uint8]  # (h, w, 3)

_CONTRAST, _BRIGHTNESS, _GAMMA = 0.1, 12.0, 0.1  # largest changes: factor, grey levels, exponent
_SHIFT = 0.03  # largest shift, as a part of the side
_SMALLEST, _LARGEST = 0.1, 0.4  # sides of a patch, as parts of the picture's


def copies(pictures: Sequence[Pixels], count: int, seed: int) -> list[Pixels]:
    """Return the pictures, uint8 (h, w, 3), and `count` copies of each whose light and position differ a little.

    Gamma, contrast and brightness change as with another lamp; the shift is at most 3 %, with mirrored borders. There
    are no turns, flips or scales, because those may be defects.
    """
    varied = list(pictures)
    for turn in range(count):
        for row, picture in enumerate(pictures):
            varied.append(_varied(picture, np.random.default_rng((seed, turn, row))))
    return varied


def _varied(picture: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = picture.shape[:2]
    levels = np.arange(256) / 255
    curve = 255 * levels ** (1 + rng.uniform(-_GAMMA, _GAMMA))
    curve = (curve - 127.5) * (1 + rng.uniform(-_CONTRAST, _CONTRAST)) + 127.5 + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    lit = cv2.LUT(picture, np.clip(np.rint(curve), 0, 255).astype(np.uint8))
    x, y = rng.uniform(-_SHIFT, _SHIFT, 2) * (width, height)
    moved = cv2.warpAffine(
        lit,
        np.array([[1, 0, x], [0, 1, y]]),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    moved.flags.writeable = False
    return np.asarray(moved, np.uint8)


def paste(taught: Sequence[torch.Tensor], share: float, rng: np.random.Generator) -> list[torch.Tensor]:
    """Copy three feature maps (B, C, H, W); a `share` of the pictures gets a patch from elsewhere.

    The patch lies at the same part of the picture in each map and comes from another place of another picture of the
    batch, so it does not belong there. The student sees the patch and must rebuild the original map: so it learns not
    to pass on features that it does not know.
    """
    changed = [feature_map.clone() for feature_map in taught]
    count = len(taught[0])
    for row in np.flatnonzero(rng.random(count) < share):
        donor = (row + rng.integers(1, max(2, count))) % count
        size = rng.uniform(_SMALLEST, _LARGEST, 2)
        target, source = (rng.uniform(0, 1 - size) for _ in range(2))
        for clean, pasted in zip(taught, changed, strict=True):
            sides = np.array(pasted.shape[2:])
            (height, width) = np.maximum(1, np.rint(size * sides)).astype(int)
            (top, left), (down, right) = (
                np.minimum(place * sides, sides - (height, width)).astype(int) for place in (target, source)
            )
            pasted[row, :, top : top + height, left : left + width] = clean[
                donor, :, down : down + height, right : right + width
            ]
    return changed
