"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, a tile of a map at a time.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv 1509.09308): F(4x4, 3x3). A tile of
4x4 outputs depends on 6x6 inputs. Both are transformed (transforms.py), so that it takes one multiplication for each of
36 places and pair of channels: 2.25 for an output, where a plain convolution takes 9. The result is 2e-6 (relative,
root mean square) from the exact one, a plain convolution's in float32 4e-7.

Of maps in bfloat16 it is computed in float32 too, as exactly: where they are large that is faster than plain
convolutions in bfloat16, which multiply twice as many numbers at once. Weights take four times the memory, and so maps
must be large enough to pay for that.

B pictures, C channels, H W pixels, h w tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from revdist import transforms
from revdist.packed import RELU, RELU6, Convolution, Operation
from revdist.recording import Convolution as Plain

_SIDE, _PLACES = 4, 6  # outputs and inputs along a side of a tile
_KERNEL = (  # what three weights along a side become
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_CHANNELS = 64  # at least, on both sides: with fewer the transforms cost more than they save
_TILES = {torch.float32: 16, torch.bfloat16: 64}  # of a picture, at least: with fewer it is the weights that take time
_WORK = 5e7  # multiplications and additions for a picture, at least: four calls take their time too
_LIMITS = {"": (-math.inf, math.inf), RELU: (0.0, math.inf), RELU6: (0.0, 6.0)}
_AT_ONCE = 1 << 19  # inputs that are transformed together, so that caches hold what is made of them


def suits(plain: Plain) -> bool:
    """Whether it is a 3x3 convolution of enough channels, step by step and with a border of one pixel."""
    outputs, inputs, *kernel = plain.weight.shape
    steps = (*plain.stride, *plain.padding, *plain.dilation, plain.groups)
    wide = min(inputs, outputs) >= _CHANNELS and not inputs % transforms.WIDTH and not outputs % transforms.WIDTH
    return not plain.transposed and kernel == [3, 3] and set(steps) == {1} and wide


def pays(plain: Plain, height: int, width: int, dtype: torch.dtype) -> bool:
    """Whether tiles cover a map of this size exactly, and it is large enough. The number of pictures does not matter:
    the score of one must not depend on how many there are."""
    (rows, above), (columns, beside) = divmod(height, _SIDE), divmod(width, _SIDE)
    worth = rows * columns >= _TILES[dtype] and 2 * plain.weight.numel() * height * width >= _WORK
    return worth and not above and not beside


class Winograd(Operation):
    """As `Convolution`, for one that `suits`. Where it does not pay, the convolution is a plain one."""

    def __init__(self, plain: Plain, dtype: torch.dtype, plainly: Callable[[], Operation]) -> None:
        """`dtype`: of maps, float32 or bfloat16; `plainly` makes the other way."""
        self._plain, self._dtype, self._plainly = plain, dtype, plainly
        self._ways: dict[bool, Operation] = {}  # by whether it pays

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` (B, out, H, W) is added before the activation."""
        paying = pays(self._plain, x.shape[2], x.shape[3], self._dtype)
        if paying not in self._ways:
            self._ways[paying] = Tiled(self._plain) if paying else self._plainly()
        return self._ways[paying](x, other)

    def prepare(self, count: int) -> None:
        """As `Operation.prepare`."""
        for way in self._ways.values():
            way.prepare(count)


class Tiled(Operation):
    """The convolution by tiles: (B, in, H, W) -> (B, out, H, W), channels last in memory; H and W multiples of 4."""

    def __init__(self, plain: Plain) -> None:
        self._activation = plain.activation
        self._outputs, self._inputs, *_ = plain.weight.shape
        self._border = {dtype: torch.zeros(self._inputs, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
        self._product = Convolution(_product(plain), torch.float32)
        self._seen: set[tuple[int, int]] = set()  # (H, W)

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` (B, out, H, W) is added before the activation."""
        count, _, height, width = x.shape
        self._seen.add((height, width))
        maps = x.permute(0, 2, 3, 1).contiguous()  # as they are, where channels are last in memory
        found = x.new_empty(count, height, width, self._outputs)
        added = None if other is None else other.permute(0, 2, 3, 1).contiguous()
        for part in self._parts(count, height, width):
            made = self._products(maps[part])
            transforms.gather(made, found[part], None if added is None else added[part], _LIMITS[self._activation])
        return found.permute(0, 3, 1, 2)

    def prepare(self, count: int) -> None:
        """As `Operation.prepare`."""
        for height, width in tuple(self._seen):
            tiles = height * width // _SIDE**2
            for pictures in {part.stop - part.start for part in self._parts(count, height, width)}:
                self._product.weight(torch.Size((1, _PLACES**2 * self._inputs, pictures * tiles, 1)))

    def _parts(self, count: int, height: int, width: int) -> list[slice]:
        """Pictures that go together."""
        most = max(1, _AT_ONCE // (height * width * self._inputs))
        return [slice(begin, min(begin + most, count)) for begin in range(0, count, most)]

    def _products(self, x: torch.Tensor) -> torch.Tensor:
        """(b, H, W, in) -> float32 (1, b * h * w, 1, 36 * out), of the places of all tiles."""
        tiles = x.shape[0] * x.shape[1] * x.shape[2] // _SIDE**2
        both = x.new_empty(1, tiles, 1, _PLACES**2 * self._inputs, dtype=torch.float32)
        transforms.spread(x, self._border[x.dtype], both)
        made: torch.Tensor = self._product(both.permute(0, 3, 1, 2))
        return made.permute(0, 2, 3, 1)


def _product(plain: Plain) -> Plain:
    """What transformed inputs are multiplied by: a convolution of 1x1, whose groups are the 36 places of a tile.

    So oneDNN packs the weights: for the 16 tiles of a map of 16x16 it takes two thirds of the time of torch.bmm.
    """
    outputs, inputs, *_ = plain.weight.shape
    kernel = torch.tensor(_KERNEL, dtype=torch.float64)
    weight = plain.weight.detach().permute(2, 3, 0, 1).reshape(9, -1)  # (9, out * in)
    weight = torch.kron(kernel, kernel).float() @ weight  # (36, out * in), row by row
    bias = None
    if plain.bias is not None:
        bias = torch.zeros(_PLACES, _PLACES, outputs)
        bias[1, 1] = plain.bias.detach()  # of this place alone all outputs are as large as it
        bias = bias.flatten()
    groups = _PLACES**2
    return replace(plain, weight=weight.view(-1, inputs, 1, 1), bias=bias, padding=(0, 0), groups=groups, activation="")
