"""EfficientNet-Lite0 up to its stride of 16, and its last stage apart, under the weights' own (lukemelas) names.

B batch, H W the picture. The expansion convolution that closes each resolution, the last layer before the next stride,
gives the features: ReLU6, 144/240/672 channels at strides 4/8/16. The linear projections gave maps ruled by background
noise, and so, less badly, did the depthwise outputs that timm calls `feature_location="expansion"`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _Block(NamedTuple):
    inputs: int
    expansion: int
    kernel: int
    stride: int
    outputs: int


_STEM = 32
_BLOCKS = (
    _Block(32, 1, 3, 1, 16),
    _Block(16, 6, 3, 2, 24),
    _Block(24, 6, 3, 1, 24),
    _Block(24, 6, 5, 2, 40),
    _Block(40, 6, 5, 1, 40),
    _Block(40, 6, 3, 2, 80),
    _Block(80, 6, 3, 1, 80),
    _Block(80, 6, 3, 1, 80),
    _Block(80, 6, 5, 1, 112),
    _Block(112, 6, 5, 1, 112),
    _Block(112, 6, 5, 1, 112),
    _Block(112, 6, 5, 2, 192),  # only the expansion of this block is used
)
_CLOSING = (3, 5, 11)  # first blocks of strides 8, 16 and 32: their expansions have the finer resolution
_LAST_STAGE = {  # by number; the coarsest map is the expansion of block 11
    "11": _Block(672, 1, 5, 2, 192),
    "12": _Block(192, 6, 5, 1, 192),
    "13": _Block(192, 6, 5, 1, 192),
    "14": _Block(192, 6, 5, 1, 192),
    "15": _Block(192, 6, 3, 1, 320),
}
LAST_CHANNELS = _LAST_STAGE["15"].outputs
CHANNELS = tuple(_BLOCKS[index].inputs * _BLOCKS[index].expansion for index in _CLOSING)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: with stride 2 the odd pixel is added right and below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = (self._padding(side, axis) for axis, side in enumerate(x.shape[-2:]))
        if rows[0] == rows[1] and columns[0] == columns[1]:
            return F.conv2d(x, self.weight, self.bias, self.stride, (rows[0], columns[0]), self.dilation, self.groups)
        x = F.pad(x, (*columns, *rows))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding(self, side: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise and linear projection (1x1), each with batch norm; `last`: the expansion alone."""

    def __init__(self, block: _Block, *, last: bool = False) -> None:
        super().__init__()
        wide = block.inputs * block.expansion
        self.expands = block.expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(block.inputs, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self.residual = block.stride == 1 and block.inputs == block.outputs
        if not last:
            self._depthwise_conv = SameConv2d(wide, wide, block.kernel, block.stride, groups=wide, bias=False)
            self._bn1 = _norm(wide)
            self._project_conv = nn.Conv2d(wide, block.outputs, 1, bias=False)
            self._bn2 = _norm(block.outputs)

    def expand(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H', W') -> (B, expansion * inputs, H', W'), ReLU6."""
        return F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x

    def project(self, wide: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Depthwise, then back to few channels, with the skip from `x` where the block has one."""
        y: torch.Tensor = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(wide)))))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W) in (pixel - 127) / 128 -> (B, 144, H/4, W/4), (B, 240, H/8, W/8), (B, 672, H/16, W/16)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        last = len(_BLOCKS) - 1
        self._blocks = nn.ModuleList(InvertedResidual(block, last=index == last) for index, block in enumerate(_BLOCKS))

    def forward(self, x: torch.Tensor) -> Features:
        x = F.relu6(self._bn0(self._conv_stem(x)))  # (B, 32, H/2, W/2)
        features = []
        for index, block in enumerate(self._blocks):
            assert isinstance(block, InvertedResidual)
            wide = block.expand(x)
            if index in _CLOSING:
                features.append(wide)
            if index < len(self._blocks) - 1:
                x = block.project(wide, x)
        fine, middle, coarse = features
        return fine, middle, coarse


class LastStage(nn.Module):
    """The blocks at stride 32: (B, 672, H/16, W/16) -> (B, 320, H/32, W/32), a linear projection."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks = nn.ModuleDict({number: InvertedResidual(block) for number, block in _LAST_STAGE.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self._blocks.values():
            assert isinstance(block, InvertedResidual)
            x = block.project(block.expand(x), x)
        return x


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
