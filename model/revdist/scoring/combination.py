"""The combined score: one anomaly map that sums three, each in units of what good pictures have at all places.

A is the paper's: the cosine distances of the scales. B are the same distances, standardised at each place of a scale,
so that places where good parts vary count less. C is the whitened residual: how far the difference of the teacher's and
the student's features, each of unit length, is from what good pictures have, by one covariance a scale; it sees
directions that a cosine adds up. A map is resized and smoothed linearly: all three are one weighted distance a scale.

B pictures, C channels, H W of a scale's map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from revdist.scoring import detector

RESIDUAL_SCALES = (2, 3)  # strides 8 and 16: with the fine scale too, nothing was gained
_BLOCKS = 8  # of a triangular matrix: nine sixteenths of a square's work


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Combination:
    """What turns the distances of a product's scales into weighted ones; float32, by scale (1 fine to 3 coarse).

    In the good pictures that this was measured on, no map has a value below 0, and the median score is 1.
    """

    gains: Mapping[int, torch.Tensor]  # (H, W), for each scale that counts
    offsets: Mapping[int, torch.Tensor]  # (H, W), for each scale that counts
    whitening: Mapping[int, torch.Tensor]  # (C, C), lower triangular: its product with a residual is white
    centres: Mapping[int, torch.Tensor]  # (C,): that product, of the mean residual

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Combination:
        """Return the same with each tensor changed, such as moved to a device."""
        groups = (self.gains, self.offsets, self.whitening, self.centres)
        gains, offsets, whitening, centres = (
            {scale: change(tensor) for scale, tensor in group.items()} for group in groups
        )
        return Combination(gains=gains, offsets=offsets, whitening=whitening, centres=centres)

    @property
    def residual_scales(self) -> tuple[int, ...]:
        """The scales whose residuals count."""
        return tuple(sorted(self.whitening))

    def residuals(self, taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the `residual` of each scale that needs one, in float32."""
        return [residual(taught[scale - 1].float(), rebuilt[scale - 1].float()) for scale in self.residual_scales]

    def whitened(self, residuals: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return how far residuals are from usual: (B, C, H, W) float32 each -> (B, H, W), 0 or more."""
        pairs = zip(self.residual_scales, residuals, strict=True)
        return [squares(own, self.whitening[scale], self.centres[scale]) for scale, own in pairs]

    def weighted(self, measured: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Three distances, then those of `whitened`, (B, H, W) each -> three weighted distances, fine to coarse.

        A scale that does not count remains.
        """
        distances, whitened = list(measured[:3]), dict(zip(self.residual_scales, measured[3:], strict=True))
        for scale, gain in self.gains.items():
            weighted = distances[scale - 1] * gain + self.offsets[scale]
            distances[scale - 1] = weighted + whitened[scale] if scale in whitened else weighted
        return distances


def residual(taught: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """Return taught - rebuilt, both of unit length at each place: two (B, C, H, W) float32 -> the same."""
    return _of_unit_length(taught) - _of_unit_length(rebuilt)


def positive(maps: torch.Tensor) -> torch.Tensor:
    """Return maps without values below 0, which a picture may have where it is rebuilt better than any was before."""
    return maps.clamp_min(0)


def squares(residuals: torch.Tensor, whitening: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """|whitening @ residual - centre|^2 at each place: (B, C, H, W) -> (B, H, W).

    The matrix is lower triangular, so each block of its rows needs the first channels alone.
    """
    places = residuals.flatten(2)  # (B, C, H * W)
    bounds = [round(part * len(centre) / _BLOCKS) for part in range(_BLOCKS + 1)]
    parts: list[torch.Tensor] = []
    for begin, end in pairwise(bounds):
        white = torch.matmul(whitening[begin:end, :end], places[:, :end]) - centre[begin:end, None]
        parts.append((white * white).sum(1))
    total = torch.stack(parts).sum(0)  # (B, H * W)
    return total.view(residuals[:, 0].shape)


def _of_unit_length(features: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / lengths.clamp_min(detector.EPSILON)
