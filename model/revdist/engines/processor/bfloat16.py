"""Keep scores in bfloat16 near those in float32, though bfloat16 has only 8 significant bits.

Nearly all of the difference comes from the teacher, because a student has learned to rebuild the teacher's float32
maps: in bfloat16 the student alone moves the median score by 0.04 %, the teacher alone by 0.6 % (efficientnet_lite0 on
magnetic_tile, by simulation). Three measures reduce that to 0.17 %, which a processor with bfloat16 confirmed. They
cost half a second at the start of a WideResNet50-2 on two old cores, and its first convolution takes 0.3 ms more of the
70 ms for a picture:

- The first, narrow convolutions stay float32, because all later ones would inherit their errors.
- Biases stay float32 where no map is added: oneDNN's convolutions accept them (packed.py).
- Weights are rounded so that their sum for each output is kept: where a map is flat, and many maps nearly are, only the
  sum counts. If each weight were rounded to its nearest, the error of the sum would grow with the root of their number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from revdist.engines import recording
from revdist.engines.recording import Recording, Step, Value, values

_LAST_BIT = 1 << 16  # of a bfloat16 in the bits of a float32


def head(steps: Sequence[Step]) -> int:
    """Count the first steps that stay float32: those before the first wide convolution, if they see pictures."""
    wide = [number for number, step in enumerate(steps) if _rounds(step) and not recording.narrow(step.operation)]
    first = next((step.operation for step in steps if _rounds(step)), None)
    sees_pictures = first is not None and first.weight.shape[1] * first.groups <= recording.PICTURE
    return (wide[0] if wide else len(steps)) if sees_pictures else 0


def with_head(steps: Sequence[Step], inputs: Sequence[Value], count: int) -> list[Step]:
    """Return the steps; those after the first `count` read inputs and earlier results in bfloat16."""
    first, rest = steps[:count], steps[count:]
    exact = {*inputs, *(step.result for step in first)}
    read = dict.fromkeys(value for step in rest for value in values(step.arguments) if value in exact)
    free = 1 + max(value.number for value in (*inputs, *(step.result for step in steps)))
    lowered = {value: Value(free + number) for number, value in enumerate(read)}
    lower = functools.partial(torch.Tensor.to, dtype=torch.bfloat16)
    return [
        *first,
        *(Step(lower, (value,), result) for value, result in lowered.items()),
        *(_reading(step, lowered) for step in rest),
    ]


def _reading(step: Step, lowered: dict[Value, Value]) -> Step:
    replacements = {value: lowered.get(value, value) for value in values(step.arguments)}
    return replace(step, arguments=recording.filled(step.arguments, replacements))


def with_sums(recorded: Recording) -> Recording:
    """Return the network with weights whose sums are kept, for a runtime that rounds all weights.

    OpenVINO's scores in bfloat16 were off by 0.85 % in the median without this, and by 0.51 % with it (elpv mono, three
    seeds).
    """
    steps = [replace(step, operation=rounded(step.operation)) if _rounds(step) else step for step in recorded.steps]
    return replace(recorded, steps=steps)


def rounded(plain: recording.Convolution) -> recording.Convolution:
    """Round the weights to bfloat16 so that their sums are kept."""
    return replace(plain, weight=keeping_sums(plain.weight))


def _rounds(step: Step) -> bool:
    """Whether the step's weights are rounded; a transposed convolution has inputs and outputs the other way round."""
    return step.convolves and not step.operation.transposed


def keeping_sums(weight: torch.Tensor) -> torch.Tensor:
    """Round weights (out, in, k, k) to values of bfloat16, kept as float32, so that each output's sum is kept.

    Rounding moves those weights furthest that lie near the middle between two values. Some of them are rounded to the
    other value, as long as that brings the sum nearer.
    """
    exact = weight.detach().float().flatten(1)
    nearest = exact.to(torch.bfloat16).float()
    off = nearest - exact
    tried = min(exact.shape[1], 2 * math.isqrt(exact.shape[1]) + 8)
    columns = off.abs().topk(tried).indices  # (out, tried)
    rounded, moved = nearest.gather(1, columns), off.gather(1, columns)
    away = torch.where((moved > 0) == (rounded > 0), -_LAST_BIT, _LAST_BIT).int()  # sign and magnitude are apart
    others = torch.where(moved == 0, rounded, (rounded.view(torch.int32) + away).view(torch.float32))
    steps, sums = (others - rounded).T.contiguous(), off.double().sum(1)
    taken = torch.zeros_like(steps)
    for step, change in zip(steps, taken, strict=True):
        torch.mul(step, (sums + step).abs() < sums.abs(), out=change)
        sums += change
    return nearest.scatter_add(1, columns, taken.T).view(weight.shape)
