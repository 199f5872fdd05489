"""What a product's inspection leaves out, such as a serial number, the background or another station.

It is drawn as polygons or as a picture, and kept at the size of the model's input. Masked pixels are painted over
before a network sees them, so that nothing in them can change a score. H W a picture, h w the model's input.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from revdist.data import images, masks
from revdist.data.images import Pixels
from revdist.data.reading import Fit
from revdist.data.survey import Look
from revdist.data.tiles import Size, Tiles
from revdist.errors import DataError, ImageError
from revdist.files import trouble

DRAWN = (".yaml", ".yml", ".json")  # files that hold polygons
LARGEST_BYTES = 1_000_000  # of such a file
POINTS_MOST = 20_000  # of all polygons together
EXPECTED = "a mask is 0 where parts are inspected, and any other value where they are not"
_POLYGONS = "write `polygons:`, a list of lists of [x, y], in pixels of the pictures from their upper left corner"


@dataclass(frozen=True, eq=False)
class InspectionMask:
    """The pixels of a model's input that are not inspected, and the colour that they are painted with."""

    masked: npt.NDArray[np.bool_]  # (h, w), not writeable
    fill: tuple[int, int, int]  # RGB

    @functools.cached_property
    def inspected(self) -> npt.NDArray[np.bool_]:
        """Return which pixels (h, w) are inspected."""
        return ~self.masked

    @property
    def share(self) -> float:
        """Return the share of the picture that is not inspected."""
        return float(self.masked.mean())

    @property
    def digest(self) -> str:
        """Return a SHA-256 of the pixels and the colour."""
        return hashlib.sha256(np.packbits(self.masked).tobytes() + bytes(self.fill)).hexdigest()

    def cover(self, picture: Pixels) -> Pixels:
        """Return a prepared picture (h, w, 3) with its masked pixels painted over."""
        covered = picture.copy()
        covered[self.masked] = self.fill
        covered.flags.writeable = False
        return covered

    def cover_tiles(self, parts: Sequence[Pixels], tiles: Tiles) -> list[Pixels]:
        """Paint over the tiles of some pictures, picture by picture."""
        masked = self.tiles(tiles)
        return [InspectionMask(masked[row % len(masked)], self.fill).cover(part) for row, part in enumerate(parts)]

    def tiles(self, tiles: Tiles) -> list[npt.NDArray[np.bool_]]:
        """Return which pixels of each tile (h', w') are masked."""
        return [part > 0 for part in tiles.cut(self.masked.astype(np.uint8))]

    def png(self) -> bytes:
        """Return the mask as a PNG file: white where parts are not inspected."""
        levels = np.where(self.masked, 255, 0).astype(np.uint8)
        return images.encode_png(images.to_rgb(levels))


def of_png(content: bytes, path: Path, size: Size, fill: Sequence[int]) -> InspectionMask:
    """Return the mask of a bundle's file. Raises ValueError where it does not fit the model's input."""
    try:
        levels = images.decode(content, path)
    except ImageError as error:
        raise ValueError(error.message) from error
    if levels.shape[:2] != size:
        raise ValueError(f"{path.name} has {levels.shape[0]}x{levels.shape[1]} pixels, the input {size[0]}x{size[1]}")
    if not all(0 <= level <= 255 for level in fill):
        raise ValueError(f"the mask's colour {list(fill)} is no colour")
    red, green, blue = fill
    return _checked(levels[..., 0] > 127, (red, green, blue), path.name)


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A mask as a person drew it, for pictures of one shape."""

    path: Path
    masked: npt.NDArray[np.bool_]  # (H, W)

    def at(self, size: Size, fit: Fit, prepared: Sequence[Pixels]) -> InspectionMask:
        """Bring the mask to the model's input; `prepared`: good pictures (h, w, 3) that give the mean colour.

        A pixel that a masked one reaches in the least is masked. Raises DataError where everything or nothing is.
        """
        levels = np.where(self.masked, 255, 0).astype(np.uint8)
        masked = images.prepare_mask(images.to_rgb(levels), size, fit)[..., 0] > 0
        try:
            return _checked(masked, _mean_colour(prepared, ~masked), trouble.shown(self.path))
        except ValueError as error:
            raise DataError(str(error), hint=EXPECTED) from error


def read(path: Path, looks: Sequence[Look]) -> Drawing:
    """Read a mask for pictures of good parts: a picture, or polygons as YAML or JSON.

    Raises DataError or ImageError for a file that is no mask, or for pictures of another shape.
    """
    height, width = looks[0].size
    if path.suffix.lower() in DRAWN:
        drawn, masked = _of_polygons(path, (height, width))
    else:
        masked = _of_picture(path)
        drawn = masked.shape[0], masked.shape[1]
    wrong = next((look for look in looks if not _alike(drawn, look.size)), None)
    if wrong is not None:
        raise DataError(
            f"{trouble.shown(path)}: the mask is for pictures of {drawn[1]}x{drawn[0]} pixels, but "
            f"{trouble.shown(wrong.path)} has {wrong.size[1]}x{wrong.size[0]}",
            hint="one mask holds for pictures of one shape: take them with one camera and one region",
        )
    return Drawing(path, masked)


def _alike(one: Size, other: Size) -> bool:
    """Return whether two sizes have the same aspect ratio, within a pixel."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _of_picture(path: Path) -> npt.NDArray[np.bool_]:
    try:
        return masks.marked(path)
    except ImageError as error:
        raise ImageError(error.message, hint=EXPECTED if error.hint == masks.EXPECTED else error.hint) from error


def _of_polygons(path: Path, size: Size) -> tuple[Size, npt.NDArray[np.bool_]]:
    """Return the size that the polygons are drawn for, by default that of the pictures, and the mask."""
    stated, polygons = _parsed(path, _loaded(path))
    height, width = stated or size
    drawn = np.zeros((height, width), np.uint8)
    for corners in polygons:
        # corners lie between pixels, so that [0, 0] to [10, 0] is ten pixels wide
        cv2.fillPoly(drawn, [np.rint((np.array(corners) - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    return (height, width), drawn > 0


def _loaded(path: Path) -> Any:
    try:
        content = path.read_bytes()[: LARGEST_BYTES + 1]
    except trouble.FILE_ERRORS as error:
        raise trouble.error(DataError, error, path, "read") from error
    if len(content) > LARGEST_BYTES:
        raise DataError(f"{trouble.shown(path)}: is larger than {LARGEST_BYTES} bytes", hint=_POLYGONS)
    try:
        return json.loads(content) if path.suffix.lower() == ".json" else yaml.safe_load(content)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        told = str(error).replace("\n", " ")[:200]
        raise DataError(f"{trouble.shown(path)}: cannot be parsed: {told}", hint=_POLYGONS) from error


def _parsed(path: Path, value: Any) -> tuple[Size | None, list[list[tuple[float, float]]]]:
    """Check a file's polygons and the size that they are drawn for. Raises DataError."""
    size: Size | None = None
    if isinstance(value, dict):
        if unknown := set(map(str, value)) - {"polygons", "size"}:
            raise _wrong(path, f"has an unknown entry {min(unknown)[:60]!r}")
        size = _stated(path, value["size"]) if "size" in value else None
        value = value.get("polygons")
    if not isinstance(value, list) or not value:
        raise _wrong(path, "holds no polygons")
    points = 0
    polygons = []
    for number, polygon in enumerate(value, 1):
        if not isinstance(polygon, list) or len(polygon) < 3:
            raise _wrong(path, f"polygon {number} is no list of three corners or more")
        points += len(polygon)
        if points > POINTS_MOST:
            raise _wrong(path, f"has more than {POINTS_MOST} corners")
        polygons.append([_corner(path, number, corner) for corner in polygon])
    return size, polygons


def _stated(path: Path, value: Any) -> Size:
    whole = isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) for side in value)
    if not whole or not all(1 <= side <= 2**15 for side in value):
        raise _wrong(path, "`size` is not [width, height] in pixels")
    return value[1], value[0]


def _corner(path: Path, number: int, value: Any) -> tuple[float, float]:
    pair = isinstance(value, list) and len(value) == 2 and all(_number(part) for part in value)
    if not pair or not all(abs(part) <= 2**15 for part in value):
        raise _wrong(path, f"polygon {number} has a corner {str(value)[:60]} that is not [x, y] in pixels")
    return float(value[0]), float(value[1])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(path: Path, cause: str) -> DataError:
    return DataError(f"{trouble.shown(path)}: {cause}", hint=_POLYGONS)


def _mean_colour(prepared: Iterable[Pixels], inspected: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the mean colour of what is inspected: the least edge between it and what is painted over."""
    means = [picture[inspected].mean(0) for picture in prepared] if inspected.any() else []
    red, green, blue = np.rint(np.mean(means, 0)).astype(int).tolist() if means else (128, 128, 128)
    return red, green, blue


def _checked(masked: npt.NDArray[np.bool_], fill: tuple[int, int, int], name: str) -> InspectionMask:
    if masked.all() or not masked.any():
        raise ValueError(f"{name}: {'everything' if masked.all() else 'nothing'} is masked")
    kept = np.array(masked)
    kept.flags.writeable = False
    return InspectionMask(kept, fill)
