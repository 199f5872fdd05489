"""The bottleneck: multi-scale feature fusion (MFF) and one-class embedding (OCE), section 3.2 of the paper.

B batch, e expansion of the teacher's blocks (4 with bottleneck blocks, 1 with basic blocks), H W the picture.
`Bottleneck` is the official graph under the official names, without its unused layers conv4 and bn4. `Frozen` replaces
it in the paper's ablation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from revdist.networks import resnet

Features = Sequence[torch.Tensor]


class Bottleneck(nn.Module):
    """Three feature maps (of a ResNet 64e, 128e, 256e channels) -> (B, 512e, H/32, W/32)."""

    def __init__(self, block: resnet.Block, blocks: int, base_width: int, channels: tuple[int, int, int]) -> None:
        super().__init__()
        e = block.expansion
        fine, middle, coarse = channels
        self.conv1 = nn.Conv2d(fine, 128 * e, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(128 * e)
        self.conv2 = nn.Conv2d(128 * e, 256 * e, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(256 * e)
        self.conv3 = nn.Conv2d(middle, 256 * e, 3, 2, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(256 * e)
        self.bn_layer = resnet.layer(block, 512 * e + coarse, 512, blocks, 2, base_width)
        self.relu = nn.ReLU()

    def forward(self, features: Features) -> torch.Tensor:
        fine, middle, coarse = features  # at H/4, H/8, H/16
        fine = self.relu(self.bn1(self.conv1(fine)))  # (B, 128e, H/8, W/8)
        fine = self.relu(self.bn2(self.conv2(fine)))  # (B, 256e, H/16, W/16)
        middle = self.relu(self.bn3(self.conv3(middle)))  # (B, 256e, H/16, W/16)
        fused = torch.cat([fine, middle, coarse], dim=1)  # of a ResNet (B, 768e, H/16, W/16)
        embedded: torch.Tensor = self.bn_layer(fused)  # (B, 512e, H/32, W/32)
        return embedded


class SlimBottleneck(nn.Module):
    """The paper's bottleneck made narrow: MFF to `width` w, OCE of two basic blocks -> (B, 2w, H/32, W/32)."""

    def __init__(self, channels: tuple[int, int, int], width: int) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.conv1 = nn.Conv2d(fine, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(middle, width, 3, 2, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv4 = nn.Conv2d(coarse, width, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(width)
        self.bn_layer = resnet.layer(resnet.BasicBlock, 3 * width, 2 * width, 2, 2, 64)
        self.relu = nn.ReLU()

    def forward(self, features: Features) -> torch.Tensor:
        fine, middle, coarse = features
        fine = self.relu(self.bn1(self.conv1(fine)))  # (B, w, H/8, W/8)
        fine = self.relu(self.bn2(self.conv2(fine)))  # (B, w, H/16, W/16)
        middle = self.relu(self.bn3(self.conv3(middle)))  # (B, w, H/16, W/16)
        coarse = self.relu(self.bn4(self.conv4(coarse)))  # (B, w, H/16, W/16)
        embedded: torch.Tensor = self.bn_layer(torch.cat([fine, middle, coarse], dim=1))  # (B, 2w, H/32, W/32)
        return embedded


class CoarseBottleneck(nn.Module):
    """OCE on the coarsest map alone, without MFF and its layers -> (B, C, H/32, W/32)."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.bn_layer = embedding

    def forward(self, features: Features) -> torch.Tensor:
        embedded: torch.Tensor = self.bn_layer(features[2])
        return embedded


class Frozen(nn.Module):
    """The last stage of a pretrained network, fed with the coarsest map alone: the baseline "Pre" of the ablation.

    The stage stays in evaluation mode and without gradients, whatever is done to the student that contains it.
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002 - torch's signature
        super().train(False)
        return self

    def forward(self, features: Features) -> torch.Tensor:
        """Three maps, the last at H/16 -> the output of the stage at H/32."""
        embedded: torch.Tensor = self.stage(features[2])
        return embedded
