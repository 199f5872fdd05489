"""Colours anomaly maps for people, on one fixed scale: the calibrated threshold, never the picture's own range."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

TRANSPARENT = 0.5  # multiples of the threshold: below, the picture is shown as it is
SATURATED = 1.5  # from here on the colour stays the same
OPACITY = 0.6
OUTLINE = (255, 255, 0)  # RGB
_ORANGE = 190  # of 255 colours of plasma: beyond, they would be as light as the outline
HATCH, HATCH_GREY = 12, 160  # pixels from stripe to stripe where nothing is inspected, and their grey level


def heatmap(
    picture_rgb: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.uint8]:
    """Lay an anomaly map over its picture as `coloured` does, with an outline where it is over the threshold.

    A map that is over the threshold anywhere has an outline, however small the picture.
    """
    height, width = picture_rgb.shape[:2]
    scaled = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)  # (H, W) float32
    over = scaled > threshold
    if not over.any() and anomaly_map.max() > threshold:
        over[np.unravel_index(int(scaled.argmax()), over.shape)] = True
    drawn = np.ascontiguousarray(coloured(picture_rgb, anomaly_map, threshold))
    contours, _ = cv2.findContours(over.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, OUTLINE, max(1, round(min(height, width) / 250)))
    return drawn


def coloured(
    picture_rgb: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.uint8]:
    """Colour an anomaly map over its picture: uint8 (H, W, 3) RGB and float32 (h, w) -> uint8 (H, W, 3) RGB.

    The map is brought to the picture's size. From 0.5 to 1.5 times the threshold the colour runs from blue over purple,
    at the threshold, to orange, and the overlay from transparent to 60 %, so that two pictures, and two days, can be
    compared by eye. The colours grow lighter, so that people who see no red or green can tell them apart.
    """
    height, width = picture_rgb.shape[:2]
    scaled = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)  # (H, W) float32
    level = np.clip((scaled / max(threshold, 1e-12) - TRANSPARENT) / (SATURATED - TRANSPARENT), 0, 1)
    colours = cv2.applyColorMap(np.rint(level * _ORANGE).astype(np.uint8), cv2.COLORMAP_PLASMA)[..., ::-1]  # RGB
    opacity = (OPACITY * np.sqrt(level))[..., None]  # (H, W, 1)
    return np.asarray(np.rint(picture_rgb * (1 - opacity) + colours * opacity), np.uint8)


def as_in_the_paper(picture_rgb: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colour a smoothed map of the coarsest scale as the paper's code does: from its own lowest to its highest value.

    Every picture has a red place so, good ones too: this is for comparison with the article's figures alone.
    """
    height, width = picture_rgb.shape[:2]
    scaled = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    low, high = float(scaled.min()), float(scaled.max())
    level = np.rint(255 * (scaled - low) / max(high - low, 1e-12)).astype(np.uint8)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_JET)[..., ::-1].astype(np.float32)  # RGB
    added = colours + picture_rgb
    return np.asarray(added * (255 / added.max()), np.uint8)


def hatched(picture_rgb: npt.NDArray[np.uint8], masked: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Hatch what is not inspected: uint8 (H, W, 3) RGB and float32 (h, w), over 0.5 where masked -> uint8 (H, W, 3)."""
    height, width = picture_rgb.shape[:2]
    scaled = cv2.resize(masked, (width, height), interpolation=cv2.INTER_NEAREST) > 0.5
    rows, columns = np.indices((height, width), sparse=True)
    striped = scaled & ((rows + columns) % HATCH < HATCH // 3)
    return np.where(striped[..., None], np.uint8(HATCH_GREY), picture_rgb)
