"""What torch does when a network runs, written down as a list of steps: what fused networks are made from.

The recording is made in one thread by the dispatcher's own means. Nothing global is changed, unlike in torch's tracers,
so that other threads may run modules meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from revdist.errors import RevdistError

PICTURE = 3  # channels
_NARROW = 32  # channels of what a convolution takes and gives: the first block of efficientnet_lite0, at half the size

aten = torch.ops.aten
_ALLOWED = (  # what a network may be made of: with these no step depends on the size of the example
    *(aten.convolution, aten.constant_pad_nd, aten.max_pool2d_with_indices),
    *(aten.relu, aten.hardtanh, aten.add, aten.cat, aten.zeros_like, aten.detach),
)


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that is known only when the network runs."""

    number: int


@dataclass(frozen=True, slots=True)
class Step:
    """An operation; of several results the first alone is meant."""

    operation: Any  # of torch, a Convolution, or what has taken its place
    arguments: tuple[Any, ...]  # a Value in place of a tensor that is given or comes from a step before
    result: Value

    @property
    def name(self) -> Any:
        """The operation whatever types it is for, such as aten.relu."""
        return getattr(self.operation, "overloadpacket", None)

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution, transposed or not, that nothing has taken the place of."""
        return isinstance(self.operation, Convolution)


@dataclass(frozen=True, slots=True)
class Convolution:
    """The operation of a convolution's step, whose argument is its input. Batch norms are folded in."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool
    output_padding: Sequence[int]
    groups: int
    activation: str = ""  # what fusion has put behind it


@dataclass(frozen=True, slots=True)
class Recording:
    """A network as a list of steps."""

    steps: Sequence[Step]
    inputs: Sequence[Value]
    outputs: Sequence[Value]


def record(module: nn.Module, *example: torch.Tensor) -> Recording:
    """Run a module once on an example: one tensor, or several that it takes as a sequence. It returns a sequence too.

    Batch norms must be folded already. Raises RevdistError for an operation that is not known here.
    """
    with torch.inference_mode(mode=False), torch.no_grad(), _Recorder(example) as recorder:
        outputs = module(example[0] if len(example) == 1 else example)
    return Recording(recorder.steps, recorder.inputs, recorder.values_of(tuple(outputs)))


def values(arguments: Any) -> Iterator[Value]:
    """All values in arguments, lists included."""
    if isinstance(arguments, Value):
        yield arguments
    elif isinstance(arguments, tuple | list):
        for argument in arguments:
            yield from values(argument)


def filled(arguments: Any, known: Mapping[Value, Any]) -> Any:
    """The arguments with what is known in the place of each value."""
    if isinstance(arguments, Value):
        return known[arguments]
    if isinstance(arguments, tuple | list):
        return type(arguments)(filled(argument, known) for argument in arguments)
    return arguments


def narrow(plain: Convolution) -> bool:
    """Whether a convolution sees pictures, or maps of few channels: it is cheap, and its rounding is felt the most."""
    inputs, outputs = plain.weight.shape[1] * plain.groups, plain.weight.shape[0]
    return inputs <= PICTURE or max(inputs, outputs) <= _NARROW


def doubles(plain: Convolution) -> bool:
    """Whether it is a transposed convolution of 2x2 with stride 2, whose outputs do not overlap."""
    kernel, stride, plainly = tuple(plain.weight.shape[2:]), tuple(plain.stride), (plain.groups, *plain.dilation)
    alike = (plain.transposed, kernel, stride, plainly) == (True, (2, 2), (2, 2), (1, 1, 1))
    return alike and not any((*plain.padding, *plain.output_padding))


def flattened(plain: Convolution) -> Convolution:
    """One that `doubles` as a convolution of 1x1 with four times the channels, (2, 2, out), which then become squares.

    Raises RevdistError for any other.
    """
    if not doubles(plain):
        kernel, stride = tuple(plain.weight.shape[2:]), tuple(plain.stride)
        raise RevdistError(f"engine: a transposed convolution of {kernel} with stride {stride} cannot be fused")
    weight = plain.weight.permute(2, 3, 1, 0).reshape(-1, plain.weight.shape[0], 1, 1)  # (4 * out, in, 1, 1)
    bias = None if plain.bias is None else plain.bias.repeat(4)
    return replace(plain, weight=weight, bias=bias, stride=(1, 1), transposed=False)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Writes down what torch does in this thread."""

    def __init__(self, example: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.inputs = [Value(number) for number in range(len(example))]
        self._known = {id(tensor): value for tensor, value in zip(example, self.inputs, strict=True)}
        self._alive: list[torch.Tensor] = list(example)  # an id means one tensor only as long as that lives

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: torch would import its compiler, a second of work, to leave this alone."""
        return False

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = operation.overloadpacket
        if packet not in _ALLOWED or (kwargs and packet is not aten.zeros_like):
            raise RevdistError(f"engine: a network with the operation {operation} cannot be fused")
        results = operation(*args, **(kwargs or {}))
        result = Value(len(self._alive))
        if packet is aten.convolution:
            operation, args = Convolution(*args[1:]), args[:1]
        self.steps.append(Step(operation, self.values_of(args), result))
        self._alive.append(results[0] if isinstance(results, tuple) else results)
        self._known[id(self._alive[-1])] = result
        return results

    def values_of(self, arguments: Any) -> Any:
        """The arguments with a Value in place of each tensor that is given or comes from a step."""
        if isinstance(arguments, tuple | list):
            return type(arguments)(self.values_of(argument) for argument in arguments)
        return self._known.get(id(arguments), arguments) if isinstance(arguments, torch.Tensor) else arguments
