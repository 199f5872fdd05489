"""A network as a list of fused oneDNN operations: what makes it fast on a processor without a compiler.

A convolution takes its ReLU and its addition along, so that no map is read again for them, and adds to a map in place
where nobody reads that later; a transposed convolution of 2x2 with stride 2 is a 1x1 convolution whose outputs are put
side by side; weights are packed once (packed.py). The other operations are those that torch's own compiler emits for
x86. Results differ from the plain network's by rounding.
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
    """A module as a list of fused operations, recorded on an example: one tensor, or several given as a sequence.

    The module and the example are float32 and batch norms folded; what is made takes float32 pictures or maps of
    `dtype`, float32 or bfloat16, and gives those, in batches and pictures of any size. Nothing global is changed, so
    that other threads may run modules meanwhile. Raises RevdistError for an operation that is not known here.
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
    """A fused network: it takes and gives what its module did, and has no weights that torch sees."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        super().__init__()
        self._steps, self._inputs, self._outputs = steps, inputs, outputs
        self.values = [*inputs, *(step.result for step in steps)]  # all that is given or made, in this order
        last = {value: number for number, step in enumerate(steps) for value in values(step.arguments)}
        kept = set(outputs)
        self.saw_one = False  # a picture that went through alone: its shapes are known, for `prepare`
        self._done = [  # what no later step reads: its memory is free for the next
            [value for value, at in last.items() if at == number and value not in kept] for number in range(len(steps))
        ]

    def forward(
        self, x: torch.Tensor | Sequence[torch.Tensor], *, see: Callable[[Value, torch.Tensor], None] | None = None
    ) -> tuple[torch.Tensor, ...]:
        """One tensor or a sequence, as in the example; maps are channels last in memory.

        `see` is called with each value that is given or made on the way.
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
        """Pack the weights for so many pictures, of each size that one picture was seen in."""
        for step in self._steps:
            if isinstance(step.operation, Operation):
                step.operation.prepare(count)


class Doubling(Operation):
    """A transposed convolution of 2x2 with stride 2, then an activation: (B, in, H, W) -> (B, out, 2H, 2W)."""

    def __init__(self, flat: Packing) -> None:
        """`flat` computes what `recording.flattened` gives."""
        self._flat = flat

    def prepare(self, count: int) -> None:
        """As `Packing.prepare`."""
        self._flat.prepare(count)

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Each location's four outputs become a square of 2x2. Nothing is added."""
        assert other is None, "no addition is fused behind it"
        flat = self._flat(x).permute(0, 2, 3, 1)  # (B, H, W, 4 * out)
        b, h, w, outputs = flat.shape
        squares = flat.reshape(b, h, w, 2, 2, outputs // 4).permute(0, 1, 3, 2, 4, 5)
        return squares.reshape(b, 2 * h, 2 * w, outputs // 4).permute(0, 3, 1, 2)


def joined(recorded: Recording) -> list[Step]:
    """Convolutions take in the padding before them, and the addition and activation behind them.

    A step goes where its last part was: all that it reads is known there.
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
    """Results of convolutions that may take the memory of the map that they add: one that a convolution made, that none
    but convolutions read (others may give what shares its memory), and that none reads later.
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
    """With the zeros on each side; those that one side has more than the other go into the kernel."""
    left, right, above, below = zeros
    assert right >= left, "of SAME the odd pixel is on the right"
    assert below >= above, "of SAME the odd pixel is below"
    weight = F.pad(plain.weight, (right - left, 0, below - above, 0))
    return replace(plain, weight=weight, padding=(below, right))


def ready(step: Step, dtype: torch.dtype, *, overwrites: bool = False, keeps_sums: bool = False) -> Step:
    """The step with an operation that can run: in the place of a recorded convolution one of `dtype`.

    `overwrites`: it may take the memory of the map that it adds; `keeps_sums`: so its weights are rounded to bfloat16.
    """
    plain = step.operation
    if not isinstance(plain, recording.Convolution):
        return step
    if plain.transposed:
        return replace(step, operation=Doubling(Convolution(flattened(plain), dtype)))

    rounds = keeps_sums and dtype is torch.bfloat16
    kept = bfloat16.rounded(plain) if rounds else plain
    return replace(step, operation=Convolution(kept, dtype, overwrites=overwrites))
