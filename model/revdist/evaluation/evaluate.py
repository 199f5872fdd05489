"""Scores the pictures of a folder with a bundle, and measures how well it tells good from defective ones.

n: pictures. h w: height and width of the model's input, pixels.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist.data import images, masks, survey
from revdist.data.reading import PLAIN, Reading
from revdist.engines.engine import Engine
from revdist.engines.loaded_product import Inspection
from revdist.errors import DataError, ImageError
from revdist.evaluation import measures, progress, ties
from revdist.files import trouble
from revdist.thresholds.conformal import Calibration

log = logging.getLogger("revdist")

BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures of one bundle on one test set. Rates are shares, 0..1; None where the data has no masks."""

    image_auroc: float
    pixel_auroc: float | None
    pro: float | None  # data-set level, exact, limit 0.3
    pro_per_image: float | None  # as the official code computes it, see measures
    false_reject_rate: float  # share of the good pictures over the threshold
    escape_rate: float  # share of the defective pictures not over the threshold
    threshold: float
    images_per_second: float  # from the file to score and map, reading and resizing included
    good: int
    defective: int
    escape_rate_by_kind: dict[str, float]
    engine: str

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixelwise:
    """Anomaly maps of pictures and their true defects; at least one pixel is defective."""

    maps: npt.NDArray[np.float32]  # (n, h, w)
    masks: npt.NDArray[np.bool_]  # (n, h, w)

    @cached_property
    def pro_curve(self) -> measures.Curve:
        return measures.pro_curve(self.masks, self.maps)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspected:
    """Labelled test pictures with the scores and maps of an engine."""

    samples: tuple[images.Sample, ...]
    scores: npt.NDArray[np.float64]  # (n,)
    pixelwise: Pixelwise | None  # None where the data has no masks
    elapsed_s: float  # from the first file to the last score and map
    engine: str  # identity of the engine

    @property
    def defective(self) -> npt.NDArray[np.bool_]:
        """Return which pictures (n,) are defective."""
        return np.array([sample.defective for sample in self.samples])


def read_prepared(paths: Sequence[Path], size: images.Size, how: Reading = PLAIN) -> list[images.Pixels]:
    """Read and prepare pictures, in order, on all cores. Raises ImageError that names all that cannot be read."""
    return survey.each_of(paths, lambda path: images.prepare(images.read(path, how), size, how.fit))


def inspections(
    engine: Engine, product: str, paths: Sequence[Path], how: Reading = PLAIN
) -> Iterator[tuple[Sequence[Path], Inspection]]:
    """Inspect picture files in batches, in order. Raises ImageError that names all that cannot be read."""
    size = engine.size(product)
    with progress.bar("inspect", len(paths)) as shown:
        for start in range(0, len(paths), BATCH):
            chunk = paths[start : start + BATCH]
            try:
                prepared = read_prepared(chunk, size, how)
            except ImageError:
                read_prepared(paths[start:], size, how)  # names all broken files at once
                raise
            yield chunk, engine.inspect(prepared, [product] * len(chunk))
            shown.update(len(chunk))


def scores(engine: Engine, product: str, paths: Sequence[Path], how: Reading = PLAIN) -> npt.NDArray[np.float64]:
    """Return the scores (n,) of picture files."""
    batch_scores = [inspection.scores for _, inspection in inspections(engine, product, paths, how)]
    return np.concatenate(batch_scores).astype(np.float64)


def evaluate(engine: Engine, product: str, calibration: Calibration, root: Path, how: Reading = PLAIN) -> Evaluation:
    """Evaluate on the test pictures of an MVTec layout. Raises DataError or ImageError as `inspect_labelled`."""
    return measure(inspect_labelled(engine, product, root, how), calibration)


def inspect_labelled(engine: Engine, product: str, root: Path, how: Reading = PLAIN) -> Inspected:
    """Inspect the test pictures of an MVTec layout; maps and masks are kept where every defect has a mask.

    Raises DataError for a wrong layout, ImageError for a broken picture.
    """
    samples = images.labelled_pictures(root)
    masked = all(sample.mask is not None for sample in samples if sample.defective)
    marked = _masks(samples, engine.size(product), how) if masked else None  # before hours of inspection
    batch_scores, maps = [], []
    begun = time.perf_counter()
    for chunk, inspection in inspections(engine, product, [sample.path for sample in samples], how):
        batch_scores.append(inspection.scores)
        maps += [inspection.map(index) for index in range(len(chunk))] if masked else []
    elapsed_s = time.perf_counter() - begun
    ties.tell(
        [sample.path.relative_to(root).as_posix() for sample in samples],
        np.concatenate(batch_scores).tolist(),
        "test pictures",
    )
    return Inspected(
        samples=tuple(samples),
        scores=np.concatenate(batch_scores).astype(np.float64),
        pixelwise=Pixelwise(maps=np.stack(maps), masks=marked) if marked is not None else None,
        elapsed_s=elapsed_s,
        engine=engine.identity,
    )


def measure(inspected: Inspected, calibration: Calibration) -> Evaluation:
    """Measure a threshold on inspected test pictures. The folder tells what is defective, not the resized mask."""
    defective, samples = inspected.defective, inspected.samples
    rejected = inspected.scores > calibration.threshold
    pixel = inspected.pixelwise
    return Evaluation(
        image_auroc=measures.auroc(defective, inspected.scores),
        pixel_auroc=measures.auroc(pixel.masks, pixel.maps) if pixel else None,
        pro=pixel.pro_curve.area(measures.FPR_LIMIT) / measures.FPR_LIMIT if pixel else None,
        pro_per_image=measures.pro_per_image(pixel.masks, pixel.maps) if pixel else None,
        false_reject_rate=float(rejected[~defective].mean()),
        escape_rate=float((~rejected[defective]).mean()),
        threshold=calibration.threshold,
        images_per_second=len(samples) / inspected.elapsed_s,
        good=int((~defective).sum()),
        defective=int(defective.sum()),
        escape_rate_by_kind=_by_kind(samples, rejected),
        engine=inspected.engine,
    )


def _masks(samples: Sequence[images.Sample], size: images.Size, how: Reading) -> npt.NDArray[np.bool_]:
    """Return where samples are defective (n, h, w); the log names masks that are empty or full.

    Raises ImageError that names all masks that cannot be read, DataError where all are empty.
    """
    rows = {sample.mask: row for row, sample in enumerate(samples) if sample.mask is not None}
    defective = np.zeros((len(samples), *size), bool)

    def read(path: Path) -> npt.NDArray[np.bool_]:
        picture = samples[rows[path]].path
        return masks.read(path, size, survey.size_of(picture), how.fit, masks.mover(picture, how))

    for path, mask in zip(rows, survey.each_of(list(rows), read), strict=True):
        defective[rows[path]] = mask
    empty = [path for path, row in rows.items() if not defective[row].any()]
    full = [path for path, row in rows.items() if defective[row].all()]
    if rows and len(empty) == len(rows):
        raise DataError(f"all {len(rows)} masks are empty, such as {trouble.shown(empty[0])}", hint=masks.EXPECTED)
    for which, word in ((empty, "empty"), (full, "full")):
        if which:
            names = ", ".join(trouble.shown(path) for path in which[: survey.NAMED])
            log.warning("%d masks of defective pictures are %s: %s", len(which), word, names)
    return defective


def _by_kind(samples: Sequence[images.Sample], rejected: npt.NDArray[np.bool_]) -> dict[str, float]:
    kinds = sorted({sample.kind for sample in samples if sample.defective})
    rows = {kind: [row for row, sample in enumerate(samples) if sample.kind == kind] for kind in kinds}
    return {kind: float((~rejected[rows[kind]]).mean()) for kind in kinds}
