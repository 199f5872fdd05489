"""Whether a picture can be judged: complete, of the right kind, not a repeat, large enough for the region."""

from __future__ import annotations

import dataclasses

import numpy as np

from rejectd.contract.messages import Picture, Pixels
from rejectd.contract.settings import Region

_SAMPLE_STEP = 61  # prime, so that the sample does not follow columns or a chequered pattern
FROZEN = "frozen"


class Check:
    """Cuts the pictures of one camera to its region, and removes the pixels of pictures that cannot be judged."""

    def __init__(self, region: Region | None, frozen_after: int) -> None:
        """`frozen_after` identical pictures in a row are frozen; 0 switches that off. One picture is never a repeat."""
        self._region = region
        self._frozen_after = max(frozen_after, 2) if frozen_after else 0
        self._last: Pixels | None = None
        self._alike = 0
        self._first_alike_ns = 0

    def __call__(self, picture: Picture) -> Picture:
        """The picture with read-only, contiguous uint8 (h, w, 3) pixels, or with `pixels=None` and its fault."""
        if picture.fault or picture.pixels is None:
            return _faulty(picture, picture.fault or "the camera delivered no pixels")
        pixels = picture.pixels
        if fault := _malformed(pixels) or self._frozen(pixels, picture.captured_ns):
            return _faulty(picture, fault)
        height, width = pixels.shape[:2]
        if self._region is not None:
            x, y, w, h = self._region
            if x + w > width or y + h > height:
                return _faulty(
                    picture, f"the region [{x}, {y}, {w}, {h}] exceeds the picture of {width} x {height} pixels"
                )
            if not (w and h):
                return _faulty(picture, f"the region [{x}, {y}, {w}, {h}] is empty")
            pixels = pixels[y : y + h, x : x + w]
        usable = np.ascontiguousarray(pixels).view()  # a view: the driver's own array stays as it is
        usable.flags.writeable = False
        return dataclasses.replace(picture, pixels=usable)

    def frozen_for_s(self, now_ns: int) -> float:
        """How long the camera has repeated one picture; 0 if it has not been often enough to call it frozen."""
        frozen = self._frozen_after and self._alike >= self._frozen_after
        return (now_ns - self._first_alike_ns) / 1e9 if frozen else 0.0

    def _frozen(self, pixels: Pixels, captured_ns: int) -> str:
        if not self._frozen_after:
            return ""
        if self._last is None or not _identical(pixels, self._last):
            self._last, self._alike, self._first_alike_ns = pixels, 1, captured_ns
            return ""
        self._alike += 1
        if self._alike < self._frozen_after:
            return ""
        return f"{FROZEN}: {self._alike} identical pictures in a row"


def _identical(one: Pixels, other: Pixels) -> bool:
    """Whether two pictures are equal. A sample is compared first: noise makes nearly all pictures differ there."""
    if one.shape != other.shape:
        return False
    middle = one.shape[0] // 2
    if not np.array_equal(one[middle], other[middle]):
        return False
    if not np.array_equal(one[::_SAMPLE_STEP], other[::_SAMPLE_STEP]):
        return False
    return np.array_equal(one, other)


def _malformed(pixels: Pixels) -> str:
    """Whether an array is no picture. Drivers deliver such arrays when a device goes away, as pypylon's (0, 1920)."""
    if pixels.size == 0:
        return f"the camera delivered an empty picture of shape {pixels.shape}"
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"the camera delivered an array of shape {pixels.shape} instead of (height, width, 3)"
    if pixels.dtype != np.uint8:
        return f"the camera delivered {pixels.dtype} instead of uint8"
    return ""


def _faulty(picture: Picture, fault: str) -> Picture:
    return dataclasses.replace(picture, pixels=None, fault=fault)
