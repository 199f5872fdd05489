"""A network as a list of fused oneDNN operations: fast on a processor, without a compiler.

A convolution computes the addition and the ReLU behind it too, so that no map is read again for them. The convolution
adds in place where no later step reads the added map. A transposed convolution of 2x2 with stride 2 runs as a 1x1
convolution whose outputs are put side by side. Weights are packed once (packed.py). The other operations are those that
torch's own compiler emits for x86. Results differ from the plain network's by rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from revdist.engines import recording
from revdist.engines.processor import bfloat16
from revdist.engines.processor.packed import RELU, RELU6, Convolution, Operation, Packing
from revdist.engines.recording import Recording, Step, Value, aten, filled, flattened, values


def fuse(module: nn.Module, *example: torch.Tensor, dtype: torch.dtype = torch.float32) -> Program:
    """Make a list of fused operations from a module, by recording a run on an example: one tensor, or several.

    The module and the example are float32; batch norms are folded already. The program takes float32 pictures, or maps
    of `dtype` (float32 or bfloat16), and returns maps of `dtype`, for batches and pictures of any size. No global state
    changes, so other threads may run modules meanwhile. Raises RevdistError for an operation that cannot be fused.
    """
    recorded = recording.record(module, *example)
    steps, exact = joined(recorded), 0
    if dtype is torch.bfloat16 and (exact := bfloat16.head(steps)):
        assert not {step.result for step in steps[:exact]} & set(recorded.outputs), "a wide convolution makes each map"
        steps = bfloat16.with_head(steps, recorded.inputs, exact)
    free = _overwriting(steps, recorded.outputs)
    ready_steps = [
        ready(step, torch.float32 if number < exact else dtype, overwrites=step.result in free, keeps_sums=exact > 0)
        for number, step in enumerate(steps)
    ]
    return Program(ready_steps, recorded.inputs, recorded.outputs)


class Program(nn.Module):
    """A fused network. It takes and returns the same tensors as its module, and has no weights that torch sees."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        super().__init__()
        self._steps, self._inputs, self._outputs = steps, inputs, outputs
        self.values = [*inputs, *(step.result for step in steps)]  # all inputs, then all results, in this order
        last = {value: number for number, step in enumerate(steps) for value in values(step.arguments)}
        kept = set(outputs)
        self.saw_one = False  # whether one picture ran alone: `prepare` needs its shapes
        self._done = [  # after each step, the values that no later step reads: their memory is freed
            [value for value, at in last.items() if at == number and value not in kept] for number in range(len(steps))
        ]

    def forward(
        self, x: torch.Tensor | Sequence[torch.Tensor], *, see: Callable[[Value, torch.Tensor], None] | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Run the network on one tensor or a sequence, as in the example; maps are channels last in memory.

        `see` is called with each input and each result.
        """
        tensors: dict[Value, Any] = dict(zip(self._inputs, [x] if isinstance(x, torch.Tensor) else x, strict=True))
        self.saw_one = self.saw_one or len(tensors[self._inputs[0]]) == 1
        if see is not None:
            for value, tensor in tensors.items():
                see(value, tensor)
        for step, done in zip(self._steps, self._done, strict=True):
            result = step.operation(*filled(step.arguments, tensors))
            tensors[step.result] = result[0] if isinstance(result, tuple) else result
            if see is not None:
                see(step.result, tensors[step.result])
            for value in done:
                del tensors[value]
        return tuple(tensors[value] for value in self._outputs)

    def prepare(self, count: int) -> None:
        """Pack the weights for batches of `count` pictures, in each size in which one picture ran alone."""
        for step in self._steps:
            if isinstance(step.operation, Operation):
                step.operation.prepare(count)


class Doubling(Operation):
    """A transposed convolution of 2x2 with stride 2, then an activation: (B, in, H, W) -> (B, out, 2H, 2W)."""

    def __init__(self, flat: Packing) -> None:
        """`flat` runs the 1x1 convolution that `recording.flattened` returns."""
        self._flat = flat

    def prepare(self, count: int) -> None:
        """Pack the weights, see `Packing.prepare`."""
        self._flat.prepare(count)

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Put the four outputs of each location into a square of 2x2. `other` must be None."""
        assert other is None, "no addition is fused behind it"
        flat = self._flat(x).permute(0, 2, 3, 1)  # (B, H, W, 4 * out)
        b, h, w, outputs = flat.shape
        squares = flat.reshape(b, h, w, 2, 2, outputs // 4).permute(0, 1, 3, 2, 4, 5)
        return squares.reshape(b, 2 * h, 2 * w, outputs // 4).permute(0, 3, 1, 2)


def joined(recorded: Recording) -> list[Step]:
    """Join each convolution with the padding before it and with the addition and activation behind it.

    A joined step stands where its last part stood, because all its arguments exist there.
    """
    readers = Counter(value for step in recorded.steps for value in values(step.arguments))
    readers.update(recorded.outputs)
    joined_steps: dict[Value, Step] = {}  # by result

    def alone(value: Any) -> Step | None:
        return joined_steps.get(value) if isinstance(value, Value) and readers[value] == 1 else None

    for step in recorded.steps:
        new, before = step, None
        if step.convolves:
            maker = alone(step.arguments[0])
            if maker is not None and maker.name is aten.constant_pad_nd and not any(step.operation.padding):
                padded = _padded(step.operation, maker.arguments[1])
                before, new = maker, Step(padded, maker.arguments[:1], step.result)
        elif step.name is aten.add and len(step.arguments) == 2:
            for summand, other in (step.arguments, step.arguments[::-1]):
                maker = alone(summand)
                if maker is not None and _takes_addition(maker) and isinstance(other, Value):
                    before, new = maker, Step(maker.operation, (*maker.arguments, other), step.result)
        elif step.name is aten.relu or (step.name is aten.hardtanh and step.arguments[1:] == (0.0, 6.0)):
            maker = alone(step.arguments[0])
            if maker is not None and maker.convolves and not maker.operation.activation:
                activated = replace(maker.operation, activation=RELU if step.name is aten.relu else RELU6)
                before, new = maker, Step(activated, maker.arguments, step.result)
        if before is not None:
            del joined_steps[before.result]
        joined_steps[step.result] = new
    return list(joined_steps.values())


def _overwriting(steps: Sequence[Step], outputs: Sequence[Value]) -> set[Value]:
    """Return the results of convolutions that may overwrite the map that they add.

    A convolution made that map, only convolutions read it (another operation may return a view of its memory), and no
    later step reads it.
    """
    overwritable = {step.result: step.convolves for step in steps}
    last: dict[Value, Step] = {}
    for step in steps:
        for value in values(step.arguments):
            last[value] = step
            overwritable[value] = overwritable.get(value, False) and step.convolves and value not in outputs
    return {
        step.result
        for step in steps
        if step.convolves and len(step.arguments) == 2
        for source, added in [step.arguments]
        if overwritable[added] and last[added] is step and source != added
    }


def _takes_addition(step: Step) -> bool:
    plain = step.operation
    return (
        isinstance(plain, recording.Convolution)
        and not (plain.activation or plain.transposed)
        and len(step.arguments) == 1
    )


def _padded(plain: recording.Convolution, zeros: Sequence[int]) -> recording.Convolution:
    """Return the convolution with the zeros as padding; zeros that only one side has are added to the kernel."""
    left, right, above, below = zeros
    assert right >= left, "of SAME the odd pixel is on the right"
    assert below >= above, "of SAME the odd pixel is below"
    weight = F.pad(plain.weight, (right - left, 0, below - above, 0))
    return replace(plain, weight=weight, padding=(below, right))


def ready(step: Step, dtype: torch.dtype, *, overwrites: bool = False, keeps_sums: bool = False) -> Step:
    """Return the step with an operation that can run: a convolution of `dtype` replaces a recorded one.

    `overwrites`: the convolution may overwrite the map that it adds. `keeps_sums`: weights are rounded to bfloat16 so
    that their sums are kept.
    """
    plain = step.operation
    if not isinstance(plain, recording.Convolution):
        return step
    if plain.transposed:
        return replace(step, operation=Doubling(Convolution(flattened(plain), dtype)))

    rounds = keeps_sums and dtype is torch.bfloat16
    kept = bfloat16.rounded(plain) if rounds else plain
    return replace(step, operation=Convolution(kept, dtype, overwrites=overwrites))
