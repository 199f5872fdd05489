"""A product as an engine keeps it, and the inspection that an engine returns for a batch.

B pictures of a batch, h w their size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from revdist.data.tiles import Tiles
from revdist.engines.openvino import compiled
from revdist.engines.processor import quantised
from revdist.scoring import detector
from revdist.scoring.combination import Combination

if TYPE_CHECKING:  # it needs OpenCV, which a bare machine with a GPU lacks
    from revdist.data.inspection_mask import InspectionMask


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of the teacher's and the student's maps on good pictures of a product, for int8."""

    teacher: quantised.Ranges
    student: quantised.Ranges


@dataclass(frozen=True, slots=True)
class LoadedProduct:
    """A student in an engine, ready to run, with its teacher."""

    teacher: nn.Module
    teacher_key: str  # an engine has one teacher, but in int8 one for each set of ranges
    student: nn.Module
    spread: detector.Spread
    tiles: Tiles  # the tiles that the networks see a picture in
    top_share: float  # share of the map's values whose mean is the score; 0: the highest value
    mask: InspectionMask | None = None  # what is not inspected
    inspected: torch.Tensor | None = None  # (h, w) float32 on the device: 0 where it is masked, else 1
    combination: Combination | None = None  # of the combined score, on the device

    def cut(self, picture: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """Return the tiles of a prepared picture (h, w, 3) as the networks see them: what is masked is painted over."""
        return self.tiles.cut(picture if self.mask is None else self.mask.cover(picture))

    def shown(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps (B, h, w) that are 0 where they are masked."""
        return maps if self.inspected is None else maps * self.inspected

    def scores(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the scores (B,) of maps that `shown` returned."""
        if self.mask is None:
            return detector.scores(maps, self.top_share)
        return detector.scores(maps, self.top_share, int(self.mask.inspected.sum()))

    def distances(self, taught: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Three maps of the teacher (B, C, H, W) -> distances of the student's maps: (B, H, W) float32 each.

        With a combined score the whitened residuals of some scales follow.
        """
        outputs: Sequence[torch.Tensor] = self.student(taught)
        is_compiled = isinstance(self.student, compiled.Program)
        distances = list(outputs[:3]) if is_compiled else detector.distances(taught, outputs)
        if self.combination is None:
            return distances
        residuals = outputs[3:] if is_compiled else self.combination.residuals(taught, outputs)
        return [*distances, *self.combination.whitened(residuals)]

    def weighted(self, distances: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The result of `distances`, of whole pictures -> the three distances that the map is made of."""
        return distances if self.combination is None else self.combination.weighted(distances)


Table = Mapping[str, LoadedProduct]


class Inspection:
    """The result of `Engine.inspect`: scores and anomaly maps, in the order of the pictures."""

    def __init__(
        self,
        scores: npt.NDArray[np.float32],
        maxima: npt.NDArray[np.float32],
        maps: Sequence[torch.Tensor],
        to_host: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.cpu,
    ) -> None:
        self.scores = scores  # (B,) float32, raw
        self.maxima = maxima  # (B,) float32: the highest value of the paper's map, whatever the score is
        self._maps = maps  # B tensors (h, w) on the device
        self._to_host = to_host

    def map(self, index: int) -> npt.NDArray[np.float32]:
        """The smoothed anomaly map of a picture, float32 (h, w), copied from the device now."""
        return np.asarray(self._to_host(self._maps[index]).numpy())


Groups = Sequence[
    tuple[Sequence[int], Sequence[tuple[torch.Tensor, ...]]]
]  # rows, and pairs of smoothed maps and scores


def scores_of(groups: Groups) -> torch.Tensor:
    """Return scores and maxima of all groups, one group after the other (B, 2), on the device."""
    return torch.cat([scores for _, seen in groups for _, scores in seen])


def inspection(
    groups: Groups, scores: npt.NDArray[np.float32], to_host: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.cpu
) -> Inspection:
    """Join all groups in the order of the pictures. `scores`: those of `scores_of`, on the host."""
    order = [row for rows, _ in groups for row in rows]
    maps = dict(
        zip(order, (anomaly_map for _, seen in groups for smoothed, _ in seen for anomaly_map in smoothed), strict=True)
    )
    ordered = np.empty((len(order), 2), np.float32)
    ordered[order] = scores
    return Inspection(ordered[:, 0], ordered[:, 1], [maps[row] for row in range(len(order))], to_host)


def rows_by_product(products: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each product in a batch."""
    rows: dict[str, list[int]] = {}
    for row, product in enumerate(products):
        rows.setdefault(product, []).append(row)
    return rows
