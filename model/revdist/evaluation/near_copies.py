"""Finds pictures that a teacher sees as nearly the same, such as frames of a video or of a standing belt.

Near copies are reported and kept on one side of a split, like the pictures of a lot. Parts in a fixture look alike too,
so the limit is below the nearest pair of 588 cells (elpv, mono, good) and of 400 magnetic tiles: it groups none of
them.
"""

from __future__ import annotations

import logging
from collections import Counter
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
from revdist.thresholds import conformal
from revdist.thresholds.guarantee import Guarantee

log = logging.getLogger("revdist")

LIMIT = 0.0011  # cosine distance; nearest pairs of different parts: 0.0012 (cells) and 0.0018 (tiles)
GRID = 4  # fields each way; a map becomes the means of 4 x 4 fields
SIDE = 224  # pixels, whatever the recipe: the limit was measured there
_BATCH = 8


def groups(engine: Engine, paths: Sequence[Path], how: Reading) -> list[int]:
    """Return a group number for each picture: near copies share a number.

    Raises ImageError that names the files that cannot be read.
    """
    features = _features(engine, paths, how)
    group_of = list(range(len(paths)))
    for row in range(len(paths)):
        for near in np.flatnonzero(1 - features[row + 1 :] @ features[row] < LIMIT) + row + 1:
            old, new = max(group_of[row], group_of[near]), min(group_of[row], group_of[near])
            group_of = [new if group == old else group for group in group_of]
    return group_of


def groups_told(engine: Engine, paths: Sequence[Path], how: Reading, told: str) -> list[int]:
    """Return group numbers as `groups` does, and warn of near copies. `told`: what becomes of them."""
    group_of = groups(engine, paths, how)
    counts = Counter(group_of)
    alike = [path for path, group in zip(paths, group_of, strict=True) if counts[group] > 1]
    several = sum(count > 1 for count in counts.values())
    tell(alike, f"nearly the same as others, in {several} groups, and {told}")
    return group_of


def promise(group_of: Sequence[int], rate: float, guarantee: Guarantee) -> list[str]:
    """Say, and log, what held-out pictures prove if each group of near copies counts as one; [] where none has two."""
    distinct = len(set(group_of))
    if distinct == len(group_of):
        return []
    one_each = conformal.calibrate(np.arange(distinct), rate, engine="", fingerprint="", guarantee=guarantee)
    sentence = f"{len(group_of)} held-out pictures are {distinct} distinct ones, which prove {one_each.proven()}"
    log.warning("%s", sentence)
    return [sentence]


def tell(alike: Sequence[Path], what: str) -> None:
    """Warn in one line that pictures are near copies, and of what."""
    if alike:
        more = f" and {len(alike) - survey.NAMED} more" if len(alike) > survey.NAMED else ""
        names = ", ".join(trouble.shown(path.name) for path in alike[: survey.NAMED])
        log.warning("%d pictures are %s: %s%s", len(alike), what, names, more)


def _features(engine: Engine, paths: Sequence[Path], how: Reading) -> npt.NDArray[np.float64]:
    """Return features (N, D) of length 1: means of the teacher's maps over a grid."""
    rows = []
    for start in range(0, len(paths), _BATCH):
        maps = engine.features(evaluate.read_prepared(paths[start : start + _BATCH], (SIDE, SIDE), how))
        parts = [
            F.normalize(F.adaptive_avg_pool2d(feature_map.float(), GRID).flatten(1), dim=1) for feature_map in maps
        ]
        rows.append(np.concatenate([part.cpu().double().numpy() for part in parts], 1) / len(parts) ** 0.5)
    return np.concatenate(rows)
