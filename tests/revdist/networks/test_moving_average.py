"""revdist.networks.moving_average"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revdist.networks.moving_average import Average


def _module(value: float) -> nn.Module:
    module = nn.BatchNorm2d(2)
    with torch.no_grad():
        for each in (module.weight, module.bias, module.running_mean, module.running_var):
            assert each is not None
            each.fill_(value)
    return module


def test_weights_and_buffers_follow_with_the_horizon_s_speed() -> None:
    average = Average(_module(0.0), horizon=10)
    for step in range(1000, 1010):
        average.update(_module(1.0), step)
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            assert value.numpy() == pytest.approx(1 - 0.9**10), name


def test_the_first_weights_are_soon_forgotten() -> None:
    average = Average(_module(0.0), horizon=1000)
    for step in range(20):
        average.update(_module(1.0), step)
    assert average.module.state_dict()["weight"].min() > 0.999


def test_counters_are_those_of_the_last_step() -> None:
    average, module = Average(_module(0.0), horizon=10), _module(1.0)
    module(torch.ones(2, 2, 3, 3))
    average.update(module, 5)
    assert average.module.state_dict()["num_batches_tracked"] == 1


def test_what_is_averaged_is_a_copy() -> None:
    module = _module(0.0)
    average = Average(module, horizon=10)
    average.update(_module(1.0), 100)
    assert module.state_dict()["weight"].max() == 0
