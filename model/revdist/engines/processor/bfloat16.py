"""What keeps scores in bfloat16 near those in float32. Its numbers have 8 significant bits.

Nearly all of the difference comes from the teacher, whose maps a student has learned to rebuild as they are in float32:
computed in bfloat16 the student alone moves the median score by 0.04 %, the teacher alone by 0.6 % (efficientnet_lite0
on magnetic_tile, by simulation). Three things reduce that to 0.17 %, as measured too on a processor that has bfloat16.
The start of a WideResNet50-2 takes half a second longer with them on two old cores; its first convolution takes 0.3 ms
more of the 70 for a picture:

- The first, narrow convolutions stay float32. What they get wrong all others are given.
- Biases stay float32 where no map is added: oneDNN's convolutions take them so (packed.py).
- Weights are rounded so that for each output their sum is kept: where a map is flat, and many are nearly so, the sum is
  all that counts. Rounded each to its nearest they would be off by a sum that grows with the root of their number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from revdist.engines import recording
from revdist.engines.recording import Recording, Step, Value, values

_LAST_BIT = 1 << 16  # of a bfloat16, where it is held as a float32


def head(steps: Sequence[Step]) -> int:
    """How many steps at the beginning stay float32: those before the first wide convolution, if they see pictures."""
    wide = [number for number, step in enumerate(steps) if _rounds(step) and not recording.narrow(step.operation)]
    first = next((step.operation for step in steps if _rounds(step)), None)
    sees_pictures = first is not None and first.weight.shape[1] * first.groups <= recording.PICTURE
    return (wide[0] if wide else len(steps)) if sees_pictures else 0


def with_head(steps: Sequence[Step], inputs: Sequence[Value], count: int) -> list[Step]:
    """The steps, with what the network is given, or the first `count` of them make, in bfloat16 for all that follow."""
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
    """The network with weights whose sums are kept, for a runtime that rounds all of them.

    Scores of OpenVINO's bfloat16 were off by 0.85 % in the median (elpv mono, three seeds), then by 0.51 %.
    """
    steps = [replace(step, operation=rounded(step.operation)) if _rounds(step) else step for step in recorded.steps]
    return replace(recorded, steps=steps)


def rounded(plain: recording.Convolution) -> recording.Convolution:
    """With weights that bfloat16 has, whose sums are kept."""
    return replace(plain, weight=keeping_sums(plain.weight))


def _rounds(step: Step) -> bool:
    """Whether its weights are rounded so: those of a transposed convolution lie the other way round."""
    return step.convolves and not step.operation.transposed


def keeping_sums(weight: torch.Tensor) -> torch.Tensor:
    """Weights (out, in, k, k) rounded to bfloat16, but float32, so that their sum for each output is kept.

    Some of those that rounding moves the furthest, which lie near the middle between two values, are rounded to the
    other one, while that brings the sum nearer.
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
