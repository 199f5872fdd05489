"""What an engine holds for each product, and what it gives for a batch.

B pictures of a batch, h w their size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """The ranges of the maps of teacher and student on good pictures of a product, which int8 needs."""

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
        outputs: Sequence[torch.Tensor] = self.student(taught)
        return outputs if isinstance(self.student, compiled.Program) else detector.distances(taught, outputs)


Table = Mapping[str, LoadedProduct]


class Inspection:
    """What `Engine.inspect` found, in the order of the pictures."""

    def __init__(
        self,
        scores: npt.NDArray[np.float32],
        maps: Sequence[torch.Tensor],
        to_host: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.cpu,
    ) -> None:
        self.scores = scores  # (B,) float32, raw
        self._maps = maps  # B tensors (h, w) on the device
        self._to_host = to_host

    def map(self, index: int) -> npt.NDArray[np.float32]:
        """The smoothed anomaly map of a picture, float32 (h, w), copied from the device now."""
        return np.asarray(self._to_host(self._maps[index]).numpy())


Groups = Sequence[tuple[Sequence[int], Sequence[tuple[torch.Tensor, ...]]]]  # rows, and their smoothed maps and scores


def scores_of(groups: Groups) -> torch.Tensor:
    """The scores of all groups, one after the other (B,), on the device."""
    return torch.cat([scores for _, seen in groups for _, scores in seen])


def inspection(
    groups: Groups, scores: npt.NDArray[np.float32], to_host: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.cpu
) -> Inspection:
    """The inspection of all groups, in the order of the pictures. `scores`: as `scores_of` gives them, on the host."""
    order = [row for rows, _ in groups for row in rows]
    maps = dict(
        zip(order, (anomaly_map for _, seen in groups for smoothed, _ in seen for anomaly_map in smoothed), strict=True)
    )
    ordered = np.empty(len(order), np.float32)
    ordered[order] = scores
    return Inspection(ordered, [maps[row] for row in range(len(order))], to_host)


def rows_by_product(products: Sequence[str]) -> dict[str, list[int]]:
    """Which rows of a batch are of which product."""
    rows: dict[str, list[int]] = {}
    for row, product in enumerate(products):
        rows.setdefault(product, []).append(row)
    return rows
