"""Settings of how a picture file becomes a model's input, besides its size; recipes have and bundles keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from revdist.data.alignment import Alignment

# stretch: each side by itself; pad: whole and in the middle, its edges repeated around; crop: the middle of it
Fit: TypeAlias = Literal["stretch", "pad", "crop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The settings of how a picture file becomes a model's input."""

    fit: Fit = "stretch"  # how the picture comes to the input's aspect ratio
    alignment: Alignment | None = None  # brings the part to the reference position; None: it lies there
    bits: int = 0  # bits of deep values that count, see pictures.decode; 0: not stated


PLAIN = Reading()
