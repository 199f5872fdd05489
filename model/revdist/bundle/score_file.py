"""The file of a bundle that holds what its combined score is made of: tensors by scale, named `<what>.<scale>`."""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch

from revdist.bundle import bundle_files
from revdist.networks.teacher import channels
from revdist.recipe import Recipe
from revdist.scoring.combination import RESIDUAL_SCALES, Combination
from revdist.scoring.detector import STRIDES

_GROUPS = ("gains", "offsets", "whitening", "centres")


def content(combination: Combination) -> bytes:
    """Return the content of the file."""
    tensors = {
        f"{group}.{scale}": tensor.detach().cpu().contiguous()
        for group in _GROUPS
        for scale, tensor in getattr(combination, group).items()
    }
    return safetensors.torch.save(tensors)


def read(content: bytes, name: str, recipe: Recipe, teacher: str) -> Combination:
    """Read the file of a bundle with this recipe. Raises ValueError where it does not fit."""
    shapes = _shapes(recipe, teacher)
    arrays = bundle_files.arrays(content, name)
    if arrays.keys() != shapes.keys():
        wrong = ", ".join(sorted(arrays.keys() ^ shapes.keys()))
        raise ValueError(f"{name}: missing or unknown: {wrong}")
    for key, shape in shapes.items():
        array = arrays[key]
        if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name}: {key} is not {' x '.join(map(str, shape))} finite values in float32")
        if key.startswith("gains") and not (array > 0).all():
            raise ValueError(f"{name}: {key} is not positive everywhere")
        if key.startswith("whitening") and np.triu(array, 1).any():
            raise ValueError(f"{name}: {key} is not lower triangular")
    groups = {
        group: {
            int(key.rpartition(".")[2]): torch.from_numpy(array)
            for key, array in arrays.items()
            if key.startswith(f"{group}.")
        }
        for group in _GROUPS
    }
    return Combination(**groups)


def _shapes(recipe: Recipe, teacher: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that a recipe needs."""
    shapes: dict[str, tuple[int, ...]] = {}
    for scale in recipe.scales:
        stride, count = STRIDES[scale - 1], channels(teacher)[scale - 1]
        height, width = recipe.size
        shapes[f"gains.{scale}"] = shapes[f"offsets.{scale}"] = (height // stride, width // stride)
        if scale in RESIDUAL_SCALES:
            shapes[f"whitening.{scale}"], shapes[f"centres.{scale}"] = (count, count), (count,)
    return shapes
