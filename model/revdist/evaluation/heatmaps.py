"""Colours anomaly maps for people, on one fixed scale: the calibrated threshold, never the picture's own range."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

TRANSPARENT = 0.5  # multiples of the threshold: below, the picture is shown as it is
SATURATED = 1.5  # from here on the colour stays the same
OPACITY = 0.6


def heatmap(
    picture_rgb: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.uint8]:
    """Lay an anomaly map over its picture: uint8 (H, W, 3) RGB and float32 (h, w) -> uint8 (H, W, 3) RGB.

    The map is brought to the picture's size. From 0.5 to 1.5 times the threshold the colour runs from blue to red and
    the overlay from transparent to 60 %, so that two pictures, and two days, can be compared by eye.
    """
    height, width = picture_rgb.shape[:2]
    scaled = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)  # (H, W) float32
    level = np.clip((scaled / max(threshold, 1e-12) - TRANSPARENT) / (SATURATED - TRANSPARENT), 0, 1)
    colours = cv2.applyColorMap(np.rint(level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]  # RGB
    opacity = (OPACITY * np.sqrt(level))[..., None]  # (H, W, 1)
    return np.asarray(np.rint(picture_rgb * (1 - opacity) + colours * opacity), np.uint8)
