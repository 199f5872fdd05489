"""How a picture file becomes a model's input, besides its size: a recipe says so, and a bundle keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

# stretch: each side by itself; pad: whole and in the middle, its edges repeated around; crop: the middle of it
Fit: TypeAlias = Literal["stretch", "pad", "crop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a picture file becomes a model's input, besides its size."""

    fit: Fit = "stretch"  # how the picture comes to the input's aspect ratio
    bits: int = 0  # of deep values that count, see pictures.decode; 0: not stated


PLAIN = Reading()
