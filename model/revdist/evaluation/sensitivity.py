"""Measures what a bundle sees: the share of synthetic defects of graded size and contrast that it rejects.

Good parts say nothing about missed defects. Defects painted on held-out good pictures show what is surely too small
or too faint to be seen. They are not real defects: what holds for painted ones need not hold for real ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import optimize

from revdist.data import images, painted_defects
from revdist.data.painted_defects import Kind
from revdist.engines.engine import Engine
from revdist.errors import RevdistError
from revdist.evaluation import defaults, progress
from revdist.thresholds.conformal import Calibration

Item = TypeVar("Item")

BATCH = 8
DETECTED = 0.9  # smallest share at which a size counts as detected
_Z = 1.959963984540054  # standard normal quantile of a two-sided 95 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One kind of defect of one size and contrast, painted once on each of some good pictures."""

    kind: str
    size_px: float  # length, diameter or side, in pixels of the model's input
    contrast: float  # opacity, 0..1
    pictures: int
    detected: int  # of these pictures, rejected at the threshold

    @property
    def rate(self) -> float:
        return self.detected / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the rate (Wilson, JASA 1927)."""
        return wilson(self.detected, self.pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The defects to paint, and the number of pictures to paint them on. The default makes 588 inspections."""

    kinds: tuple[Kind, ...] = painted_defects.KINDS
    sizes_px: tuple[float, ...] = (4.0, 8.0, 16.0, 32.0)  # in pixels of the model's input
    contrasts: tuple[float, ...] = (0.1, 0.3, 1.0)
    pictures: int = defaults.PICTURES

    def __post_init__(self) -> None:
        _check("pictures", self.pictures, self.pictures >= 1, "1 or more")
        _check("sizes_px", self.sizes_px, bool(self.sizes_px) and all(size >= 1 for size in self.sizes_px), "1 or more")
        right = bool(self.contrasts) and all(0 < contrast <= 1 for contrast in self.contrasts)
        _check("contrasts", self.contrasts, right, "greater than 0 and at most 1")
        right_kinds = bool(self.kinds) and set(self.kinds) <= set(painted_defects.KINDS)
        _check("kinds", self.kinds, right_kinds, f"some of {', '.join(painted_defects.KINDS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Detection of synthetic defects at one threshold."""

    probes: tuple[Probe, ...]
    threshold: float
    pictures: int  # good pictures that were painted on
    clean_rejected: int  # rejected with nothing painted: no detection rate can be below this share
    size: tuple[int, int]  # (height, width) of the model's input
    seed: int

    def smallest(self, kind: str, contrast: float, share: float = DETECTED) -> float | None:
        """Return the smallest grid size, in pixels, from which on at least this share is detected; None if none is.

        A rate that falls as the size grows falls by chance, so rates are evened out first (isotonic regression).
        """
        probes = sorted(
            (probe for probe in self.probes if (probe.kind, probe.contrast) == (kind, contrast)),
            key=lambda probe: probe.size_px,
        )
        if not probes:
            return None
        rising = optimize.isotonic_regression([probe.rate for probe in probes]).x
        return next((probe.size_px for probe, rate in zip(probes, rising, strict=True) if rate >= share - 1e-9), None)

    def to_json(self) -> dict[str, object]:
        """Return all fields with rates, intervals and smallest detected sizes, marked as synthetic."""
        cells = sorted({(probe.kind, probe.contrast) for probe in self.probes})
        return {
            "synthetic": True,
            "threshold": self.threshold,
            "pictures": self.pictures,
            "clean_rejected": self.clean_rejected,
            "size": list(self.size),
            "seed": self.seed,
            "probes": [asdict(probe) | {"rate": probe.rate, "interval": list(probe.interval)} for probe in self.probes],
            "smallest_detected": [
                {"kind": kind, "contrast": contrast, "share": DETECTED, "size_px": self.smallest(kind, contrast)}
                for kind, contrast in cells
            ],
        }


def measure(
    engine: Engine,
    product: str,
    calibration: Calibration,
    pictures: Sequence[images.Pixels],
    *,
    seed: int,
    grid: Grid | None = None,
) -> Sensitivity:
    """Paint every defect of a grid on good pictures and count the pictures over the calibration's threshold.

    `pictures`: uint8 (h, w, 3), prepared, and unseen in training; if there are more than `Grid.pictures`, the seed
    draws from them. Sizes over half of the shorter side are left out. The same arguments paint the same defects.
    Raises RevdistError for no pictures, no size that fits or a product that the engine lacks.
    """
    chosen_grid = grid or Grid()
    height, width = engine.size(product)
    sizes = [size for size in chosen_grid.sizes_px if size <= min(height, width) / 2]
    if not pictures or not sizes:
        lacking = f"no size up to {min(height, width) // 2} pixels" if pictures else "no pictures of good parts"
        raise RevdistError(f"sensitivity: {lacking} to paint on", hint="name other sizes, or other pictures")
    chosen = draw(pictures, chosen_grid.pictures, seed)
    mask = engine.mask(product)
    inspected = None if mask is None else mask.inspected

    def detected(painted: Iterator[images.Pixels]) -> int:
        count = sum(score > calibration.threshold for score in _scores(engine, product, painted))
        shown.update(len(chosen))
        return count

    inspections = len(chosen) * (len(chosen_grid.kinds) * len(chosen_grid.contrasts) * len(sizes) + 1)
    with progress.bar("paint defects", inspections) as shown:
        probes = [
            Probe(
                kind=kind,
                size_px=size,
                contrast=contrast,
                pictures=len(chosen),
                detected=detected(_painted(kind, chosen, size, contrast, seed, inspected)),
            )
            for kind in chosen_grid.kinds
            for contrast in chosen_grid.contrasts
            for size in sizes
        ]
        clean_rejected = detected(iter(chosen))
    return Sensitivity(
        probes=tuple(probes),
        threshold=calibration.threshold,
        pictures=len(chosen),
        clean_rejected=clean_rejected,
        size=(height, width),
        seed=seed,
    )


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """Draw at most `count` of the items at random and keep their order."""
    order = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[row] for row in sorted(order)]


def _painted(
    kind: Kind,
    pictures: Sequence[images.Pixels],
    size: float,
    contrast: float,
    seed: int,
    inspected: npt.NDArray[np.bool_] | None,
) -> Iterator[images.Pixels]:
    """Paint one defect on each picture. Its place and angle do not depend on size and contrast: only these differ.

    Where something is masked, a larger defect may need another place: half of it lies where parts are inspected.
    """
    for row, picture in enumerate(pictures):
        generator = np.random.default_rng((seed, painted_defects.KINDS.index(kind), row))
        yield painted_defects.paint(
            kind, picture, size_px=size, contrast=contrast, generator=generator, inspected=inspected
        )


def _scores(engine: Engine, product: str, pictures: Iterator[images.Pixels]) -> Iterator[float]:
    """Score pictures in batches. Raises RevdistError for a picture of another size."""
    ready = list(pictures)
    for start in range(0, len(ready), BATCH):
        chunk = ready[start : start + BATCH]
        yield from engine.inspect(chunk, [product] * len(chunk)).scores.tolist()


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share."""
    share, spread = hits / total, _Z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise RevdistError(f"sensitivity: {name} is {value}, must be {expected}")
