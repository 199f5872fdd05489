"""How a picture file becomes a model's input, besides its size: a recipe says so, and a bundle keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a picture file becomes a model's input, besides its size."""

    bits: int = 0  # of deep values that count, see pictures.decode; 0: not stated


PLAIN = Reading()
