"""Convolutions by oneDNN, with weights that are packed once in the order that is best for a shape of the input."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import torch

from revdist.engines import recording

Layout = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]  # padding, stride, dilation, groups
RELU, RELU6 = "relu", "hardtanh"  # oneDNN's names


def available() -> bool:
    """Whether this torch has the operations."""
    convolutions = "_convolution_pointwise", "_convolution_pointwise_"
    names = (*convolutions, "_reorder_convolution_weight", "_get_mkldnn_serialized_md")
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch has no types here
    return there and all(hasattr(torch.ops.mkldnn, name) for name in names)


@functools.cache
def takes_exact_bias() -> bool:
    """Whether convolutions in bfloat16, where no map is added, take a bias in float32 and add it before they round."""
    fine = 2.0**-10  # 1 + fine is 1 in bfloat16
    maps, weight = torch.full((1, 16, 4, 4), -1.0), torch.zeros(16, 16, 1, 1)
    weight[:, 0] = 1
    maps, weight = (tensor.bfloat16().contiguous(memory_format=torch.channels_last) for tensor in (maps, weight))
    layout: Layout = (0, 0), (1, 1), (1, 1), 1
    bias = torch.full((16,), 1 + fine)
    try:
        result = torch.ops.mkldnn._convolution_pointwise(maps, weight, bias, *layout, "none", [], "")
    except RuntimeError:  # this processor has no bfloat16, or this torch takes no such bias
        return False
    return bool((result == fine).all())


class Operation(ABC):
    """The operation of a fused network's step: takes an input and, optionally, a map that is added."""

    @abstractmethod
    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` is added before the activation."""

    @abstractmethod
    def prepare(self, count: int) -> None:
        """Pack the weights for batches of `count` pictures, in each size in which one picture ran alone."""


class Packing(Operation):
    """Weights that are packed for each input shape and number of threads: oneDNN's best order depends on both.

    In another order oneDNN would pack the weights again at every call. Weights of one order are shared. Two threads may
    pack at once: both get the same weights.
    """

    def __init__(self) -> None:
        self._packed: dict[tuple[torch.Size, int], torch.Tensor] = {}
        self._orders: dict[bytes, torch.Tensor] = {}

    def weight(self, shape: torch.Size) -> torch.Tensor:
        """Return the weights packed for an input of this shape and the number of threads of this thread's team."""
        key = shape, torch.get_num_threads()
        if key not in self._packed:
            order = self._order(*key)
            if order not in self._orders:
                self._orders[order] = self._pack(shape)
            self._packed[key] = self._orders[order]
        return self._packed[key]

    @abstractmethod
    def _order(self, shape: torch.Size, threads: int) -> bytes:
        """Return the best order for an input of this shape and this number of threads."""

    @abstractmethod
    def _pack(self, shape: torch.Size) -> torch.Tensor:
        """Pack the weights for an input of this shape."""

    def prepare(self, count: int) -> None:
        """Pack the weights for batches of `count` pictures, in each size in which one picture ran alone."""
        for shape in {shape for shape, _ in self._packed if shape[0] == 1}:
            self.weight(torch.Size((count, *shape[1:])))


class Convolution(Packing):
    """A convolution with bias, then optionally + `other`, then an activation: (B, in, H, W) -> (B, out, H', W')."""

    def __init__(self, plain: recording.Convolution, dtype: torch.dtype, *, overwrites: bool = False) -> None:
        """`overwrites`: no later step reads `other`, and the result takes its memory."""
        super().__init__()
        self._overwrites = overwrites
        kept = torch.float32 if dtype is torch.bfloat16 and takes_exact_bias() else dtype
        self._bias = None if plain.bias is None else plain.bias.detach().to(kept)
        self._bias_of_sum = None if self._bias is None else self._bias.to(dtype)  # torch takes no other type there
        self._activation, self._limits = plain.activation, limits(plain)
        self._layout: Layout = tuple(plain.padding), tuple(plain.stride), tuple(plain.dilation), plain.groups
        self._shape = plain.weight.shape
        self._weight = plain.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)  # packed or not

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """`other` (B, out, H', W') is added before the activation."""
        weight, activation = self.weight(x.shape), self._activation
        operation = torch.ops.mkldnn._convolution_pointwise
        y: torch.Tensor
        if other is None:
            y = operation(x, weight, self._bias, *self._layout, activation or "none", self._limits, "")
        else:
            ways = weight, self._bias_of_sum, *self._layout, "add", 1.0, activation or None, self._limits, ""
            in_place = torch.ops.mkldnn._convolution_pointwise_.binary
            y = in_place(other, x, *ways) if self._overwrites else operation.binary(x, other, *ways)
        return y

    def _order(self, shape: torch.Size, threads: int) -> bytes:
        return order(self._shape, self._weight.dtype, self._layout, shape, threads)

    def _pack(self, shape: torch.Size) -> torch.Tensor:
        weight = self._weight.to_dense() if self._weight.is_mkldnn else self._weight
        self._weight = _reordered(weight, self._layout, shape)
        return self._weight


@functools.lru_cache(maxsize=10_000)
def order(weight: torch.Size, dtype: torch.dtype, layout: Layout, shape: torch.Size, threads: int) -> bytes:
    """Return oneDNN's layout of weights (out, in, k, k) for an input shape. `threads`: those of this thread's team."""
    assert threads == torch.get_num_threads()
    return laid_out(_reordered(torch.empty(weight, dtype=dtype), layout, shape))


def laid_out(packed: torch.Tensor) -> bytes:
    """Return how oneDNN has laid out packed weights."""
    return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes())


def _reordered(weight: torch.Tensor, layout: Layout, shape: torch.Size) -> torch.Tensor:
    """Pack a weight (out, in, k, k) for maps of this shape."""
    channels_last = weight.contiguous(memory_format=torch.channels_last)
    packed: torch.Tensor = torch.ops.mkldnn._reorder_convolution_weight(channels_last, *layout, list(shape))
    return packed


def limits(plain: recording.Convolution) -> list[float]:
    """Return the limits that oneDNN needs for this activation: 0 and 6 for ReLU6, else none."""
    return [0.0, 6.0] if plain.activation == RELU6 else []
