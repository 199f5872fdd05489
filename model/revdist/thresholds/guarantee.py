"""What a false-reject rate promises, apart from the arithmetic: a command's options need the names and no SciPy."""

from __future__ import annotations

from typing import Literal, TypeAlias

Guarantee: TypeAlias = Literal[
    "average", "confidence"
]  # on average over calibrations, or for this one (see CONFIDENCE)
CONFIDENCE = 0.95
