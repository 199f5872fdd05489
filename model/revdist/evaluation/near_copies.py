"""Pictures that are nearly the same, such as frames of a video or of a standing belt, as a teacher sees them.

They are reported and kept on one side of a split, like those of a lot; parts in a fixture look alike too, so the limit
is below the nearest pair of 588 cells (elpv, mono, good) and of 400 magnetic tiles: none of either is grouped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F

from revdist.data import survey
from revdist.data.reading import Reading
from revdist.engines.engine import Engine
from revdist.evaluation import evaluate
from revdist.files import trouble

log = logging.getLogger("revdist")

LIMIT = 0.0011  # cosine distance; nearest pairs of different parts: 0.0012 (cells) and 0.0018 (tiles)
GRID = 4  # means of so many fields each way
SIDE = 224  # pixels, whatever the recipe: the limit was measured there
_BATCH = 8


def groups(engine: Engine, paths: Sequence[Path], how: Reading) -> list[int]:
    """A number for each picture, the same for those that are nearly the same, which the log names.

    Raises ImageError that names those that cannot be read.
    """
    seen = _features(engine, paths, how)
    number = list(range(len(paths)))
    for row in range(len(paths)):
        for near in np.flatnonzero(1 - seen[row + 1 :] @ seen[row] < LIMIT) + row + 1:
            old, new = max(number[row], number[near]), min(number[row], number[near])
            number = [new if each == old else each for each in number]
    alike = [path for path, each in zip(paths, number, strict=True) if number.count(each) > 1]
    if alike:
        log.warning(
            "%d pictures are nearly the same as others, in %d groups, and stay on one side of the split: %s",
            len(alike), len({each for each in number if number.count(each) > 1}),
            ", ".join(trouble.shown(path.name) for path in alike[: survey.NAMED]),
        )  # fmt: skip
    return number


def _features(engine: Engine, paths: Sequence[Path], how: Reading) -> npt.NDArray[np.float64]:
    """(N, D) of length 1: means of the teacher's maps over a grid."""
    rows = []
    for start in range(0, len(paths), _BATCH):
        maps = engine.features(evaluate.read_prepared(paths[start : start + _BATCH], (SIDE, SIDE), how))
        parts = [F.normalize(F.adaptive_avg_pool2d(each.float(), GRID).flatten(1), dim=1) for each in maps]
        rows.append(np.concatenate([part.cpu().double().numpy() for part in parts], 1) / len(parts) ** 0.5)
    return np.concatenate(rows)
