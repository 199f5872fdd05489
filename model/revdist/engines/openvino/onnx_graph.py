"""An ONNX graph that grows, and recorded networks translated into it. None of torch's exporters is needed.

A string names a tensor of the graph: an input, a result or a constant. `onnx` is imported when a graph is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from revdist.engines.recording import Convolution, Recording, Step, aten, doubles, filled, flattened
from revdist.errors import RevdistError

OPSET, FORMAT = 17, 8  # both of 2022: runtimes on a production line are seldom new


def onnx_package() -> ModuleType:
    """Import the package `onnx`. Raises RevdistError that says how to install it."""
    try:
        import onnx
    except ImportError as error:
        raise RevdistError(f"a model cannot be exported without onnx: {error}", hint="pip install onnx") from error
    return onnx


class Graph:
    """Nodes and constants, in the order in which they were added.

    `apart` holds large constants by name, which are not written into the graph, for a runtime in the same process that
    can read them in place. To write half a gigabyte would take seconds and several times the memory.
    """

    def __init__(self, *, keep_from: int = 0) -> None:
        """`keep_from`: size in bytes from which constants are kept apart; 0 for none."""
        onnx = onnx_package()
        self._keep_from = keep_from
        self.apart: dict[str, npt.NDArray[Any]] = {}
        self._make_node, self._make_constant = onnx.helper.make_node, onnx.numpy_helper.from_array
        self.nodes: list[Any] = []  # onnx.NodeProto
        self.constants: list[Any] = []  # onnx.TensorProto

    def add(self, operation: str, *inputs: str, results: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node of an ONNX operation; return the name of its first result."""
        names = list(results) or [f"{operation}_{len(self.nodes)}"]
        self.nodes.append(self._make_node(operation, inputs, names, name=names[0], **attributes))
        return names[0]

    def floats(self, values: torch.Tensor | float) -> str:
        """Add a float32 constant."""
        return self.constant(torch.as_tensor(values, dtype=torch.float32).detach().numpy())

    def integers(self, values: Sequence[int]) -> str:
        """Add an int64 constant (n,), as ONNX takes axes, paddings and counts."""
        return self.constant(np.array(values, np.int64))

    def network(self, recorded: Recording, inputs: Sequence[str]) -> list[str]:
        """Add a recorded network that reads `inputs`; return its outputs. Raises RevdistError as `translated` does."""
        names = dict(zip(recorded.inputs, inputs, strict=True))
        for step in recorded.steps:
            arguments = filled(step.arguments, names)
            names[step.result] = self.translated(step, arguments)
        return [names[value] for value in recorded.outputs]

    def translated(self, step: Step, arguments: tuple[Any, ...]) -> str:
        """Add a recorded step; return its result. Raises RevdistError for an operation without translation."""
        if step.convolves:
            return self._convolved(step.operation, *arguments)
        if step.name not in _TRANSLATIONS:
            raise RevdistError(f"export: the operation {step.operation} has no translation to ONNX")
        return _TRANSLATIONS[step.name](self, *arguments)

    def convolution(self, plain: Convolution, x: str, weight: str | None = None) -> str:
        """Add a convolution that is not transposed, without its activation. `weight`: replaces its own weight."""
        weights = [weight or self.floats(plain.weight), *([] if plain.bias is None else [self.floats(plain.bias)])]
        return self.add("Conv", x, *weights, **_layout(plain))

    def squares(self, x: str) -> str:
        """Put channels (2, 2, out) into squares of 2x2 locations, behind a convolution of `recording.flattened`."""
        return self.add("DepthToSpace", x, blocksize=2, mode="DCR")

    def activated(self, x: str, name: str) -> str:
        """Add an activation; `name` as in packed.py, empty for none."""
        if not name:
            return x
        return self.add("Relu", x) if name == "relu" else self.add("Clip", x, self.floats(0.0), self.floats(6.0))

    def _convolved(self, plain: Convolution, x: str) -> str:
        if not plain.transposed:
            return self.convolution(plain, x)
        if doubles(plain):  # OpenVINO runs a 1x1 convolution and a move of its outputs faster
            return self.squares(self.convolution(flattened(plain), x))
        weights = [self.floats(tensor) for tensor in (plain.weight, plain.bias) if tensor is not None]
        extra = list(plain.output_padding)
        return self.add("ConvTranspose", x, *weights, output_padding=extra, **_layout(plain))

    def constant(self, values: npt.NDArray[Any]) -> str:
        """Add a constant of any type."""
        name = f"constant_{len(self.constants) + len(self.apart)}"
        values = np.asarray(values, order="C")
        if self._keep_from and values.nbytes >= self._keep_from:
            self.apart[name] = values
        else:
            self.constants.append(self._make_constant(values, name))
        return name


def _layout(plain: Convolution) -> dict[str, Any]:
    return {
        "strides": list(plain.stride),
        "pads": [*plain.padding, *plain.padding],
        "dilations": list(plain.dilation),
        "group": plain.groups,
    }


def _pad(graph: Graph, x: str, sides: Sequence[int], value: float = 0.0) -> str:
    """`sides` as in torch: before and after the last axis, then before and after the axis in front of it."""
    rest = [0] * (4 - len(sides) // 2)
    before, after = ([*rest, *reversed(sides[begin::2])] for begin in (0, 1))
    return graph.add("Pad", x, graph.integers([*before, *after]), graph.floats(value))


def _max_pool(
    graph: Graph, x: str, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0), *more: Any
) -> str:
    if more:
        raise RevdistError("export: max-pooling with dilation or ceil_mode has no translation to ONNX")
    return graph.add("MaxPool", x, kernel_shape=list(kernel), strides=list(stride or kernel), pads=[*padding, *padding])


def _add(graph: Graph, one: Any, other: Any) -> str:
    if not (isinstance(one, str) and isinstance(other, str)):
        raise RevdistError("export: the addition of a number has no translation to ONNX")
    return graph.add("Add", one, other)


def _concatenate(graph: Graph, parts: Sequence[str], axis: int = 0) -> str:
    return graph.add("Concat", *parts, axis=axis)


def _clip(graph: Graph, x: str, low: float = -1.0, high: float = 1.0) -> str:
    return graph.add("Clip", x, graph.floats(low), graph.floats(high))


def _zeros(graph: Graph, x: str) -> str:
    """Add zeros in the shape of x, for any batch size; float32, which is ONNX's default."""
    return graph.add("ConstantOfShape", graph.add("Shape", x))


_TRANSLATIONS: dict[Any, Callable[..., str]] = {
    aten.constant_pad_nd: _pad,
    aten.max_pool2d_with_indices: _max_pool,
    aten.relu: lambda graph, x: graph.add("Relu", x),
    aten.hardtanh: _clip,
    aten.add: _add,
    aten.cat: _concatenate,
    aten.zeros_like: _zeros,
    aten.detach: lambda _graph, x: x,
}
