"""Find a part that lies shifted or turned, and bring it to the reference position before the model sees it.

A coarse search by template matching over all allowed angles begins; from there the enhanced correlation coefficient
(Evangelidis and Psarakis, PAMI 2008) finds the place to a fraction of a pixel. Training, calibration and service share
`bring`.
H W a picture, h w the reduced picture that is searched.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from revdist.data.pictures import Pixels
from revdist.errors import DataError, ImageError

Grey = npt.NDArray[np.float32]  # (h, w)
Mask = npt.NDArray[np.bool_]  # (H, W)
Matrix = npt.NDArray[np.float64]  # (2, 3): places in the reference -> places in a picture

SIDE = 320  # pixels of the longer side that a picture is searched at
_COARSE = 96  # and of the search that begins it
_STEP_DEG = 2.0  # between the angles of the search that begins it
_ITERATIONS, _PRECISION = 60, 1e-5
_LEAST_QUALITY = 0.3  # of a good picture, at training
_KEPT_QUALITY = 0.5  # share of the worst good picture's quality that a part must have
_LEAST_AREA = 16  # pixels a side of the searched picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a part lies, against the reference."""

    shift_px: tuple[float, float]  # (x, y) of the middle of the area, in pixels of the picture
    angle_deg: float  # clockwise, as seen
    scale: float
    quality: float  # correlation with the reference, at most 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """The reference and its limits."""

    reference: npt.NDArray[np.uint8]  # grey (h, w)
    size: tuple[int, int]  # (H, W) of the reference, and of each picture
    area: tuple[int, int, int, int]  # x, y, width, height of the part in the reference, pixels of the picture
    shift_px: float  # largest shift each way
    angle_deg: float  # largest turn each way
    scale: float = 0.0  # largest change of size, as a share; 0: parts keep their size
    quality: float = _LEAST_QUALITY  # least correlation

    @property
    def digest(self) -> str:
        """Return a SHA-256 of all that changes pictures."""
        return hashlib.sha256(f"{self.to_json('')}".encode() + self.reference.tobytes()).hexdigest()

    @property
    def told(self) -> str:
        """Return the limits in words."""
        scale = f", {self.scale:.0%} in size" if self.scale else ""
        return (
            f"up to {self.shift_px:g} pixels and {self.angle_deg:g} degrees{scale}, quality {self.quality:.2f} or more"
        )

    def to_json(self, file: str) -> dict[str, Any]:
        """Return everything but the reference, which lies in a file."""
        limits = {"shift_px": self.shift_px, "angle_deg": self.angle_deg, "scale": self.scale, "quality": self.quality}
        return {"file": file, "size": list(self.size), "area": list(self.area), **limits}

    def bring(self, pixels: Pixels) -> Pixels:
        """Return the picture (H, W, 3) with its part in the reference position; what was outside repeats the edge.

        Raises ImageError for a picture of another size, or whose part is not found within the limits.
        """
        matrix = self._found(pixels)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        height, width = self.size
        brought = cv2.warpAffine(pixels, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        brought.flags.writeable = False
        return np.asarray(brought, np.uint8)

    def bring_mask(self, mask: Mask, pixels: Pixels) -> Mask:
        """Return the mask (h, w) of a picture (H, W, 3), moved as `bring` moves the picture: bool (H, W).

        What was outside is not marked. Raises ImageError as `bring`.
        """
        matrix = self._found(pixels)
        height, width = self.size
        marked = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        return cv2.warpAffine(marked, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 127

    def checked(self, pixels: Pixels) -> Placement:
        """Return where the part of a picture (H, W, 3) lies, within the limits. Raises ImageError as `bring`."""
        placement = self._find(pixels)[1]
        self._check(placement)
        return placement

    def locate(self, pixels: Pixels) -> Placement:
        """Return where the part of a picture (H, W, 3) lies, whatever the limits. Raises ImageError as `bring`."""
        return self._find(pixels)[1]

    def _found(self, pixels: Pixels) -> Matrix:
        """Return how a part within the limits is moved."""
        matrix, placement = self._find(pixels)
        self._check(placement)
        return matrix

    def _find(self, pixels: Pixels) -> tuple[Matrix, Placement]:
        if pixels.shape[:2] != self.size:
            raise ImageError(
                f"part not found: the picture has {pixels.shape[1]}x{pixels.shape[0]} pixels, the reference "
                f"{self.size[1]}x{self.size[0]}",
                hint="were the camera's format or its region changed?",
            )
        grey = _reduced(pixels, SIDE)
        x, y, width, height = self._searched
        start = self._coarse(_reduced(pixels, _COARSE), grey.shape[0])
        template = np.ascontiguousarray(self.reference[y : y + height, x : x + width], np.float32)
        warp = np.array(start @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]), np.float32)
        kind = cv2.MOTION_AFFINE if self.scale else cv2.MOTION_EUCLIDEAN
        until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, _PRECISION)
        try:
            quality, refined = cv2.findTransformECC(template, grey, warp, kind, until)
        except cv2.error:
            raise ImageError("part not found: nothing in the picture is like the reference", hint=_LOOK) from None
        found = _similar(np.asarray(refined, np.float64)) @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]])
        return self._in_pixels(found, float(quality))

    def _in_pixels(self, found: Matrix, quality: float) -> tuple[Matrix, Placement]:
        """Turn a matrix of the searched picture into one of the picture, and tell what it means."""
        share = self.reference.shape[0] / self.size[0]
        matrix = found.copy()
        middle = np.array([0.5, 0.5])  # pixels are squares: their middles move with the share
        matrix[:, 2] = (found[:, :2] @ (middle * share - middle) + found[:, 2] + middle) / share - middle
        x, y, width, height = self.area
        centre = np.array([x + width / 2, y + height / 2]) - 0.5
        shift = matrix[:, :2] @ centre + matrix[:, 2] - centre
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        placement = Placement(
            shift_px=(float(shift[0]), float(shift[1])),
            angle_deg=angle,
            scale=float(math.hypot(matrix[0, 0], matrix[1, 0])),
            quality=quality,
        )
        return matrix, placement

    def _check(self, placement: Placement) -> None:
        x, y = placement.shift_px
        if placement.quality < self.quality:
            cause = f"the best place is {placement.quality:.2f} like the reference, {self.quality:.2f} is the least"
        elif max(abs(x), abs(y)) > self.shift_px:
            cause = f"it lies {x:+.1f}, {y:+.1f} pixels off, {self.shift_px:g} is the most"
        elif abs(placement.angle_deg) > self.angle_deg:
            cause = f"it is turned by {placement.angle_deg:+.1f} degrees, {self.angle_deg:g} is the most"
        elif abs(placement.scale - 1) > max(self.scale, 0.001):
            cause = f"its size is {placement.scale:.3f} of the reference's, {self.scale:g} more or less is the most"
        else:
            return
        raise ImageError(f"part not found: {cause}", hint=_LOOK)

    @functools.cached_property
    def _searched(self) -> tuple[int, int, int, int]:
        """The area in pixels of the searched picture."""
        share = self.reference.shape[0] / self.size[0]
        x, y, width, height = (round(value * share) for value in self.area)
        return x, y, max(1, width), max(1, height)

    @functools.cached_property
    def _templates(self) -> list[tuple[float, Grey]]:
        """Angles, and how the area looks when it is turned by them, in the coarse picture."""
        coarse = _shrunk(self.reference, _COARSE)
        share = coarse.shape[0] / self.size[0]
        x, y, width, height = (round(value * share) for value in self.area)
        middle = (x + width / 2 - 0.5, y + height / 2 - 0.5)
        count = math.ceil(self.angle_deg / _STEP_DEG)
        angles = np.linspace(-self.angle_deg, self.angle_deg, 2 * count + 1) if count else np.zeros(1)
        turned = []
        for angle in angles.tolist():
            matrix = cv2.getRotationMatrix2D(middle, -angle, 1.0)
            whole = cv2.warpAffine(
                coarse, matrix, (coarse.shape[1], coarse.shape[0]), flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            turned.append((angle, np.ascontiguousarray(whole[y : y + height, x : x + width], np.float32)))
        return turned

    def _coarse(self, grey: Grey, fine_height: int) -> Matrix:
        """Find the part in the coarse picture; return the matrix (2, 3) in pixels of the searched picture."""
        share = grey.shape[0] / self.size[0]
        x, y, width, height = (round(value * share) for value in self.area)
        room = math.ceil(self.shift_px * share) + 1
        padded = cv2.copyMakeBorder(grey, room, room, room, room, cv2.BORDER_REPLICATE)
        window = padded[y : y + height + 2 * room, x : x + width + 2 * room]
        best, angle, shift = -math.inf, 0.0, (0.0, 0.0)
        for candidate, template in self._templates:
            likeness = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
            _, highest, _, (right, down) = cv2.minMaxLoc(likeness)
            if highest > best:
                best, angle, shift = highest, candidate, (right - room, down - room)
        fine = fine_height / grey.shape[0]
        ratio = fine_height / self.size[0]
        left, top, wide, high = self.area
        middle = np.array([left + wide / 2, top + high / 2]) * ratio - 0.5
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return np.column_stack([turn, middle + np.array(shift) * fine - turn @ middle])


_LOOK = "is a part there, does it lie right way up, has the camera moved? Else train with wider limits"


def prepare(
    reference: Pixels, area: Sequence[int] | None, *, shift_px: float, angle_deg: float, scale: float
) -> Alignment:
    """Make an alignment of a reference picture (H, W, 3); `area`: x, y, width, height of the part, by default all.

    Raises DataError for an area or limits that make no sense.
    """
    height, width = reference.shape[:2]
    x, y, wide, high = area or (0, 0, width, height)
    if min(x, y) < 0 or min(wide, high) < 1 or x + wide > width or y + high > height:
        raise DataError(f"the area {[x, y, wide, high]} does not lie in the reference of {width}x{height} pixels")
    grey = _reduced(reference, SIDE)
    if min(wide, high) * grey.shape[0] / height < _LEAST_AREA:
        raise DataError(f"the area {[x, y, wide, high]} is too small a part of the reference", hint="give a larger one")
    if not (0 < shift_px <= max(height, width) and 0 <= angle_deg <= 180 and 0 <= scale <= 0.3):
        told = f"shift {shift_px:g}, angle {angle_deg:g}, scale {scale:g}"
        raise DataError(
            f"the limits of alignment make no sense: {told}", hint="shift over 0, angle to 180, scale to 0.3"
        )
    return Alignment(
        reference=np.asarray(np.rint(grey), np.uint8),
        size=(height, width),
        area=(x, y, wide, high),
        shift_px=shift_px,
        angle_deg=angle_deg,
        scale=scale,
    )


def learnt(alignment: Alignment, qualities: Sequence[float]) -> Alignment:
    """Return the alignment with the least quality that good pictures give."""
    least = max(_LEAST_QUALITY, _KEPT_QUALITY * min(qualities))
    return dataclasses.replace(alignment, quality=float(f"{least:.4g}"))


def restored(reference: npt.NDArray[np.uint8], entry: dict[str, Any], path: Path) -> Alignment:
    """Read an alignment of a bundle. Raises ValueError where it makes no sense."""
    height, width = entry["size"]
    x, y, wide, high = entry["area"]
    right = min(height, width, wide, high) > 0 <= min(x, y) and x + wide <= width and y + high <= height
    expected = _size_at(height, width, SIDE) if right else None
    if not right or (reference.shape[1], reference.shape[0]) != expected or min(entry["shift_px"], 1) <= 0:
        raise ValueError(f"{path.name}: the alignment does not fit its reference")
    return Alignment(
        reference=np.ascontiguousarray(reference[..., 0]),
        size=(height, width),
        area=(x, y, wide, high),
        shift_px=entry["shift_px"],
        angle_deg=min(180.0, entry["angle_deg"]),
        scale=entry["scale"],
        quality=entry["quality"],
    )


def _similar(matrix: Matrix) -> Matrix:
    """Return the turn, scale and shift nearest to an affine matrix, which keeps the middle's place only for turns."""
    cosine, sine = (matrix[0, 0] + matrix[1, 1]) / 2, (matrix[1, 0] - matrix[0, 1]) / 2
    return np.array([[cosine, -sine, matrix[0, 2]], [sine, cosine, matrix[1, 2]]])


def _size_at(height: int, width: int, side: int) -> tuple[int, int]:
    share = min(1.0, side / max(height, width))
    return max(1, round(width * share)), max(1, round(height * share))


def _reduced(pixels: Pixels, side: int) -> Grey:
    """Return a picture (H, W, 3) in grey, with a longer side of at most `side` pixels."""
    small = cv2.resize(pixels, _size_at(pixels.shape[0], pixels.shape[1], side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)


def _shrunk(grey: npt.NDArray[np.uint8], side: int) -> Grey:
    size = _size_at(grey.shape[0], grey.shape[1], side)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
