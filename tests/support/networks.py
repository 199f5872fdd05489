"""Networks for tests: random ones whose batch norms do something, so that folding has something to do."""

from __future__ import annotations

import torch
from torch import nn

from revdist.networks.teacher import channels
from revdist.scoring.combination import Combination
from revdist.scoring.detector import STRIDES


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """The module, in evaluation mode."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, 0.1, 0.1)
    return module.eval()


def random_combination(teacher: str, size: tuple[int, int]) -> Combination:
    """A combination of all scales, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    places = {scale: (size[0] // stride, size[1] // stride) for scale, stride in enumerate(STRIDES, 1)}
    counts = dict(enumerate(channels(teacher), 1))
    return Combination(
        gains={scale: 1 + torch.rand(side, generator=generator) for scale, side in places.items()},
        offsets={scale: torch.rand(side, generator=generator) for scale, side in places.items()},
        whitening={
            scale: torch.tril(torch.randn(counts[scale], counts[scale], generator=generator)) / counts[scale]
            for scale in (2, 3)
        },
        centres={scale: torch.randn(counts[scale], generator=generator) / counts[scale] for scale in (2, 3)},
    )
