"""revdist.scoring.combination"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from revdist.scoring import combination
from revdist.scoring.combination import Combination


def _features(seed: int, channels: int = 10) -> torch.Tensor:
    return torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_a_residual_is_the_difference_of_features_of_unit_length() -> None:
    taught, rebuilt = _features(1), _features(2)
    found = combination.residual(taught, rebuilt)
    expected = nn.functional.normalize(taught, dim=1) - nn.functional.normalize(rebuilt, dim=1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(combination.residual(7 * taught, rebuilt / 3), found, msg="lengths do not count")
    assert not combination.residual(torch.zeros_like(taught), torch.zeros_like(taught)).any()


def test_squares_are_those_of_the_whole_triangular_product_whatever_the_memory_format() -> None:
    residuals = _features(3, 11)
    matrix = torch.tril(torch.randn(11, 11, generator=torch.Generator().manual_seed(4)))
    centre = torch.randn(11, generator=torch.Generator().manual_seed(5))
    expected = ((torch.einsum("dc,bchw->bdhw", matrix, residuals) - centre[:, None, None]) ** 2).sum(1)
    for format_ in (torch.contiguous_format, torch.channels_last):
        found = combination.squares(residuals.contiguous(memory_format=format_), matrix, centre)
        torch.testing.assert_close(found, expected)


def test_a_weighted_distance_adds_what_is_usual_at_its_place_and_the_whitened_residual() -> None:
    rng = np.random.default_rng(0)
    fine, middle, coarse, white = (torch.from_numpy(rng.random((2, *side), np.float32)) for side in SIDES)
    ones = Combination(
        gains={2: torch.full((2, 4), 3.0), 3: torch.arange(2.0).reshape(1, 2)},
        offsets={2: torch.zeros(2, 4), 3: torch.ones(1, 2)},
        whitening={3: torch.eye(1)},
        centres={3: torch.zeros(1)},
    )
    found = ones.weighted([fine, middle, coarse, white])
    torch.testing.assert_close(found[0], fine, msg="a scale that does not count is left alone")
    torch.testing.assert_close(found[1], 3 * middle)
    torch.testing.assert_close(found[2], coarse * torch.tensor([0.0, 1.0]) + 1 + white)


SIDES = ((4, 8), (2, 4), (1, 2), (1, 2))


def test_no_value_of_a_map_is_below_0() -> None:
    assert combination.positive(torch.tensor([-1.0, 0.5])).tolist() == [0.0, 0.5]
