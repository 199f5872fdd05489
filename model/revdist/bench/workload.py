"""Lists what a detector computes for one picture: its convolutions, the size of their maps, and their operations.

C: channels. H W: height and width of a map. An operation is one addition or one multiplication: a multiply-add counts
as two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from revdist.engines import recording
from revdist.engines.folding import optimise
from revdist.engines.recording import Convolution, aten

_NOWHERE = torch.device("meta")  # shapes alone: nothing is computed and no weight is copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A convolution of one picture's map. The weight has a shape but no values."""

    convolution: Convolution
    channels: int  # of the input map, as are rows and columns
    rows: int
    columns: int
    operations: int

    @property
    def kernel(self) -> tuple[int, int]:
        rows, columns = self.convolution.weight.shape[2:]
        return rows, columns

    def __str__(self) -> str:
        outputs = self.convolution.weight.shape[0]
        kernel = f"{self.kernel[0]}x{self.kernel[1]}"
        return f"{kernel}, {self.channels} to {outputs} channels, {self.rows}x{self.columns}"


def of_detector(trunk: nn.Module, student: nn.Module, size: tuple[int, int]) -> list[Work]:
    """List the convolutions of teacher and student, in order, for one picture of this size (h, w)."""
    picture = torch.empty(1, 3, *size, device=_NOWHERE)
    taught, features = _replay(trunk, [picture])
    rebuilt, _ = _replay(student, features)
    return taught + rebuilt


def operations(work: Iterable[Work]) -> int:
    """Return the sum of the operations of all convolutions."""
    return sum(convolution.operations for convolution in work)


def _replay(module: nn.Module, inputs: list[torch.Tensor]) -> tuple[list[Work], list[torch.Tensor]]:
    """Return the convolutions of a network, and outputs that have its shapes but no values."""
    recorded = recording.record(optimise(module, _NOWHERE), *inputs)
    tensors: dict[recording.Value, Any] = dict(zip(recorded.inputs, inputs, strict=True))
    work = []
    for step in recorded.steps:
        arguments = recording.filled(step.arguments, tensors)
        plain = step.operation
        if isinstance(plain, Convolution):
            output = _convolved(plain, arguments[0])
            work.append(_work(plain, arguments[0], output))
        else:
            results = plain(*arguments)
            output = results[0] if isinstance(results, tuple) else results
        tensors[step.result] = output
    return work, [tensors[value] for value in recorded.outputs]


def _convolved(plain: Convolution, x: torch.Tensor) -> torch.Tensor:
    layout = plain.stride, plain.padding, plain.dilation, plain.transposed, plain.output_padding, plain.groups
    output: torch.Tensor = aten.convolution(x, plain.weight, plain.bias, *layout)
    return output


def _work(plain: Convolution, x: torch.Tensor, y: torch.Tensor) -> Work:
    """Count a multiply-add for each weight of a channel and each output value (if transposed, each input value)."""
    places = x.numel() if plain.transposed else y.numel()
    amount = 2 * places * math.prod(plain.weight.shape[1:])
    channels, rows, columns = x.shape[1:]
    return Work(convolution=plain, channels=channels, rows=rows, columns=columns, operations=amount)
