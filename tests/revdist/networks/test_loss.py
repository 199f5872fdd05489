"""revdist.networks.loss"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from revdist.networks import loss


def _features() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(2)
    taught = [torch.rand(4, c, s, s) for c, s in ((8, 16), (16, 8), (32, 4))]
    return taught, [torch.rand_like(each).requires_grad_() for each in taught]


def test_loss_is_one_cosine_over_each_whole_map_and_not_one_at_each_location() -> None:
    taught, rebuilt = _features()
    flat = sum(
        (1 - F.cosine_similarity(t.flatten(1), s.flatten(1))).mean().item()
        for t, s in zip(taught, rebuilt, strict=True)
    )
    local = sum((1 - F.cosine_similarity(t, s)).mean().item() for t, s in zip(taught, rebuilt, strict=True))
    value = loss.flattened_cosine(taught, rebuilt)
    assert value.item() == pytest.approx(flat, rel=1e-5)
    assert abs(value.item() - local) > 1e-3


def test_loss_of_half_precision_features_is_taken_in_float32() -> None:
    taught, rebuilt = _features()
    half = loss.flattened_cosine([t.bfloat16() for t in taught], [s.bfloat16() for s in rebuilt])
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss.flattened_cosine(taught, rebuilt).item(), rel=1e-3)


@pytest.mark.parametrize(("share", "factor"), [(0.5, 0.0), (0.9, 0.1)])
def test_masking_scales_the_gradient_of_the_best_matched_locations_alone(share: float, factor: float) -> None:
    taught, rebuilt = _features()
    plain = torch.autograd.grad(loss.flattened_cosine(taught, rebuilt), rebuilt)
    masked = [loss.mask_easy(t, s, share, factor) for t, s in zip(taught, rebuilt, strict=True)]
    value = loss.flattened_cosine(taught, masked)
    assert value.item() == loss.flattened_cosine(taught, rebuilt).item(), "masking changes gradients, not the loss"
    for t, s, before, after in zip(taught, rebuilt, plain, torch.autograd.grad(value, rebuilt), strict=True):
        distance = (1 - F.cosine_similarity(t, s)).detach().flatten()
        easy = distance.argsort()[: round(share * len(distance))]
        weight = torch.ones_like(distance)
        weight[easy] = factor
        torch.testing.assert_close(after, before * weight.view(s.shape[0], 1, *s.shape[2:]))


def test_no_share_means_no_masking() -> None:
    taught, rebuilt = _features()
    assert loss.mask_easy(taught[0], rebuilt[0], 0.0, 0.1) is rebuilt[0]
