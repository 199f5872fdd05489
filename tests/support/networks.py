"""Networks for tests: random ones whose batch norms do something, so that folding has something to do."""

from __future__ import annotations

import torch
from torch import nn


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """The module, in evaluation mode."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, 0.1, 0.1)
    return module.eval()
