"""A picture in tiles: how a large picture with small defects goes through networks that see a part of it at a time.

Tiles overlap. Where two tiles see the same pixels, the distance from the tile whose centre is nearer is used. The
joined map is what a network without tiles would give, but for its input's borders, which the student learnt in
training. Smoothing and score come after the joining and know nothing of tiles.

B pictures, T tiles of each, h w a picture, H W a map of a tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from revdist.errors import RecipeError

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]  # (height, width)

STRIDE = 16  # of the coarsest scale: tiles begin and end at its locations
OVERLAP = 32  # pixels, at least, that two tiles side by side have in common
SMALLEST = 64  # pixels a side


@dataclass(frozen=True)
class Tiles:
    """Tiles of one size that cover a picture, which can be its own single tile. Equal objects cut pictures alike."""

    size: Size  # of the picture
    tile: Size

    @classmethod
    def of(cls, size: Size, tile: Size | None) -> Tiles:
        """Raises RecipeError for tiles that are too large, too small or do not end at a location of each scale."""
        if tile is None:
            return cls(size, size)
        for side, part in zip(size, tile, strict=True):
            if part != side and not (SMALLEST <= part < side and part % (2 * STRIDE) == 0):
                raise RecipeError(
                    f"recipe: tile is {tile}, must be (height, width), each a multiple of {2 * STRIDE} from {SMALLEST} "
                    f"on and not more than the size, {size}"
                )
        return cls(size, tile)

    @property
    def count(self) -> int:
        """How many tiles cover a picture."""
        return len(self.spans[0]) * len(self.spans[1])

    def cut(self, picture: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """The tiles (tile height, tile width, 3) of a picture (h, w, 3), row by row: views, no copies."""
        high, wide = self.tile
        rows, columns = self.spans
        return [
            picture[row.start : row.start + high, column.start : column.start + wide]
            for row in rows
            for column in columns
        ]

    def join(self, distances: torch.Tensor) -> torch.Tensor:
        """A scale's distances in all tiles, picture by picture: (B * T, H, W) -> (B, h / stride, w / stride)."""
        if self.count == 1:
            return distances
        import torch  # here: a command's options need tiles and should not wait for torch

        stride = self.tile[0] // distances.shape[1]
        rows, columns = self.spans
        by_tile = distances.reshape(-1, len(rows), len(columns), *distances.shape[1:])  # (B, rows, columns, H, W)
        return torch.cat(
            [
                torch.cat(
                    [
                        by_tile[:, down, along, row.kept(stride), column.kept(stride)]
                        for along, column in enumerate(columns)
                    ],
                    2,
                )
                for down, row in enumerate(rows)
            ],
            1,
        )

    @cached_property
    def spans(self) -> tuple[list[Span], list[Span]]:
        """Where tiles lie along height and width."""
        height, width = (_along(side, part) for side, part in zip(self.size, self.tile, strict=True))
        return height, width


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tile lies along one side of the picture, and which part of it is used, in pixels of the picture."""

    start: int
    first: int
    end: int

    def kept(self, stride: int) -> slice:
        """The locations of a tile's map that are used."""
        return slice((self.first - self.start) // stride, (self.end - self.start) // stride)


def _along(side: int, part: int) -> list[Span]:
    """Place as few tiles as overlap enough, evenly spread, with seams in the middle of overlaps."""
    whole, length, overlap = side // STRIDE, part // STRIDE, OVERLAP // STRIDE
    count = 1 if whole == length else math.ceil((whole - overlap) / (length - overlap))
    starts = [place * (whole - length) // max(1, count - 1) for place in range(count)]
    seams = [0, *((after + before + length) // 2 for before, after in pairwise(starts)), whole]
    return [
        Span(start * STRIDE, first * STRIDE, end * STRIDE)
        for start, (first, end) in zip(starts, pairwise(seams), strict=True)
    ]
