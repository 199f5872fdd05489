"""Residual networks (He et al. 2016, arXiv 1512.03385) under torchvision's names, as far as Reverse Distillation needs.

They are written here because importing torchvision.models would take longest at the start of a service. B batch, C
channels, H W the input.
"""

from __future__ import annotations

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip."""

    expansion = 1

    def __init__(
        self, inputs: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, base_width: int = 64
    ) -> None:
        super().__init__()
        assert base_width == 64, "basic blocks have no width of their own"
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) -> (B, planes, H/stride, W/stride)"""
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        y: torch.Tensor = self.relu(self.bn2(self.conv2(x)) + skip)
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a skip; the stride is at the 3x3 ("ResNet v1.5")."""

    expansion = 4

    def __init__(
        self, inputs: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, base_width: int = 64
    ) -> None:
        super().__init__()
        width = planes * base_width // 64
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) -> (B, 4 * planes, H/stride, W/stride)"""
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        y: torch.Tensor = self.relu(self.bn3(self.conv3(x)) + skip)
        return y


Block = type[BasicBlock | Bottleneck]
_LAYOUTS: dict[str, tuple[Block, tuple[int, int, int, int], int]] = {
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 128),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
}
NAMES = tuple(_LAYOUTS)


def layout(name: str) -> tuple[Block, tuple[int, int, int, int], int]:
    """Return the kind of block, the number of blocks in each of the four layers, and the base width."""
    return _LAYOUTS[name]


def layer(block: Block, inputs: int, planes: int, blocks: int, stride: int, base_width: int) -> nn.Sequential:
    """Make a layer of blocks; the first block has the stride and turns `inputs` into `planes * expansion` channels."""
    outputs = planes * block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    first = block(inputs, planes, stride, downsample, base_width)
    return nn.Sequential(first, *(block(outputs, planes, base_width=base_width) for _ in range(1, blocks)))


class Trunk(nn.Module):
    """A ResNet up to layer3. layer4 (see `LastStage`) and fc are neither kept nor run."""

    def __init__(self, name: str) -> None:
        super().__init__()
        block, blocks, base_width = layout(name)
        e = block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = layer(block, 64, 64, blocks[0], 1, base_width)
        self.layer2 = layer(block, 64 * e, 128, blocks[1], 2, base_width)
        self.layer3 = layer(block, 128 * e, 256, blocks[2], 2, base_width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) -> 64e channels at H/4, 128e at H/8, 256e at H/16."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, 64, H/4, W/4)
        fine = self.layer1(x)
        middle = self.layer2(fine)
        coarse = self.layer3(middle)
        return fine, middle, coarse


class LastStage(nn.Module):
    """layer4 of a ResNet, under its own name: the stage behind `Trunk`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        block, blocks, base_width = layout(name)
        self.layer4 = layer(block, 256 * block.expansion, 512, blocks[3], 2, base_width)

    def forward(self, coarse: torch.Tensor) -> torch.Tensor:
        """(B, 256e, H/16, W/16) -> (B, 512e, H/32, W/32), e the expansion of the blocks."""
        embedded: torch.Tensor = self.layer4(coarse)
        return embedded
