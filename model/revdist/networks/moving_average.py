"""A moving average of a student's weights: steadier than its last step.

Polyak & Juditsky 1992; as an exponential average also Tarvainen & Valpola 2017 (arXiv 1703.01780).
"""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """`module` holds the average of the weights and buffers of about the last `horizon` calls of `update`."""

    def __init__(self, module: nn.Module, horizon: float) -> None:
        self.module = copy.deepcopy(module)
        self._decay = 1 - 1 / max(1.0, horizon)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int, steps: int = 1) -> None:
        """Take in the weights after a step (counted from 0). At first it forgets faster: weights are random.

        `steps`: how many steps the weights stand for.
        """
        decay = min(self._decay, (1 + step) / (10 + step)) ** steps
        for kept, new in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)
