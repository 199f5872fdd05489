"""Measures how sets of pictures look, by plain figures and to a teacher, so that sets can be compared.

N: pictures. D: channels of a teacher's three maps together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from revdist.data import appearance, images, likeness
from revdist.data.appearance import Appearance
from revdist.data.images import Pixels
from revdist.data.inspection_mask import InspectionMask
from revdist.engines.engine import Engine
from revdist.evaluation import evaluate
from revdist.recipe import Recipe

ASKED = 48  # pictures of a set that the teacher sees, from all over the list: passes of the teacher cost time
DIRECTIONS = 16  # of pooled features; always the same directions, so that no bundle has to keep them
_BATCH = 8
Item = TypeVar("Item")


def of(
    engine: Engine,
    prepared: Sequence[Pixels],
    paths: Sequence[Path],
    recipe: Recipe,
    mask: InspectionMask | None = None,
) -> Appearance:
    """Return the appearance of prepared pictures of these files, as far as they are inspected.

    Raises ImageError for a missing file.
    """
    shown = _inspected(prepared, mask)
    return {**appearance.measure(shown, paths), **_to_teacher(engine, _some(shown), recipe)}


def _inspected(prepared: Sequence[Pixels], mask: InspectionMask | None) -> Sequence[Pixels]:
    return prepared if mask is None else [mask.cover(picture) for picture in prepared]


def of_files(engine: Engine, paths: Sequence[Path], recipe: Recipe, mask: InspectionMask | None = None) -> Appearance:
    """Return the appearance of picture files. Raises ImageError that names the files that cannot be read."""
    parts = []
    for start in range(0, len(paths), _BATCH):
        chunk = paths[start : start + _BATCH]
        prepared = evaluate.read_prepared(chunk, recipe.size, recipe.reading)
        parts.append(appearance.measure(_inspected(prepared, mask), chunk))
    shown = evaluate.read_prepared(_some(paths), recipe.size, recipe.reading) if engine.teaches else []
    return {**appearance.joined(parts), **_to_teacher(engine, _inspected(shown, mask), recipe)}


def unlike(
    engine: Engine,
    trained: Appearance,
    paths: Sequence[Path],
    recipe: Recipe,
    who: str,
    mask: InspectionMask | None = None,
) -> list[str]:
    """Tell how picture files differ from the training pictures: sentences about `who`, which the log gets too.

    Returns no sentence if the look of the training pictures is unknown. Raises ImageError.
    """
    if not trained or not paths:
        return []
    sentences = likeness.warnings(trained, of_files(engine, paths, recipe, mask), who)
    likeness.warn(sentences)
    return sentences


def _some(items: Sequence[Item]) -> list[Item]:
    rows = np.linspace(0, len(items) - 1, min(ASKED, len(items))).round().astype(int)
    return [items[row] for row in rows]


def _to_teacher(engine: Engine, prepared: Sequence[Pixels], recipe: Recipe) -> Appearance:
    """Return pooled features along DIRECTIONS fixed directions; empty if the engine gives no features."""
    if not engine.teaches or not prepared:
        return {}
    features = pooled(engine, prepared, recipe.tile)  # (N, D)
    directions = np.random.default_rng(0).standard_normal((features.shape[1], DIRECTIONS))
    table = (features.astype(np.float64) @ directions).T  # (DIRECTIONS, N)
    return {f"teacher {number}": values for number, values in enumerate(table, 1)}


def pooled(engine: Engine, prepared: Sequence[Pixels], tile: images.Size | None = None) -> npt.NDArray[np.float32]:
    """Return means (N, D) of the teacher's maps of prepared pictures of one size, each map's part of length 1.

    If pictures are seen in tiles, they are shrunk to a tile's size: a whole picture would need too much memory.
    """
    rows = []
    for start in range(0, len(prepared), _BATCH):
        chunk = prepared[start : start + _BATCH]
        maps = engine.features([images.prepare(picture, tile) for picture in chunk] if tile else chunk)
        means = [feature_map.float().mean((2, 3)) for feature_map in maps]  # (b, C) for each map
        lengths = [mean.norm(dim=1, keepdim=True).clamp_min(1e-12) for mean in means]
        rows.append(
            np.concatenate([(mean / length).cpu().numpy() for mean, length in zip(means, lengths, strict=True)], 1)
        )
    return np.concatenate(rows)
