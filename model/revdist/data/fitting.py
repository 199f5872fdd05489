"""Fit a picture to the aspect ratio of a model's input, and a map of the input back to the picture.

H W the picture, h w the input and its map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from revdist.data.reading import Fit

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


def padded_part(shape: tuple[int, ...], size: Size) -> Part:
    """Return the part of an input (h, w) that a whole, padded picture (H, W, ...) takes."""
    (rows, columns), (high, wide) = shape[:2], size
    share = min(high / rows, wide / columns)
    height, width = min(high, max(1, round(rows * share))), min(wide, max(1, round(columns * share)))
    return Part((high - height) // 2, (wide - width) // 2, height, width)


def cut_part(shape: tuple[int, ...], size: Size) -> Part:
    """Return the part of a picture (H, W, ...) that a cropped input (h, w) shows."""
    (rows, columns), (high, wide) = shape[:2], size
    share = min(rows / high, columns / wide)
    height, width = min(rows, max(1, round(high * share))), min(columns, max(1, round(wide * share)))
    return Part((rows - height) // 2, (columns - width) // 2, height, width)


def cut(pixels: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """Return the middle of a picture (H, W, 3) in the input's aspect ratio: a view."""
    part = cut_part(pixels.shape, size)
    return pixels[part.top : part.top + part.height, part.left : part.left + part.width]


def over_picture(anomaly_map: npt.NDArray[np.float32], shape: tuple[int, ...], fit: Fit) -> npt.NDArray[np.float32]:
    """Turn a map (h, w) of an input into a map with the aspect ratio of the whole picture (H, W, ...).

    Values in the padding count for the edge beside them, so that the highest value stays. Cut-off parts are 0.
    """
    size = (anomaly_map.shape[0], anomaly_map.shape[1])
    if fit == "stretch" or shape[:2] == size:
        return anomaly_map
    if fit == "pad":
        part = padded_part(shape, size)
        end, right = part.top + part.height, part.left + part.width
        inside = anomaly_map[part.top : end, part.left : right].copy()
        inside[0] = anomaly_map[: part.top + 1, part.left : right].max(0)
        inside[-1] = np.maximum(inside[-1], anomaly_map[end - 1 :, part.left : right].max(0))
        inside[:, 0] = np.maximum(inside[:, 0], anomaly_map[part.top : end, : part.left + 1].max(1))
        inside[:, -1] = np.maximum(inside[:, -1], anomaly_map[part.top : end, right - 1 :].max(1))
        return inside
    part = cut_part(shape, size)
    high, wide = size[0] / part.height, size[1] / part.width  # pixels of the map for one pixel of the picture
    rows, columns = max(size[0], round(shape[0] * high)), max(size[1], round(shape[1] * wide))
    top, left = min(round(part.top * high), rows - size[0]), min(round(part.left * wide), columns - size[1])
    whole = np.zeros((rows, columns), np.float32)
    whole[top : top + size[0], left : left + size[1]] = anomaly_map
    return whole
