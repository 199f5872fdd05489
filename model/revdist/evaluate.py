"""Score pictures of a folder with a bundle, and measure how well good and defective ones are told apart.

n pictures, h w the model's input.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist import images, measures
from revdist.conformal import Calibration
from revdist.engine import Engine, Inspection

BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures of one bundle on one test set. Rates are shares, 0..1; None where the data has no masks."""

    image_auroc: float
    pixel_auroc: float | None
    pro: float | None  # data-set level, exact, limit 0.3
    pro_per_image: float | None  # as the official code, see measures
    false_reject_rate: float  # share of the good pictures over the threshold
    escape_rate: float  # share of the defective pictures that are not
    threshold: float
    images_per_second: float  # from the file to score and map, reading and resizing included
    good: int
    defective: int
    escape_rate_by_kind: dict[str, float]
    engine: str

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)


def read_prepared(paths: Sequence[Path], size: images.Size) -> list[images.Pixels]:
    """Read and prepare pictures, in order, on all cores."""
    with ThreadPoolExecutor(thread_name_prefix="read") as pool:
        return list(pool.map(lambda path: images.prepare(images.read(path), size), paths))


def inspections(engine: Engine, product: str, paths: Sequence[Path]) -> Iterator[tuple[Sequence[Path], Inspection]]:
    """Inspect picture files in batches, in order. Raises ImageError for a broken one."""
    size = engine.size(product)
    for start in range(0, len(paths), BATCH):
        chunk = paths[start : start + BATCH]
        yield chunk, engine.inspect(read_prepared(chunk, size), [product] * len(chunk))


def scores(engine: Engine, product: str, paths: Sequence[Path]) -> npt.NDArray[np.float64]:
    """The scores (n,) of picture files."""
    found = [inspection.scores for _, inspection in inspections(engine, product, paths)]
    return np.concatenate(found).astype(np.float64)


def evaluate(engine: Engine, product: str, calibration: Calibration, root: Path) -> Evaluation:
    """Evaluate on the test pictures of an MVTec layout. The folder decides what is defective, not the resized mask.

    Raises DataError for a wrong layout, ImageError for a broken picture.
    """
    samples = images.labelled_pictures(root)
    masked = all(sample.mask is not None for sample in samples if sample.defective)
    found, maps = [], []
    begun = time.perf_counter()
    for chunk, inspection in inspections(engine, product, [sample.path for sample in samples]):
        found.append(inspection.scores)
        maps += [inspection.map(index) for index in range(len(chunk))] if masked else []
    elapsed_s = time.perf_counter() - begun
    anomaly = np.concatenate(found).astype(np.float64)  # (n,)
    defective = np.array([sample.defective for sample in samples])
    rejected = anomaly > calibration.threshold
    pixel = _pixel_measures(np.stack(maps), samples, engine.size(product)) if masked else (None, None, None)
    return Evaluation(
        image_auroc=measures.auroc(defective, anomaly),
        pixel_auroc=pixel[0],
        pro=pixel[1],
        pro_per_image=pixel[2],
        false_reject_rate=float(rejected[~defective].mean()),
        escape_rate=float((~rejected[defective]).mean()),
        threshold=calibration.threshold,
        images_per_second=len(samples) / elapsed_s,
        good=int((~defective).sum()),
        defective=int(defective.sum()),
        escape_rate_by_kind=_by_kind(samples, rejected),
        engine=engine.identity,
    )


def _pixel_measures(
    maps: npt.NDArray[np.float32], samples: Sequence[images.Sample], size: images.Size
) -> tuple[float | None, float | None, float | None]:
    masks = np.zeros(maps.shape, bool)  # (n, h, w)
    for row, sample in enumerate(samples):
        if sample.mask is not None:
            masks[row] = images.read_mask(sample.mask, size)
    if not masks.any():
        return None, None, None
    return measures.auroc(masks, maps), measures.pro(masks, maps), measures.pro_per_image(masks, maps)


def _by_kind(samples: Sequence[images.Sample], rejected: npt.NDArray[np.bool_]) -> dict[str, float]:
    kinds = sorted({sample.kind for sample in samples if sample.defective})
    rows = {kind: [row for row, sample in enumerate(samples) if sample.kind == kind] for kind in kinds}
    return {kind: float((~rejected[rows[kind]]).mean()) for kind in kinds}
