"""The student's loss: the flattened cosine distance, with hard-normal gradient masking as an option.

B batch, C channels, H W feature pixels. `inspected`: for each scale the share of each location that is inspected,
(B, 1, H, W), 0..1; what is not inspected adds nothing to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

EPSILON = 1e-8


def flattened_cosine(
    taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor], inspected: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Sum over the scales of the mean over the batch of 1 - cos(whole map, whole map). Scalar, float32, 0..2 a scale.

    The official code's loss; equations 1 and 2 of the paper (a cosine at each location) train clearly worse.
    """
    total = torch.zeros((), device=taught[0].device)
    for scale, (t, s) in enumerate(zip(taught, rebuilt, strict=True)):
        t, s = _exact(t), _exact(s)  # noqa: PLW2901
        if inspected is not None:
            t, s = t * inspected[scale], s * inspected[scale]  # noqa: PLW2901
        flat_t, flat_s = t.flatten(1), s.flatten(1)  # (B, C*H*W)
        total = total + (1 - F.cosine_similarity(flat_t, flat_s, dim=1, eps=EPSILON)).mean()
    return total


def mask_easy(
    taught: torch.Tensor,
    rebuilt: torch.Tensor,
    share: float,
    factor: float,
    inspected: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `rebuilt` (B, C, H, W) with a hook that scales the gradient of its best-matched locations by `factor`.

    The best-matched locations are the `share` (0..1) of the batch's inspected locations with the smallest 1 - cos, so
    that training goes on where the student is still wrong: hard-normal mining as in ReContrast (arXiv 2306.02602) with
    the soft factor of Dinomaly (arXiv 2405.14325). A share of 0 changes nothing.
    """
    if share <= 0 or not rebuilt.requires_grad:
        return rebuilt
    with torch.no_grad():
        distance = 1 - F.cosine_similarity(_exact(taught), _exact(rebuilt), dim=1, eps=EPSILON)  # (B, H, W)
        counted = distance.flatten() if inspected is None else distance[inspected[:, 0] > 0]
        rank = min(counted.numel(), max(1, round(share * counted.numel())))
        if not rank:  # tiles that are masked as a whole
            return rebuilt
        limit = counted.sort().values[rank - 1]  # kthvalue is not deterministic on CUDA
        weight = torch.where(distance <= limit, factor, 1.0).unsqueeze(1)  # (B, 1, H, W)
    masked = rebuilt.view_as(rebuilt)
    masked.register_hook(lambda gradient: gradient * weight.to(gradient.dtype))  # type: ignore[no-untyped-call]
    return masked


def _exact(features: torch.Tensor) -> torch.Tensor:
    """Convert to float32 at least: in bfloat16, 1 - cos would keep three distinct values."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
