"""Measure on good pictures what the combined score needs: what is usual at each place, and the units of its three maps.

The pictures are those that the student was trained with. A picture that gives a statistic must not set a threshold: in
trials 2.5 to 4.7 % of good parts were rejected instead of 1 % where it did.

N pictures, C channels, H W of a scale's map, h w of the anomaly map.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from revdist.data.images import Pixels
from revdist.data.inspection_mask import InspectionMask
from revdist.engines.engine import Engine
from revdist.recipe import SCALES, Recipe
from revdist.scoring import detector
from revdist.scoring.combination import RESIDUAL_SCALES, Combination, residual
from revdist.scoring.detector import Scoring, Spread
from revdist.training.inspected import Inspected

MOST = 500  # pictures: more only take time
_CHUNK = 8  # pictures
_SIGMA = 1.0  # places: statistics of a place are those of its neighbours too
_PRIOR = 10  # pictures that the statistics of all places together count for
_DIAGONAL, _FLOOR = 0.05, 0.005  # shares of the covariance's diagonal, and of its mean, that are mixed in
_HALF = 0.5
_LEAST = 1e-4  # of a standard deviation of distances: less is rounding
_CPU = torch.device("cpu")

Maps = dict[int, torch.Tensor]  # (N, H, W) by scale
Features = tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]  # three maps of the teacher and of the student
Measure = Callable[[Features], Maps]


@torch.no_grad()
def measure(
    engine: Engine,
    student: nn.Module,
    pictures: Sequence[Pixels],
    recipe: Recipe,
    mask: InspectionMask | None = None,
) -> Combination:
    """Measure the combination of a recipe with the combined score.

    `pictures`: good, whole, prepared; the student was trained with them. `mask`: what is not inspected.
    """
    shown = [mask.cover(picture) if mask else picture for picture in chosen(pictures)]
    counting = Inspected(mask, recipe.tiles, engine.device) if mask else None
    moments = {scale: _Moments() for scale in recipe.scales if scale in RESIDUAL_SCALES}

    def first(features: Features) -> Maps:
        for scale, seen in moments.items():
            residuals = residual(*(maps[scale - 1].float() for maps in features))
            shares = counting.of(range(len(residuals)))[scale - 1][:, 0] if counting else None
            seen.add(residuals, shares)
        return dict(enumerate(detector.distances(*features), 1))

    distances = _collected(engine, student, shown, recipe, first)
    whitening = {scale: _whitening(*seen.mean_and_covariance()) for scale, seen in moments.items()}
    plain = Combination(
        gains={},
        offsets={},
        whitening={scale: matrix for scale, (matrix, _) in whitening.items()},
        centres={scale: centre for scale, (_, centre) in whitening.items()},
    )
    there = plain.mapped(lambda tensor: tensor.to(engine.device))

    def second(features: Features) -> Maps:
        return dict(zip(there.residual_scales, there.whitened(there.residuals(*features)), strict=True))

    whitened = _collected(engine, student, shown, recipe, second) if moments else {}
    return _in_units(distances, whitened, plain, recipe, None if mask is None else torch.from_numpy(mask.inspected))


def chosen(pictures: Sequence[Any]) -> Sequence[Any]:
    """Return the pictures that are measured: all or, of many, at most MOST, evenly from the whole list."""
    return pictures[:: math.ceil(len(pictures) / MOST)]


def _collected(engine: Engine, student: nn.Module, pictures: Sequence[Pixels], recipe: Recipe, see: Measure) -> Maps:
    """Return what `see` finds in the features of all pictures, joined from tiles."""
    parts: dict[int, list[torch.Tensor]] = {}
    for features in _features(engine, student, pictures, recipe):
        for scale, maps in see(features).items():
            parts.setdefault(scale, []).append(recipe.tiles.join(maps).cpu())
    return {scale: torch.cat(maps) for scale, maps in parts.items()}


def _features(engine: Engine, student: nn.Module, pictures: Sequence[Pixels], recipe: Recipe) -> Iterator[Features]:
    """Yield the teacher's and the student's maps of all tiles of some pictures."""
    for begin in range(0, len(pictures), _CHUNK):
        some = pictures[begin : begin + _CHUNK]
        taught = engine.features([tile for picture in some for tile in recipe.tiles.cut(picture)])
        yield taught, student(taught)


class _Moments:
    """The sums that mean and covariance of a scale's residuals are made of, in float64."""

    def __init__(self) -> None:
        self._count, self._sum, self._products = 0, torch.zeros(1), torch.zeros(1)

    def add(self, residuals: torch.Tensor, inspected: torch.Tensor | None) -> None:
        """Add residuals (B, C, H, W) float32, of places of which half and more is `inspected` (B, H, W)."""
        places = residuals.permute(0, 2, 3, 1).double()
        places = places.flatten(0, 2) if inspected is None else places[inspected >= _HALF]  # (n, C)
        self._sum = self._sum + places.sum(0).cpu()
        self._products = self._products + (places.T @ places).cpu()
        self._count += len(places)

    def mean_and_covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (C,) and (C, C)."""
        mean = self._sum / self._count
        return mean, self._products / self._count - mean[:, None] * mean


def _whitening(mean: torch.Tensor, covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a triangular matrix (C, C) that whitens residuals, a square's mean over the channels being 1, and its
    product with their mean (C,).

    The covariance is regularised: few pictures say little about directions in which features hardly vary.
    """
    diagonal = covariance.diagonal()
    mixed = (1 - _DIAGONAL) * covariance
    mixed.diagonal().add_(_DIAGONAL * diagonal + _FLOOR * diagonal.mean() + detector.EPSILON)
    factor = torch.linalg.cholesky(mixed)
    unit = torch.eye(len(mean), dtype=torch.float64)
    matrix = torch.linalg.solve_triangular(factor, unit, upper=False) / math.sqrt(len(mean))
    return matrix.float().contiguous(), (matrix @ mean).float()


def _in_units(
    distances: Maps, whitened: Maps, plain: Combination, recipe: Recipe, inspected: torch.Tensor | None
) -> Combination:
    """Bring the three maps to units of good places, and the whole map to the score 1 of the median good picture.

    `distances`: of all three scales; `plain`: whitens residuals; `inspected`: the pixels (h, w) that count.
    """
    spread = _Spread(recipe, inspected)
    places = {scale: _of_places(distances[scale]) for scale in recipe.scales}
    standardised = {scale: (distances[scale] - mean) / deviation for scale, (mean, deviation) in places.items()}
    unit_a, unit_b, unit_c = (_deviation(spread, maps, distances) for maps in (distances, standardised, whitened))
    gains = {scale: 1 / unit_a + 1 / (unit_b * deviation) for scale, (_, deviation) in places.items()}
    offsets = {scale: -mean / (unit_b * deviation) for scale, (mean, deviation) in places.items()}
    combination = _scaled(plain, gains, offsets, 1 / unit_c)
    in_units = {scale: squares / unit_c for scale, squares in whitened.items()}
    means, lowest, scores = _usual(spread, combination, distances, in_units, recipe.top_share)
    level = (sum(means.values()) - lowest) / len(recipe.scales)  # of each scale on average, for a map of 0 at least
    share = 1 / (float(scores.median()) - lowest)
    gains = {scale: gain * share for scale, gain in gains.items()}
    offsets = {scale: (offset - means[scale] + level) * share for scale, offset in offsets.items()}
    return _scaled(plain, gains, offsets, share / unit_c)


class _Spread:
    """The values of smoothed maps (N, n) at the n pixels that are inspected."""

    def __init__(self, recipe: Recipe, inspected: torch.Tensor | None) -> None:
        self._spread = Spread(recipe.size, _CPU, Scoring(scales=recipe.scales))
        self._inspected = inspected

    def __call__(self, distances: Sequence[torch.Tensor]) -> torch.Tensor:
        return self._counted(self._spread(distances))

    def scales(self, distances: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the values of each scale that counts."""
        return map(self._counted, self._spread.scales(distances))

    def _counted(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(1) if self._inspected is None else maps[:, self._inspected]


def _usual(
    spread: _Spread, combination: Combination, distances: Maps, whitened: Maps, top_share: float
) -> tuple[dict[int, float], float, torch.Tensor]:
    """Return the mean of each scale's maps, the lowest value of the whole maps, and the scores (N,)."""
    scales, lows, scores = list(combination.gains), [], []
    sums = torch.zeros(len(scales), dtype=torch.float64)
    for some, of_residuals in zip(_chunks(distances), _chunks(whitened) or itertools.repeat({}), strict=False):
        weighted = combination.weighted([*_three(some, some), *of_residuals.values()])
        sums += torch.stack([values.double().mean(1).sum() for values in spread.scales(weighted)])
        values = spread(weighted)
        lows.append(float(values.min()))
        scores.append(detector.scores(values[:, None], top_share))
    joined = torch.cat(scores)
    means = dict(zip(scales, (sums / len(joined)).tolist(), strict=True))
    return means, min(lows), joined


def _of_places(distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation at each place (H, W) float32 of distances (N, H, W)."""
    values = distances.double().numpy()
    share = len(values) / (len(values) + _PRIOR)
    mean, variance = (
        share * ndimage.gaussian_filter(of_place, _SIGMA, mode="nearest") + (1 - share) * of_all
        for of_place, of_all in ((values.mean(0), values.mean()), (values.var(0), values.var()))
    )
    deviation = np.maximum(np.sqrt(variance), _LEAST)
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def _deviation(spread: _Spread, maps: Maps, distances: Maps) -> float:
    """Return the standard deviation of the anomaly maps over all their places; 1 where there are none."""
    if not maps:
        return 1.0
    count, total, squares = 0, 0.0, 0.0
    for some, like in zip(_chunks(maps), _chunks(distances), strict=True):
        smoothed = spread(_three(some, like)).double()
        count, total = count + smoothed.numel(), total + float(smoothed.sum())
        squares += float(smoothed.square().sum())
    return max(math.sqrt(max(0.0, squares / count - (total / count) ** 2)), _LEAST)


def _chunks(maps: Maps) -> list[Maps]:
    """Split the maps of N pictures into those of a few pictures each."""
    count = max((len(values) for values in maps.values()), default=0)
    rows = range(0, count, _CHUNK)
    return [{scale: values[row : row + _CHUNK] for scale, values in maps.items()} for row in rows]


def _three(maps: Maps, like: Maps) -> list[torch.Tensor]:
    """Return the maps of all three scales, zeros for a scale that has none."""
    return [maps[scale] if scale in maps else torch.zeros_like(like[scale]) for scale in SCALES]


def _scaled(
    plain: Combination, gains: dict[int, torch.Tensor], offsets: dict[int, torch.Tensor], share: float
) -> Combination:
    """Return a combination whose squares are `share` of the plain one's."""
    root = math.sqrt(share)
    return Combination(
        gains=gains,
        offsets=offsets,
        whitening={scale: matrix * root for scale, matrix in plain.whitening.items()},
        centres={scale: centre * root for scale, centre in plain.centres.items()},
    )
