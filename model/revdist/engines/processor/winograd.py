"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, a tile of a map at a time.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv 1509.09308): F(4x4, 3x3). A tile of
4x4 outputs depends on 6x6 inputs. Both are transformed (winograd_transforms.py), so that it takes one multiplication
for each of 36 places and pair of channels: 2.25 for an output, where a plain convolution takes 9. The result is 2e-6
(relative, root mean square) from the exact one, a plain convolution's in float32 4e-7.

Of maps in bfloat16 it is computed in float32 too, as exactly: where they are large that is faster than plain
convolutions in bfloat16 by AVX-512, which multiply twice as many numbers at once. Weights take eight times the memory
(in float32 four times), and so that is for convolutions that have few of them.

B pictures, C channels, H W pixels, h w tiles.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import torch

from revdist.engines.processor import winograd_transforms as transforms
from revdist.engines.processor.packed import RELU, RELU6, Convolution, Operation
from revdist.engines.processor.winograd_code import PLACES, SIDE
from revdist.engines.recording import Convolution as Plain

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
_WEIGHTS = 9 * 256 * 256  # at most, in bfloat16
_WORK = 5e7  # multiplications and additions for a picture, at least: four calls take their time too
_LIMITS = {"": (-math.inf, math.inf), RELU: (0.0, math.inf), RELU6: (0.0, 6.0)}
_AT_ONCE = 1 << 19  # inputs that are transformed together, so that caches hold what is made of them


def suits(plain: Plain, dtype: torch.dtype) -> bool:
    """Whether it is a 3x3 convolution of enough channels, step by step and with a border of one pixel; for maps in
    bfloat16 with few weights, too, on a processor where that may pay.
    """
    if dtype is torch.bfloat16 and (plain.weight.numel() > _WEIGHTS or not only_twice()):
        return False
    outputs, inputs, *kernel = plain.weight.shape
    steps = (*plain.stride, *plain.padding, *plain.dilation, plain.groups)
    wide = min(inputs, outputs) >= _CHANNELS and not inputs % transforms.WIDTH and not outputs % transforms.WIDTH
    return not plain.transposed and kernel == [3, 3] and set(steps) == {1} and wide


@functools.cache
def only_twice() -> bool:
    """Whether this processor multiplies only twice as many numbers at once in bfloat16: AMX and Arm's do more."""
    there = torch.cpu.get_capabilities()
    return bool(there.get("avx512_bf16")) and not there.get("amx_bf16")


def pays(plain: Plain, height: int, width: int, dtype: torch.dtype) -> bool:
    """Whether tiles cover a map of this size exactly, and it is large enough. The number of pictures does not matter:
    the score of one must not depend on how many there are."""
    (rows, above), (columns, beside) = divmod(height, SIDE), divmod(width, SIDE)
    worth = rows * columns >= _TILES[dtype] and 2 * plain.weight.numel() * height * width >= _WORK
    return worth and not above and not beside


class Winograd(Operation):
    """As `Convolution`, for one that `suits`. Where it does not pay, the convolution is a plain one."""

    def __init__(self, plain: Plain, dtype: torch.dtype, plainly: Operation) -> None:
        """`dtype`: of maps, float32 or bfloat16; `plainly`: the other way."""
        self._plain, self._dtype, self._plainly = plain, dtype, plainly
        self._tiled: Tiled | None = None

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` (B, out, H, W) is added before the activation."""
        paying = pays(self._plain, x.shape[2], x.shape[3], self._dtype)
        if paying and self._tiled is None:
            self._tiled = Tiled(self._plain, self._dtype)
        way = self._tiled if paying and self._tiled else self._plainly
        return way(x, other)

    def prepare(self, count: int) -> None:
        """As `Operation.prepare`."""
        self._plainly.prepare(count)
        if self._tiled:
            self._tiled.prepare(count)


class Tiled(Operation):
    """The convolution by tiles: (B, in, H, W) -> (B, out, H, W), channels last in memory; H and W multiples of 4."""

    def __init__(self, plain: Plain, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: of maps."""
        self._activation = plain.activation
        self._outputs, self._inputs, *_ = plain.weight.shape
        self._border = torch.zeros(self._inputs, dtype=dtype)
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
            transforms.of_outputs(made, found[part], None if added is None else added[part], _LIMITS[self._activation])
        return found.permute(0, 3, 1, 2)

    def prepare(self, count: int) -> None:
        """As `Operation.prepare`."""
        for height, width in tuple(self._seen):
            tiles = height * width // SIDE**2
            for pictures in {part.stop - part.start for part in self._parts(count, height, width)}:
                self._product.weight(torch.Size((1, PLACES**2 * self._inputs, pictures * tiles, 1)))

    def _parts(self, count: int, height: int, width: int) -> list[slice]:
        """Pictures that go together."""
        most = max(1, _AT_ONCE // (height * width * self._inputs))
        return [slice(begin, min(begin + most, count)) for begin in range(0, count, most)]

    def _products(self, x: torch.Tensor) -> torch.Tensor:
        """(b, H, W, in) -> float32 (1, b * h * w, 1, 36 * out), of the places of all tiles."""
        tiles = x.shape[0] * x.shape[1] * x.shape[2] // SIDE**2
        both = x.new_empty(1, tiles, 1, PLACES**2 * self._inputs, dtype=torch.float32)
        transforms.of_inputs(x, self._border, both)
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
        bias = torch.zeros(PLACES, PLACES, outputs)
        bias[1, 1] = plain.bias.detach()  # of this place alone all outputs are as large as it
        bias = bias.flatten()
    groups = PLACES**2
    return replace(plain, weight=weight.view(-1, inputs, 1, 1), bias=bias, padding=(0, 0), groups=groups, activation="")
