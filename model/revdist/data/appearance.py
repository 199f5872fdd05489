"""Measure how pictures look, by four numbers each: brightness, contrast, sharpness and aspect ratio.

Prepared pictures are measured, because a model sees those. A bundle keeps the values of the training pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from revdist.data.images import Pixels
from revdist.errors import ImageError
from revdist.files import trouble

Values: TypeAlias = npt.NDArray[np.float64]  # (n,), one value for each picture
Appearance: TypeAlias = Mapping[str, Values]  # by the name of the measure

BRIGHTNESS, CONTRAST, SHARPNESS, ASPECT = "brightness", "contrast", "sharpness", "aspect ratio"
APPEARANCE = "appearance"  # its key among the statistics of a bundle
UNLIKE = "held_out_unlike"  # the key of sentences on how held-out pictures differ from training pictures
KEPT_MOST = 200  # most values of a measure in a bundle; of more pictures, this many quantiles
_DIGITS = 5


def measure(prepared: Sequence[Pixels], paths: Sequence[Path]) -> Appearance:
    """Measure the appearance of prepared pictures (h, w, 3) of these files.

    Brightness and contrast are mean and standard deviation in grey levels; sharpness is the logarithm of the
    Laplacian's standard deviation over the contrast, so that it tells of blur and not of light; the aspect ratio is
    the logarithm of width over height of the file's picture. Raises ImageError for a file that has gone.
    """
    rows = [(*of_pixels(picture), aspect(path)) for picture, path in zip(prepared, paths, strict=True)]
    table = np.array(rows, np.float64).reshape(len(rows), 4)
    return dict(zip((BRIGHTNESS, CONTRAST, SHARPNESS, ASPECT), table.T, strict=True))


def of_pixels(picture: Pixels) -> tuple[float, float, float]:
    """Return brightness, contrast and sharpness of a prepared picture (h, w, 3), as `measure` does."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    contrast = float(grey.std())
    edges = float(cv2.Laplacian(grey, cv2.CV_32F).std())
    return float(grey.mean()), contrast, math.log((edges + 0.1) / (contrast + 0.1))


def aspect(path: Path) -> float:
    """Return the logarithm of width over height of a picture file. Raises ImageError."""
    width, height = size_of(path)
    return math.log(width / height)


def size_of(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header of a picture file that was decoded before."""
    try:
        with path.open("rb") as file, Image.open(file, formats=("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM")) as image:
            return image.size
    except (*trouble.FILE_ERRORS, Image.DecompressionBombError) as error:
        raise ImageError(f"{trouble.shown(path)}: cannot be read any more: {error}") from error


def kept(appearance: Appearance) -> dict[str, list[float]]:
    """Return the values for a bundle: all of them ascending, or KEPT_MOST quantiles, with few digits."""
    return {name: [float(f"{value:.{_DIGITS}g}") for value in _thinned(values)] for name, values in appearance.items()}


def _thinned(values: Values) -> Values:
    if len(values) <= KEPT_MOST:
        return np.sort(values)
    return np.asarray(np.quantile(values, np.linspace(0, 1, KEPT_MOST)), np.float64)


def joined(parts: Sequence[Appearance]) -> Appearance:
    """Join the appearances of several lots of pictures."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def restored(kept_before: Mapping[str, Any]) -> Appearance:
    """Read an appearance that `kept` made, from a file. Raises ValueError for anything else."""
    for name, values in kept_before.items():
        plain = isinstance(values, list) and 0 < len(values) <= KEPT_MOST
        if not plain or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            raise ValueError(f"statistics.{APPEARANCE}.{name} is no list of numbers"[:200])
    return {name: np.sort(np.array(values, np.float64)) for name, values in kept_before.items()}
