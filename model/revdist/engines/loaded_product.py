"""What an engine holds for each product, and what it gives for a batch.

B pictures of a batch, h w their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from revdist.data.tiles import Tiles
from revdist.engines.openvino import compiled
from revdist.engines.processor import quantised
from revdist.scoring import detector


@dataclass(frozen=True, slots=True)
class Ranges:
    """Of the maps of teacher and student on good pictures of a product: what int8 needs to know of them."""

    teacher: quantised.Ranges
    student: quantised.Ranges


@dataclass(frozen=True, slots=True)
class LoadedProduct:
    """A student in an engine, ready to run, and the teacher that it is run with."""

    teacher: nn.Module
    teacher_key: str  # engines have one teacher, but in int8 one for each set of ranges
    student: nn.Module
    spread: detector.Spread
    tiles: Tiles  # that it sees a picture in
    top_share: float  # of the map's values whose mean is the score; 0 for the highest

    def distances(self, taught: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Three maps of the teacher (B, C, H, W) -> how far the student's are from them: (B, H, W) float32 each."""
        found: Sequence[torch.Tensor] = self.student(taught)
        return found if isinstance(self.student, compiled.Program) else detector.distances(taught, found)


Table = Mapping[str, LoadedProduct]


class Inspection:
    """What `Engine.inspect` found, in the order of the pictures."""

    def __init__(self, scores: npt.NDArray[np.float32], maps: Sequence[torch.Tensor]) -> None:
        self.scores = scores  # (B,) float32, raw
        self._maps = maps  # B tensors (h, w) on the device

    def map(self, index: int) -> npt.NDArray[np.float32]:
        """The smoothed anomaly map of a picture, float32 (h, w), copied from the device now."""
        return np.asarray(self._maps[index].cpu().numpy())


def rows_by_product(products: Sequence[str]) -> dict[str, list[int]]:
    """Which rows of a batch are of which product."""
    rows: dict[str, list[int]] = {}
    for row, product in enumerate(products):
        rows.setdefault(product, []).append(row)
    return rows
