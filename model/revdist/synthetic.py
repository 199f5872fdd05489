"""Defects painted on good pictures: known bad ones where nobody has photographed any. A probe, no proof."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def scratch(picture: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """A copy of a picture, uint8 (H, W, 3), with a bent line across its middle; the same seed paints the same line.

    Dark on light pictures and light on dark ones, a third of the shorter side long, one fiftieth of it wide.
    """
    height, width = picture.shape[:2]
    side = min(height, width)
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, np.pi)
    across, along = np.array([np.cos(angle), np.sin(angle)]), np.linspace(-side / 6, side / 6, 9)
    centre = np.array([width, height]) * generator.uniform(0.35, 0.65, 2)
    bend = generator.uniform(-1, 1, len(along)) * side / 60
    points = centre + along[:, None] * across + bend[:, None] * across[::-1] * (-1, 1)  # (9, 2) x, y
    painted = picture.copy()
    x, y = np.clip(points.mean(0).astype(int), 0, (width - 1, height - 1))
    tone = 30 if picture[y, x].mean() > 127 else 225
    cv2.polylines(
        painted, [np.rint(points).astype(np.int32)], False, (tone,) * 3, max(2, round(side / 50)), cv2.LINE_AA
    )
    return painted
