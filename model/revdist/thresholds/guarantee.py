"""The guarantees of a false-reject rate, without arithmetic: a command's options need the names but no SciPy."""

from __future__ import annotations

from typing import Literal, TypeAlias

Guarantee: TypeAlias = Literal[
    "average", "confidence"
]  # on average over calibrations, or for this one (see CONFIDENCE)
CONFIDENCE = 0.95
