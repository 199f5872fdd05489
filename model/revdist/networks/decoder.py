"""The decoder: the teacher's mirror image, from the embedding back to the teacher's three feature maps.

B batch, e expansion of the teacher's blocks, H W the picture. A block with stride 2 doubles the resolution by a
transposed convolution of 2x2 with stride 2, on the main path and on the skip. `Decoder` is the official graph under
the official names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _upsample(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip; with `up`, the first is a transposed 2x2 and the resolution doubles."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, *, up: bool = False, base_width: int = 64) -> None:
        super().__init__()
        assert base_width == 64, "basic blocks have no width of their own"
        first = nn.ConvTranspose2d(inputs, planes, 2, 2, bias=False) if up else _conv3x3(inputs, planes)
        self.conv1: nn.Module = first
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.upsample = _upsample(inputs, planes) if up else None
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x if self.upsample is None else self.upsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        y: torch.Tensor = self.relu(self.bn2(self.conv2(x)) + skip)
        return y


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a skip; with `up`, the middle is a transposed 2x2 and the resolution doubles."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, *, up: bool = False, base_width: int = 64) -> None:
        super().__init__()
        width = planes * base_width // 64
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        middle = nn.ConvTranspose2d(width, width, 2, 2, bias=False) if up else _conv3x3(width, width)
        self.conv2: nn.Module = middle
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.upsample = _upsample(inputs, outputs) if up else None
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x if self.upsample is None else self.upsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        y: torch.Tensor = self.relu(self.bn3(self.conv3(x)) + skip)
        return y


Block = type[BasicBlock | BottleneckBlock]


class Decoder(nn.Module):
    """For a ResNet teacher: (B, 512e, H/32, W/32) -> 64e at H/4, 128e at H/8, 256e at H/16, as the teacher's order.

    `embedded`: number of input channels, if not 512e.
    """

    def __init__(
        self, block: Block, blocks: tuple[int, int, int], base_width: int, *, embedded: int | None = None
    ) -> None:
        super().__init__()
        e = block.expansion

        def layer(inputs: int, planes: int, count: int) -> nn.Sequential:
            first = block(inputs, planes, up=True, base_width=base_width)
            return nn.Sequential(first, *(block(planes * e, planes, base_width=base_width) for _ in range(1, count)))

        self.layer1 = layer(embedded or 512 * e, 256, blocks[0])
        self.layer2 = layer(256 * e, 128, blocks[1])
        self.layer3 = layer(128 * e, 64, blocks[2])

    def forward(self, embedded: torch.Tensor) -> Features:
        coarse = self.layer1(embedded)  # (B, 256e, H/16, W/16)
        middle = self.layer2(coarse)  # (B, 128e, H/8, W/8)
        fine = self.layer3(middle)  # (B, 64e, H/4, W/4)
        return fine, middle, coarse


class Heads(nn.Module):
    """For a decoder with other channels than the teacher: a 1x1 convolution and ReLU behind each scale."""

    def add_heads(self, inputs: Sequence[int], channels: Sequence[int]) -> None:
        """Add the heads; `inputs` and `channels`: numbers of input and output channels, fine to coarse."""
        self.head1, self.head2, self.head3 = (
            nn.Conv2d(width_in, width_out, 1)
            for width_in, width_out in zip(reversed(inputs), reversed(channels), strict=True)
        )
        self.relu = nn.ReLU()

    def headed(self, features: Features) -> Features:
        """Return three maps with the teacher's channels, fine to coarse."""
        fine, middle, coarse = features
        return self.relu(self.head3(fine)), self.relu(self.head2(middle)), self.relu(self.head1(coarse))


class FittedDecoder(Heads):
    """ResNet18's decoder for a teacher that is no ResNet."""

    def __init__(self, embedded: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.decoder = Decoder(BasicBlock, (2, 2, 2), 64, embedded=embedded)
        self.add_heads((64, 128, 256), channels)

    def forward(self, embedded: torch.Tensor) -> Features:
        return self.headed(self.decoder(embedded))


class SlimDecoder(Heads):
    """The paper's decoder made narrow: (B, C, H/32, W/32) -> the teacher's channels at H/4, H/8, H/16.

    One basic block a scale, of `width` w, w/2 and w/4 channels.
    """

    def __init__(self, embedded: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.layer1 = BasicBlock(embedded, width, up=True)
        self.layer2 = BasicBlock(width, width // 2, up=True)
        self.layer3 = BasicBlock(width // 2, width // 4, up=True)
        self.add_heads((width // 4, width // 2, width), channels)

    def forward(self, embedded: torch.Tensor) -> Features:
        coarse = self.layer1(embedded)  # (B, w, H/16, W/16)
        middle = self.layer2(coarse)  # (B, w/2, H/8, W/8)
        fine = self.layer3(middle)  # (B, w/4, H/4, W/4)
        return self.headed((fine, middle, coarse))


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
