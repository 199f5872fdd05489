"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, a tile of a map at a time.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv 1509.09308): F(4x4, 3x3). A tile of
4x4 outputs depends on 6x6 inputs. Both are transformed, so that it takes one multiplication for each of 36 places and
pair of channels: 2.25 for an output, where a plain convolution takes 9. In float32 the result is 2e-6 (relative, root
mean square) from the exact one, a plain convolution's 4e-7.

B pictures, C channels, H W pixels, h w tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from revdist.packed import RELU6, Convolution, Operation
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
_CHANNELS = 128  # at least, on both sides: with fewer the transforms cost more than they save
_TILES = 16  # of a picture, at least: products of fewer rows are slow
_WORK = 8e8  # multiplications and additions for a picture, at least: some fifty calls of torch take their time too
_AT_ONCE = 1 << 19  # inputs that are transformed together, so that caches hold what is made of them


def suits(plain: Plain) -> bool:
    """Whether it is a 3x3 convolution of enough channels, step by step and with a border of one pixel."""
    outputs, inputs, *kernel = plain.weight.shape
    steps = (*plain.stride, *plain.padding, *plain.dilation, plain.groups)
    return not plain.transposed and kernel == [3, 3] and set(steps) == {1} and min(inputs, outputs) >= _CHANNELS


def pays(plain: Plain, height: int, width: int) -> bool:
    """Whether tiles cover a map of this size exactly, and it is large enough. The number of pictures does not matter:
    the score of one must not depend on how many there are."""
    (rows, above), (columns, beside) = divmod(height, _SIDE), divmod(width, _SIDE)
    worth = rows * columns >= _TILES and 2 * plain.weight.numel() * height * width >= _WORK
    return worth and not above and not beside


class Winograd(Operation):
    """As `Convolution` in float32, for one that `suits`. Where it does not pay, the convolution is a plain one."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._ways: dict[bool, Operation] = {}  # by whether it pays

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` (B, out, H, W) is added before the activation."""
        paying = pays(self._plain, *x.shape[2:])
        if paying not in self._ways:
            self._ways[paying] = Tiled(self._plain) if paying else Convolution(self._plain, torch.float32)
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
        self._product = Convolution(_product(plain), torch.float32)
        self._seen: set[tuple[int, int]] = set()  # (H, W)

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` (B, out, H, W) is added before the activation."""
        count, _, height, width = x.shape
        self._seen.add((height, width))
        maps, found = x.permute(0, 2, 3, 1), x.new_empty(count, height, width, self._outputs)
        for part in self._parts(count, height, width):
            self._convolve(maps[part], found[part])
        if other is not None:
            found.add_(other.permute(0, 2, 3, 1))
        if self._activation:
            found.clamp_(0, 6) if self._activation == RELU6 else found.relu_()
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

    def _convolve(self, x: torch.Tensor, found: torch.Tensor) -> None:
        """(b, H, W, in) -> (b, H, W, out)."""
        count, rows, columns = x.shape[0], x.shape[1] // _SIDE, x.shape[2] // _SIDE
        framed = F.pad(x, (0, 0, 1, 1, 1, 1))  # (b, H + 2, W + 2, in)
        high = x.new_empty(_PLACES, count, rows, *framed.shape[2:])  # (6, b, h, W + 2, in)
        _spread([framed[:, i : i + _SIDE * rows - 3 : _SIDE] for i in range(_PLACES)], high.unbind())
        both = x.new_empty(count, rows, columns, _PLACES, _PLACES, self._inputs)  # (b, h, w, 6, 6, in)
        beside = [high[:, :, :, j : j + _SIDE * columns - 3 : _SIDE] for j in range(_PLACES)]
        _spread(beside, both.permute(3, 4, 0, 1, 2, 5).unbind(1))
        made = self._product(both.view(1, count * rows * columns, 1, -1).permute(0, 3, 1, 2))
        made = made.permute(0, 2, 3, 1).view(count, rows, columns, _PLACES, _PLACES, self._outputs)
        low = x.new_empty(_SIDE, _PLACES, count, rows, columns, self._outputs)  # (4, 6, b, h, w, out)
        _gather(made.permute(3, 4, 0, 1, 2, 5).unbind(), low.unbind())
        tiles = found.view(count, rows, _SIDE, columns, _SIDE, self._outputs)
        _gather(low.unbind(1), tiles.permute(4, 2, 0, 1, 3, 5).unbind())


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


def _spread(x: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> None:
    """Six inputs along a side -> six places."""
    even, odd = torch.sub(x[4], x[2], alpha=4), torch.sub(x[3], x[1], alpha=4)
    torch.add(even, odd, out=found[1])
    torch.sub(even, odd, out=found[2])
    torch.sub(x[4], x[2], out=even)
    torch.sub(x[3], x[1], out=odd)
    torch.add(even, odd, alpha=2, out=found[3])
    torch.sub(even, odd, alpha=2, out=found[4])
    torch.add(x[4], x[0], alpha=4, out=found[0]).sub_(x[2], alpha=5)
    torch.add(x[5], x[1], alpha=4, out=found[5]).sub_(x[3], alpha=5)


def _gather(x: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> None:
    """Six places along a side -> four outputs."""
    near, far = x[1] + x[2], x[3] + x[4]
    torch.add(near, far, out=found[0]).add_(x[0])
    torch.add(near, far, alpha=4, out=found[2])
    torch.sub(x[1], x[2], out=near)
    torch.sub(x[3], x[4], out=far)
    torch.add(near, far, alpha=2, out=found[1])
    torch.add(near, far, alpha=8, out=found[3]).add_(x[5])
