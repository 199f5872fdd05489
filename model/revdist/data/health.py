"""Whether a picture is one at all: black, saturated, flat, out of focus or of another shape, whatever is on it.

Limits are learnt from good pictures and wide on purpose: what a defect may do to a picture is left to the model. They
are measured on the picture as the camera gives it, cut to its region, before it is resized. H W a picture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from revdist.data.pictures import Pixels

HEALTH = "health"  # its key among the statistics of a bundle
SIDE = 256  # pixels of the longer side that a picture is measured at
WHITE = 250  # grey level from which on a pixel counts as saturated
_DARKER = 0.15  # a black picture has less than this share of the least brightness of good ones
_FLATTER = 0.2  # a flat picture has less than this share of their least contrast
_BRIGHTER = 0.6  # a saturated picture has more than this share of what good ones leave unsaturated
_SOFTER = 0.6  # logarithm: a picture out of focus has less than 0.55 of their least sharpness
_NOISE = 1.0  # sigma in pixels that noise is evened out by, which is sharp however blurred the picture is
_SHAPE = math.log(1.05)  # a part that is round is oval for the model beyond this


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Measures of a picture."""

    brightness: float  # mean grey level
    saturated: float  # share of pixels
    contrast: float  # standard deviation in grey levels
    sharpness: float  # logarithm of the Laplacian's standard deviation over the contrast
    shape: float  # logarithm of width over height


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits beyond which a picture shows nothing that could be judged."""

    brightness_least: float = 2.0
    saturated_most: float = 0.9
    contrast_least: float = 1.0
    sharpness_least: float = -math.inf
    shape_least: float = -math.inf
    shape_most: float = math.inf

    def fault(self, seen: Health) -> str:
        """Return what is wrong with a picture, beginning with one of FAULTS and a colon; empty for a healthy one."""
        if seen.brightness < self.brightness_least:
            told = f"mean brightness {seen.brightness:.1f} of 255, expected {self.brightness_least:.1f} or more"
            return f"black: {told}; is the light on, the lens open, the exposure long enough?"
        if seen.saturated > self.saturated_most:
            told = f"{seen.saturated:.0%} of it is white, expected {self.saturated_most:.0%} at most"
            return f"saturated: {told}; is the exposure too long, or does other light fall in?"
        if not self.shape_least <= seen.shape <= self.shape_most:
            told = f"width over height is {math.exp(seen.shape):.2f}, expected {self._shapes()}"
            return f"wrong size: {told}; were the camera's format or `region` changed?"
        if seen.contrast < self.contrast_least:
            told = f"contrast {seen.contrast:.1f} grey levels, expected {self.contrast_least:.1f} or more"
            return f"low contrast: {told}; is the light on, is a part there, is the lens clean?"
        if seen.sharpness < self.sharpness_least:
            share = math.exp(seen.sharpness - self.sharpness_least) * math.exp(-_SOFTER)
            return f"defocused: {share:.0%} of the least sharpness of good pictures; has the lens or the camera moved?"
        return ""

    def joined(self, other: Limits) -> Limits:
        """Return limits that are kept by whatever keeps one of both."""
        return Limits(
            **{
                field.name: (max if field.name.endswith("_most") else min)(
                    getattr(self, field.name), getattr(other, field.name)
                )
                for field in dataclasses.fields(Limits)
            }
        )

    def to_json(self) -> dict[str, float]:
        """Return the limits that are finite, with few digits."""
        return {name: float(f"{value:.5g}") for name, value in dataclasses.asdict(self).items() if math.isfinite(value)}

    def _shapes(self) -> str:
        least, most = math.exp(self.shape_least + _SHAPE), math.exp(self.shape_most - _SHAPE)
        return f"{least:.2f}" if most - least < 0.005 else f"{least:.2f} to {most:.2f}"


FAULTS = ("black", "saturated", "wrong size", "low contrast", "defocused")
USUAL = Limits()  # for cameras of which no good pictures are known


def measure(pixels: Pixels) -> Health:
    """Measure a picture, uint8 (H, W, 3)."""
    height, width = pixels.shape[:2]
    share = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    grey = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    contrast = float(grey.std())
    even = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _NOISE)
    edges = float(cv2.Laplacian(even, cv2.CV_32F).std())
    return Health(
        brightness=float(grey.mean()),
        saturated=float((grey >= WHITE).mean()),
        contrast=contrast,
        sharpness=math.log((edges + 0.01) / (contrast + 0.1)),
        shape=math.log(width / height),
    )


def learn(good: Iterable[Health]) -> Limits:
    """Return limits from good pictures, without those that are black or flat; the usual ones where none is left."""
    seen = [picture for picture in good if not USUAL.fault(picture)]
    if not seen:
        return USUAL
    shapes = [picture.shape for picture in seen]
    white = max(picture.saturated for picture in seen)
    return Limits(
        brightness_least=_DARKER * min(picture.brightness for picture in seen),
        saturated_most=white + _BRIGHTER * (1 - white),
        contrast_least=_FLATTER * min(picture.contrast for picture in seen),
        sharpness_least=min(picture.sharpness for picture in seen) - _SOFTER,
        shape_least=min(shapes) - _SHAPE,
        shape_most=max(shapes) + _SHAPE,
    )


def restored(kept: Mapping[str, Any]) -> Limits:
    """Read limits from a bundle. Raises ValueError for anything else."""
    names = {field.name for field in dataclasses.fields(Limits)}
    for name, value in kept.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in names or not number:
            raise ValueError(f"statistics.{HEALTH}.{name[:40]} is no limit")
    return Limits(**kept)
