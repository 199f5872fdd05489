"""Weights and pictures that need no file, and what a Reverse Distillation makes of them, in a few numbers.

Used on both sides of the comparison with the paper's code: by `tests/bench/parity.py`, which runs the official modules
and writes the numbers, and by `tests/revdist/test_parity.py`, which holds ours against them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

SAMPLES = 24  # values of a tensor that are kept
STEPS = {"resnet18": 50, "resnet34": 1, "resnet50": 1, "wide_resnet50_2": 1}
SIDE = 64  # of the pictures of the training run, which is in float64: rounding would be all that differs


def fill(module: nn.Module) -> None:
    """Give every tensor of a module values that follow from its name and shape alone."""
    module.load_state_dict({name: values(name, tensor) for name, tensor in module.state_dict().items()})


def values(name: str, like: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    shape = tuple(like.shape)
    if not shape:
        return torch.zeros_like(like)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        drawn = rng.uniform(0.5, 1.0, shape)
    elif len(shape) == 1:
        drawn = rng.normal(0, 0.1, shape)
    else:
        drawn = rng.normal(0, math.sqrt(2 / (like[0].numel())), shape)
    return torch.from_numpy(drawn).to(like.dtype)


def batch(pictures: Sequence[np.ndarray[Any, Any]], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 (h, w, 3) RGB -> (B, 3, h, w) with ImageNet's mean and deviation, as the official transform."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    stacked = (np.stack(pictures).astype(np.float64) / 255 - mean) / std
    return torch.from_numpy(stacked).to(dtype).permute(0, 3, 1, 2).contiguous()


def sketch(tensor: torch.Tensor) -> dict[str, Any]:
    """Shape, mean, norm and some values of a tensor, spread over it."""
    flat = tensor.detach().double().flatten()
    places = np.linspace(0, len(flat) - 1, SAMPLES).astype(int)
    return {
        "shape": list(tensor.shape),
        "mean": float(flat.mean()),
        "norm": float(flat.norm()),
        "values": [float(f"{value:.9g}") for value in flat[places]],
    }


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """The largest difference of two sketches, relative to the root mean square of the tensor."""
    assert ours["shape"] == theirs["shape"]
    scale = theirs["norm"] / math.sqrt(math.prod(theirs["shape"])) or 1.0
    pairs = [(ours["mean"], theirs["mean"]), *zip(ours["values"], theirs["values"], strict=True)]
    norm = abs(ours["norm"] - theirs["norm"]) / (theirs["norm"] or 1.0)
    return max(norm, *(abs(a - b) / scale for a, b in pairs))


def rows(step: int, pictures: int, count: int) -> list[int]:
    """Which pictures a step of the tiny training run sees, on both sides."""
    return [(step * count + place) * 7 % pictures for place in range(count)]


def weights_of(modules: Iterable[nn.Module]) -> torch.Tensor:
    """All weights in one vector, in the order of their names within each module."""
    found = [dict(module.named_parameters()) for module in modules]
    return torch.cat([each[name].detach().flatten() for each in found for name in sorted(each) if used(name)])


def statistics_of(modules: Iterable[nn.Module]) -> torch.Tensor:
    """All running statistics in one vector, likewise."""
    found = [{name: each for name, each in module.named_buffers() if "running" in name} for module in modules]
    return torch.cat([each[name].flatten() for each in found for name in sorted(each) if used(name)])


def used(name: str) -> bool:
    """The official bottleneck has a convolution that is never run."""
    return not name.startswith(("conv4.", "bn4."))


GOLDEN = Path(__file__).parents[1] / "revdist" / "parity.json"
