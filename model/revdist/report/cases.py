"""Chooses the pictures that a report shows and draws them with their heat maps, as small JPEG files in the page.

h w: height and width of the model's input, pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from revdist.data import fitting, images, masks
from revdist.data.reading import PLAIN, Reading
from revdist.engines.engine import Engine
from revdist.evaluation import heatmaps
from revdist.scoring.detector import Scoring
from revdist.thresholds.conformal import Calibration

WORST = 6  # at most: shown escapes, and shown false rejects
TYPICAL = 8  # at most: kinds of which a typical picture is shown
SIDE, SMALL = 320, 128  # longer side of a shown picture and of a scale's map, pixels
QUALITY = 80  # of JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A picture to show."""

    name: str
    path: Path
    mask: Path | None
    defective: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A shown picture with its score and maps. Picture, heat map and scale maps are data URIs."""

    name: str
    defective: bool
    rejected: bool
    times: float  # score in multiples of the threshold
    p_value: float
    outlined: bool  # whether the true defect is drawn
    width: int  # of `picture` and `heat`, pixels
    height: int
    picture: str
    heat: str
    scales: tuple[tuple[int, str], ...]  # stride in pixels of the input, and map; fine to coarse, those that count


def worst_escapes(samples: Sequence[images.Sample], scores: npt.NDArray[np.float64], threshold: float) -> list[int]:
    """Return the rows of the defective pictures that pass, the lowest score first."""
    order = np.argsort(scores, kind="stable").tolist()
    return [row for row in order if samples[row].defective and scores[row] <= threshold][:WORST]


def worst_false_rejects(
    samples: Sequence[images.Sample], scores: npt.NDArray[np.float64], threshold: float
) -> list[int]:
    """Return the rows of the good pictures that are rejected, the highest score first."""
    order = np.argsort(-scores, kind="stable").tolist()
    return [row for row in order if not samples[row].defective and scores[row] > threshold][:WORST]


def typical(samples: Sequence[images.Sample], scores: npt.NDArray[np.float64]) -> list[int]:
    """Return the row with the median score (the lower one of two) of each kind, good first."""
    kinds = sorted({sample.kind for sample in samples}, key=lambda kind: (kind != "good", kind))
    rows = [[row for row, sample in enumerate(samples) if sample.kind == kind] for kind in kinds[:TYPICAL]]
    return [sorted(kind_rows, key=lambda row: float(scores[row]))[(len(kind_rows) - 1) // 2] for kind_rows in rows]


def show(
    engine: Engine, product: str, calibration: Calibration, scoring: Scoring, chosen: Chosen, how: Reading = PLAIN
) -> Case:
    """Inspect a picture again, now with the map of each scale that counts. Raises ImageError for a broken picture."""
    picture = images.read(chosen.path, how)
    prepared = images.prepare(picture, engine.size(product), how.fit)
    inspection = engine.inspect([prepared], [product])
    anomaly_map = fitting.over_picture(inspection.map(0), picture.shape, how.fit)
    score, threshold = float(inspection.scores[0]), calibration.threshold
    small = fitted(picture, SIDE)
    size, move = (small.shape[0], small.shape[1]), masks.mover(chosen.path, how) if chosen.mask else None
    mask = masks.read(chosen.mask, size, move=move) if chosen.mask else None
    tiny = fitted(picture, SMALL)
    heat = heatmaps.heatmap(small, anomaly_map, threshold)
    if left_out := engine.mask(product):
        masked = fitting.over_picture(left_out.masked.astype(np.float32), picture.shape, how.fit)
        heat = heatmaps.hatched(heat, masked)
    level = scoring.level_of_a_scale(threshold)
    scales = [
        heatmaps.coloured(tiny, fitting.over_picture(scale_map, picture.shape, how.fit), level)
        for scale_map in engine.scale_maps(prepared, product)
    ]
    return Case(
        name=chosen.name,
        defective=chosen.defective,
        rejected=calibration.decide(score) == "reject",
        times=score / threshold,
        p_value=calibration.p_value(score),
        outlined=mask is not None and bool(mask.any()),
        width=small.shape[1],
        height=small.shape[0],
        picture=jpeg(outline(small, mask)),
        heat=jpeg(outline(heat, mask)),
        scales=tuple((stride, jpeg(overlay)) for stride, overlay in zip(scoring.strides, scales, strict=True)),
    )


def outline(picture: images.Pixels, mask: npt.NDArray[np.bool_] | None) -> images.Pixels:
    """Return a copy of a picture (H, W, 3) with a white line on black around, not over, a mask's regions (H, W)."""
    drawn = np.array(picture)
    if mask is not None:
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))
        contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, (0, 0, 0), 3)
        cv2.drawContours(drawn, contours, -1, (255, 255, 255), 1)
    return drawn


def colour_bar() -> str:
    """Draw the heat maps' colours over a grey picture, from 0.5 to 1.5 times the threshold, as heat maps do."""
    ramp = np.linspace(heatmaps.TRANSPARENT, heatmaps.SATURATED, SIDE, dtype=np.float32)[None].repeat(20, 0)
    return jpeg(heatmaps.heatmap(np.full((*ramp.shape, 3), 128, np.uint8), ramp, 1.0))


def jpeg(picture: images.Pixels) -> str:
    """Return a data URI of a picture as JPEG."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def fitted(picture: images.Pixels, side: int) -> images.Pixels:
    """Shrink a picture to a longer side of at most `side` pixels; keep its shape and at least a pixel each way."""
    height, width = picture.shape[:2]
    share = min(1.0, side / max(height, width))
    return images.prepare(picture, (max(1, round(height * share)), max(1, round(width * share))))
