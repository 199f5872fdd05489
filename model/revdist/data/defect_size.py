"""Which input size shows a defect of a known size to the networks, and whether the pictures show it at all.

Sizes of a defect are its shorter extent, such as the width of a scratch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from revdist.data.tiles import Size
from revdist.errors import RecipeError

ENOUGH_PX = 8.0  # pixels of the input, one location of the middle scale: smaller defects are seen with luck
LARGEST = 1024  # pixels a side that go through the networks whole
TILE = (256, 256)
_LUCK = f"less than {ENOUGH_PX:g} is seen with luck"
_STRIDE = 32  # sides of an input are multiples of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """The smallest defect that must be seen: in pixels of the picture, or in mm with the field of view."""

    size: float
    field_mm: float | None = None  # what the longer side of a picture shows; None: `size` is in pixels

    def __post_init__(self) -> None:
        for name, value in (("defect", self.size), ("field", 1.0 if self.field_mm is None else self.field_mm)):
            if not (math.isfinite(value) and value > 0):
                raise RecipeError(f"{name} is {value:g}, must be over 0")
        if self.field_mm is not None and self.size > self.field_mm:
            raise RecipeError(f"a defect of {self.size:g} mm is larger than the field of view, {self.field_mm:g} mm")

    def in_picture(self, picture: Size) -> float:
        """Return its size in pixels of a picture (height, width)."""
        return self.size if self.field_mm is None else self.size / self.field_mm * max(picture)

    def in_input(self, picture: Size, size: Size) -> float:
        """Return its size in pixels of an input; the side that shrinks most counts."""
        return self.in_picture(picture) * min(side / before for side, before in zip(size, picture, strict=True))

    def plan(self, picture: Size, usual: Size) -> tuple[Size, Size | None]:
        """Return the smallest input size, at least the usual one, that shows the defect well, and the tiles for it.

        No input is larger than the picture needs: enlarging shows nothing more.
        """
        share = min(1.0, ENOUGH_PX / self.in_picture(picture))
        height, width = (
            max(least, math.ceil(side * share / _STRIDE) * _STRIDE) for side, least in zip(picture, usual, strict=True)
        )
        return (height, width), TILE if max(height, width) > LARGEST else None

    def sentence(self, picture: Size, size: Size) -> str:
        """Say how large the defect is, and what helps where it is too small."""
        shown, seen = self.in_picture(picture), self.in_input(picture, size)
        unit = " pixels" if self.field_mm is None else " mm"
        told = f"a defect of {self.size:g}{unit} is {shown:.1f} pixels of a picture of {picture[0]}x{picture[1]}"
        told += f", and {seen:.1f} at the input of {size[0]}x{size[1]}"
        if seen >= ENOUGH_PX:
            return told
        if shown < ENOUGH_PX:
            return f"{told}: {_LUCK}; more needs a camera with more pixels or a smaller field"
        return f"{told}: {_LUCK}; leave --size out, and it is chosen for the defect"
