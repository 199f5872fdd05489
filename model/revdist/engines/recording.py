"""Record a network's run in torch as a list of steps, from which fused networks are made.

torch's dispatcher records in one thread. Unlike torch's tracers, it changes no global state, so other threads may run
modules meanwhile.
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
_NARROW = 32  # channels of input and output: those of the first block of efficientnet_lite0, at half the size

aten = torch.ops.aten
_ALLOWED = (  # the operations that a network may have: none of them depends on the size of the example
    *(aten.convolution, aten.constant_pad_nd, aten.max_pool2d_with_indices),
    *(aten.relu, aten.hardtanh, aten.add, aten.cat, aten.zeros_like, aten.detach),
)


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that is known only when the network runs."""

    number: int


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its arguments and its result; where an operation has several results, the first."""

    operation: Any  # of torch, a Convolution, or the callable that replaces either
    arguments: tuple[Any, ...]  # a Value stands for an input or an earlier step's result
    result: Value

    @property
    def name(self) -> Any:
        """The operation without its types, such as aten.relu; None for other callables."""
        return getattr(self.operation, "overloadpacket", None)

    @property
    def convolves(self) -> bool:
        """Whether the step is still a recorded convolution, transposed or not."""
        return isinstance(self.operation, Convolution)


@dataclass(frozen=True, slots=True)
class Convolution:
    """A recorded convolution; its step's argument is the input. Batch norms are folded in."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool
    output_padding: Sequence[int]
    groups: int
    activation: str = ""  # the activation that fusion has put behind the convolution


@dataclass(frozen=True, slots=True)
class Recording:
    """A network as a list of steps."""

    steps: Sequence[Step]
    inputs: Sequence[Value]
    outputs: Sequence[Value]


def record(module: nn.Module, *example: torch.Tensor) -> Recording:
    """Record one run of a module on an example: one tensor, or several that the module takes as a sequence.

    The module returns a sequence of tensors. Batch norms must be folded already. Raises RevdistError for an operation
    that cannot be fused.
    """
    with torch.inference_mode(mode=False), torch.no_grad(), _Recorder(example) as recorder:
        outputs = module(example[0] if len(example) == 1 else example)
    return Recording(recorder.steps, recorder.inputs, recorder.values_of(tuple(outputs)))


def values(arguments: Any) -> Iterator[Value]:
    """Yield all values in arguments, in nested lists too."""
    if isinstance(arguments, Value):
        yield arguments
    elif isinstance(arguments, tuple | list):
        for argument in arguments:
            yield from values(argument)


def filled(arguments: Any, known: Mapping[Value, Any]) -> Any:
    """Return the arguments with each value replaced by its entry in `known`."""
    if isinstance(arguments, Value):
        return known[arguments]
    if isinstance(arguments, tuple | list):
        return type(arguments)(filled(argument, known) for argument in arguments)
    return arguments


def narrow(plain: Convolution) -> bool:
    """Whether a convolution sees pictures or maps of few channels: it is cheap, and its rounding does most harm."""
    inputs, outputs = plain.weight.shape[1] * plain.groups, plain.weight.shape[0]
    return inputs <= PICTURE or max(inputs, outputs) <= _NARROW


def doubles(plain: Convolution) -> bool:
    """Whether this is a transposed convolution of 2x2 with stride 2, whose outputs do not overlap."""
    kernel, stride, plainly = tuple(plain.weight.shape[2:]), tuple(plain.stride), (plain.groups, *plain.dilation)
    alike = (plain.transposed, kernel, stride, plainly) == (True, (2, 2), (2, 2), (1, 1, 1))
    return alike and not any((*plain.padding, *plain.output_padding))


def flattened(plain: Convolution) -> Convolution:
    """Turn a transposed convolution that `doubles` into a 1x1 convolution with 4 * out channels: (2, 2, out).

    The caller puts those channels into squares of 2x2. Raises RevdistError for any other transposed convolution.
    """
    if not doubles(plain):
        kernel, stride = tuple(plain.weight.shape[2:]), tuple(plain.stride)
        raise RevdistError(f"engine: a transposed convolution of {kernel} with stride {stride} cannot be fused")
    weight = plain.weight.permute(2, 3, 1, 0).reshape(-1, plain.weight.shape[0], 1, 1)  # (4 * out, in, 1, 1)
    bias = None if plain.bias is None else plain.bias.repeat(4)
    return replace(plain, weight=weight, bias=bias, stride=(1, 1), transposed=False)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Records what torch does in this thread."""

    def __init__(self, example: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.inputs = [Value(number) for number in range(len(example))]
        self._known = {id(tensor): value for tensor, value in zip(example, self.inputs, strict=True)}
        self._alive: list[torch.Tensor] = list(example)  # an id is unique only while its tensor lives

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here. Else torch would import its compiler, which takes a second."""
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
        """Return the arguments with a Value in place of each tensor that is an input or a step's result."""
        if isinstance(arguments, tuple | list):
            return type(arguments)(self.values_of(argument) for argument in arguments)
        return self._known.get(id(arguments), arguments) if isinstance(arguments, torch.Tensor) else arguments
