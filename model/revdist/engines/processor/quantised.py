"""A network of 8-bit operations: oneDNN's integer convolutions, for processors with instructions for them.

Weights are symmetric int8 with a scale for each output channel; maps are uint8 with one scale and zero point, from the
range of the map on good pictures; sums are exact. The first, narrow convolutions stay float32. After Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018 (arXiv
1712.05877), post-training.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from revdist.engines import recording
from revdist.engines.processor import fused, packed
from revdist.engines.recording import Recording, Step, Value, aten, values
from revdist.errors import RevdistError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """The lowest and the highest value of each map of a network: (n, 2) float32, inputs first, then by step."""

    table: Array

    @property
    def digest(self) -> str:
        """The SHA-256 of the table: networks with equal weights and equal digests are equal."""
        return hashlib.sha256(self.table.tobytes()).hexdigest()


def observe(network: fused.Program, batches: Iterable[torch.Tensor | Sequence[torch.Tensor]]) -> Ranges:
    """Measure the ranges of a float32 network's maps on representative good pictures, or on their features."""
    table = np.zeros((len(network.values), 2), np.float32)  # 0 is in every range: borders are padded with it
    row_of = {value: row for row, value in enumerate(network.values)}

    def see(value: Value, tensor: torch.Tensor) -> None:
        low, high = (float(bound) for bound in torch.aminmax(tensor))
        row = table[row_of[value]]
        row[:] = min(row[0], low), max(row[1], high)

    with torch.inference_mode():
        for batch in batches:
            network(batch, see=see)
    return Ranges(table)


class Program(fused.Program):
    """An 8-bit network."""

    def __init__(
        self, steps: Sequence[Step], inputs: Sequence[Value], outputs: Sequence[Value], results: Sequence[QuantParams]
    ) -> None:
        """`results`: how the integers of each output stand for values."""
        super().__init__(steps, inputs, outputs)
        self.results = tuple(results)


def quantise(recorded: Recording, ranges: Ranges, given: Sequence[QuantParams] = ()) -> Program:
    """Make an 8-bit network: float32 pictures, or uint8 maps that stand for values as `given` says, -> uint8 maps.

    Raises RevdistError where the ranges are those of another network.
    """
    steps = fused.joined(recorded)
    return _Quantiser(recorded, steps, affines(recorded, steps, ranges, given), bool(given)).program()


@dataclass(frozen=True, slots=True)
class QuantParams:
    """How integers 0..255 stand for a map's values: scale * (integer - zero)."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> QuantParams:
        scale = max((high - low) / 255, 1e-8)
        return cls(scale, round(-low / scale))

    def quantise(self, x: torch.Tensor) -> torch.Tensor:
        """float32 -> uint8 of the same shape."""
        return torch.mul(x, 1 / self.scale).add_(self.zero).round_().clamp_(0, 255).to(torch.uint8)

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 -> float32 of the same shape."""
        return x.to(torch.float32).sub_(self.zero).mul_(self.scale)


class Convolution(packed.Packing):
    """uint8 (B, in, H, W) -> (B, out, H', W'), uint8 or float32; then optionally + `other`, then an activation.

    oneDNN adds in place: `other` (B, out, H', W') has the type of the result, and becomes it.
    """

    def __init__(
        self,
        plain: recording.Convolution,
        source: QuantParams,
        result: QuantParams | None,
        other: QuantParams | None = None,
    ) -> None:
        """`source`, `result`, `other`: parameters of these maps; without `result` the result is float32."""
        super().__init__()
        integers, self._scales = of_weight(plain.weight.detach())
        self._weight = integers.contiguous(memory_format=torch.channels_last)
        self._zeros = torch.zeros(len(self._scales), dtype=torch.int32)
        self._bias = None if plain.bias is None else plain.bias.detach()
        self._source = source.scale, source.zero
        self._layout: packed.Layout = tuple(plain.stride), tuple(plain.padding), tuple(plain.dilation), plain.groups
        self._result = (1.0, 0, torch.float32) if result is None else (result.scale, result.zero, torch.uint8)
        self._other = (1.0, 0) if other is None else (other.scale, other.zero)
        self._activation = plain.activation or "none", packed.limits(plain), ""

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        operands = (x, *self._source, self.weight(x.shape), self._scales, self._zeros)
        ways = (self._bias, *self._layout, *self._result)
        y: torch.Tensor
        if other is None:
            y = torch.ops.onednn.qconv_pointwise(*operands, *ways, *self._activation)
        else:
            add = torch.ops.onednn.qconv2d_pointwise.binary
            y = add(*operands, other, *ways, *self._other, "sum", 1.0, *self._activation)
        return y

    def _order(self, shape: torch.Size, threads: int) -> bytes:
        return _order(self._weight.shape, self._source[1], self._layout, shape, threads)

    def _pack(self, shape: torch.Size) -> torch.Tensor:
        return _pack(self._weight, self._scales, self._source, self._layout, shape)


@functools.lru_cache(maxsize=10_000)
def _order(weight: torch.Size, zero: int, layout: packed.Layout, shape: torch.Size, threads: int) -> bytes:
    """Return oneDNN's layout of weights (out, in, k, k) for an input shape. `threads`: those of this thread's team."""
    assert threads == torch.get_num_threads()
    blank = torch.zeros(weight, dtype=torch.int8).contiguous(memory_format=torch.channels_last)
    return packed.laid_out(_pack(blank, torch.ones(weight[0]), (1.0, zero), layout, shape))


def _pack(
    weight: torch.Tensor, scales: torch.Tensor, source: tuple[float, int], layout: packed.Layout, shape: torch.Size
) -> torch.Tensor:
    packed_weight: torch.Tensor = torch.ops.onednn.qconv_prepack(weight, scales, *source, *layout, list(shape))
    return packed_weight


def of_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise weights: float32 (out, in, k, k) -> int8 of the same shape, and a scale for each output (out,)."""
    scales = (weight.abs().amax((1, 2, 3)) / 127).clamp_min(1e-12)
    return (weight / scales[:, None, None, None]).round().clamp(-127, 127).to(torch.int8), scales


class _Quantiser:
    """Writes the steps of the 8-bit network. Each map exists as float32, as integers, or as both if both are read."""

    def __init__(
        self,
        recorded: Recording,
        steps: Sequence[Step],
        affine: dict[Value, QuantParams],
        integers: bool,
    ) -> None:
        """`integers`: whether the inputs are integers."""
        self._recorded, self._given, self._affine = recorded, steps, affine
        there = {value: value for value in recorded.inputs}
        self._floats, self._integers = ({}, there) if integers else (there, {})
        self._last = {value: number for number, step in enumerate(steps) for value in values(step.arguments)}
        self._read_as_floats: set[Value] = set()
        for step in reversed(steps):  # the parts of a concatenation are read as its result is
            if step.name is aten.cat:
                if step.result in self._read_as_floats:
                    self._read_as_floats.update(values(step.arguments))
            elif not is_integer(step):
                self._read_as_floats.update(values(step.arguments))
        self._made: list[Step] = []
        self._free = 1 + max(value.number for value in self._affine)  # the number of the next value

    def program(self) -> Program:
        for number, step in enumerate(self._given):
            if is_integer(step):
                self._convolution(step, number)
            else:
                self._other(step)
        results = self._recorded.outputs
        outputs = [self._as_integers(value) for value in results]
        return Program(self._made, self._recorded.inputs, outputs, [self._affine[value] for value in results])

    def _convolution(self, step: Step, number: int) -> None:
        plain, value = step.operation, step.result
        source, *others = step.arguments
        result = None if value in self._read_as_floats else self._affine[value]
        arguments = [self._as_integers(source)]
        other = None
        for added in others:  # one at most
            other = None if result is None else self._affine[added]
            arguments.append(self._to_add(added, source, number, floats=result is None))
        flat = recording.flattened(plain) if plain.transposed else plain
        operation: Any = Convolution(flat, self._affine[source], result, other)
        operation = fused.Doubling(operation) if plain.transposed else operation
        self._made.append(Step(operation, tuple(arguments), value))
        (self._floats if result is None else self._integers)[value] = value

    def _to_add(self, value: Value, source: Value, number: int, *, floats: bool) -> Value:
        """Return the map that the convolution of `source` adds in place; a copy where the map is read again."""
        there = self._as_floats(value) if floats else self._as_integers(value)
        again = value == source or self._last[value] > number
        again |= value in (*self._recorded.inputs, *self._recorded.outputs)
        return self._step(torch.clone, there) if again else there

    def _other(self, step: Step) -> None:
        """Write a step that has no 8-bit kernel, or that only moves values."""
        moves = step.name is aten.cat and step.result not in self._read_as_floats
        alike = self._affine[step.result]
        inputs = {
            value: self._like(value, alike) if moves else self._as_floats(value) for value in values(step.arguments)
        }
        ready = fused.ready(step, torch.float32)
        self._made.append(Step(ready.operation, recording.filled(step.arguments, inputs), step.result))
        (self._integers if moves else self._floats)[step.result] = step.result

    def _as_integers(self, value: Value) -> Value:
        if value not in self._integers:
            self._integers[value] = self._step(self._affine[value].quantise, self._floats[value])
        return self._integers[value]

    def _as_floats(self, value: Value) -> Value:
        if value not in self._floats:
            self._floats[value] = self._step(self._affine[value].restore, self._integers[value])
        return self._floats[value]

    def _like(self, value: Value, alike: QuantParams) -> Value:
        """Return a map's integers with the parameters `alike`, to be put side by side with other maps."""
        if self._affine[value] == alike:
            return self._as_integers(value)
        return self._step(alike.quantise, self._as_floats(value))

    def _step(self, operation: Any, value: Value) -> Value:
        result = Value(self._free)
        self._free += 1
        self._made.append(Step(operation, (value,), result))
        return result


def is_integer(step: Step) -> bool:
    """Whether a step runs as an 8-bit kernel: a convolution that is not narrow."""
    return step.convolves and not recording.narrow(step.operation)


def affines(
    recorded: Recording, steps: Sequence[Step], ranges: Ranges, given: Sequence[QuantParams] = ()
) -> dict[Value, QuantParams]:
    """Return the parameters of each map of a network whose steps are joined.

    Maps that are put side by side share their parameters. `given`: parameters of integer inputs. Raises RevdistError
    where the ranges are those of another network.
    """
    maps = [*recorded.inputs, *(step.result for step in steps)]
    if ranges.table.shape != (len(maps), 2):
        raise RevdistError(
            f"engine: ranges of {len(ranges.table)} maps do not fit a network of {len(maps)}",
            hint="calibrate for int8 again",
        )
    spans = {value: (float(low), float(high)) for value, (low, high) in zip(maps, ranges.table, strict=True)}
    for step in steps:
        if step.name is aten.cat:
            together = [step.result, *values(step.arguments)]
            span = min(spans[value][0] for value in together), max(spans[value][1] for value in together)
            spans.update(dict.fromkeys(together, span))
    given_params = dict(zip(recorded.inputs, given, strict=True)) if given else {}
    return {value: QuantParams.of(*span) for value, span in spans.items()} | given_params
