"""How much of each location of the feature maps is inspected: the weights of the loss, where a product has a mask.

T tiles of a picture, B pictures or tiles of a step, H W of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from revdist.data.inspection_mask import InspectionMask
from revdist.data.tiles import Tiles
from revdist.scoring.detector import STRIDES


class Inspected:
    """The shares of each location that are inspected, 0..1, in each tile and at each scale."""

    def __init__(self, mask: InspectionMask, tiles: Tiles, device: torch.device) -> None:
        inspected = torch.tensor(~np.stack(mask.tiles(tiles)), dtype=torch.float32, device=device)[:, None]
        self._scales = [F.avg_pool2d(inspected, stride) for stride in STRIDES]  # (T, 1, H, W) each
        self._tiles = tiles.count

    def of(self, rows: Sequence[int]) -> list[torch.Tensor]:
        """Return the shares (B, 1, H, W) of each scale. `rows`: places in a list of the tiles of one picture after
        the other, which may hold augmented copies behind the pictures."""
        places = torch.tensor([row % self._tiles for row in rows], device=self._scales[0].device)
        return [scale[places] for scale in self._scales]
