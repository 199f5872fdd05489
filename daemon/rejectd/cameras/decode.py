"""A picture file becomes pixels exactly as in the model library: training and service must see the same.

That is why PIL decodes, and OpenCV only what PIL would cut to 8 bits.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from rejectd.messages import Pixels

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
_TEMPORARY = ("~", ".tmp", ".part", ".partial", ".crdownload", ".filepart")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class UnreadableError(Exception):
    """The file is not a picture that can be judged."""


def is_picture(name: str) -> bool:
    """Whether a file of this name counts: a known suffix, neither hidden nor temporary."""
    lower = name.lower()
    return not lower.startswith((".", "~")) and not lower.endswith(_TEMPORARY) and Path(lower).suffix in SUFFIXES


def decode(data: bytes) -> Pixels:
    """uint8 (H, W, 3) RGB of a PNG, JPEG, BMP, TIFF, WebP, PGM or PPM file.

    Grey is repeated, alpha dropped; 16-bit values become round(value / 257). Orientation tags are not followed: a line
    camera is mounted as it is. Raises UnreadableError.
    """
    if not data:
        raise UnreadableError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            deep = any(";16" in str(tile[3]) for tile in image.tile)  # the raw mode, before PIL reduces it
            image.load()  # decodes all of it, so that a truncated file is found here
            if image.mode.startswith("I"):
                return _narrow(np.asarray(image))
            if deep:
                return _narrow(_colour16(data))
            if image.mode == "F":
                raise UnreadableError("floating-point values have no known range; save it as 8 or 16 bit")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise UnreadableError("the file is not a picture of a known kind") from None
    except _BROKEN as error:
        raise UnreadableError(f"the picture is broken: {error}") from None


def _colour16(data: bytes) -> npt.NDArray[np.uint16]:
    """16-bit colour, of which PIL keeps only the high byte."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise UnreadableError("this kind of 16-bit picture is not supported; save it as 16-bit PNG or TIFF")
    if decoded.ndim == 2:
        return np.asarray(decoded, np.uint16)
    return np.asarray(decoded[..., 2::-1], np.uint16)  # BGR or BGRA -> RGB


def _narrow(deep: npt.NDArray[Any]) -> Pixels:
    """round(value / 257) of 16-bit values, (H, W) or (H, W, 3); 257 is odd, so there are no ties to round."""
    if deep.min() < 0 or deep.max() > np.iinfo(np.uint16).max:
        raise UnreadableError("values outside of 0..65535; save it as 8 or 16 bit")
    pixels = ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
