"""An ONNX graph that grows, and recorded networks translated into it. None of torch's exporters is needed.

A string stands for a tensor of the graph: an input, what a node gives, or a constant. `onnx` is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from revdist.errors import RevdistError
from revdist.recording import Convolution, Recording, aten, doubles, filled, flattened

OPSET, FORMAT = 17, 8  # of 2022: runtimes on a line are seldom new


def onnx_package() -> ModuleType:
    """The package `onnx`. Raises RevdistError that says how to install it."""
    try:
        import onnx
    except ImportError as error:
        raise RevdistError(
            f"a model cannot be exported without onnx: {error}", hint="pip install 'rejectd[onnx]'"
        ) from error
    return onnx


class Graph:
    """Nodes and constants, in the order in which they were added."""

    def __init__(self) -> None:
        onnx = onnx_package()
        self._make_node, self._make_constant = onnx.helper.make_node, onnx.numpy_helper.from_array
        self.nodes: list[Any] = []  # onnx.NodeProto
        self.constants: list[Any] = []  # onnx.TensorProto

    def add(self, operation: str, *inputs: str, results: Sequence[str] = (), **attributes: Any) -> str:
        """A node of an ONNX operation, which names its results; the first of them."""
        names = list(results) or [f"{operation}_{len(self.nodes)}"]
        self.nodes.append(self._make_node(operation, inputs, names, name=names[0], **attributes))
        return names[0]

    def floats(self, values: torch.Tensor | float) -> str:
        """A float32 constant."""
        return self._constant(torch.as_tensor(values, dtype=torch.float32).detach().numpy())

    def integers(self, values: Sequence[int]) -> str:
        """An int64 constant (n,): what ONNX wants of axes, paddings and counts."""
        return self._constant(np.array(values, np.int64))

    def network(self, recorded: Recording, inputs: Sequence[str]) -> list[str]:
        """Add a recorded network that reads `inputs`; its outputs. Raises RevdistError for what has no translation."""
        known = dict(zip(recorded.inputs, inputs, strict=True))
        for step in recorded.steps:
            arguments = filled(step.arguments, known)
            if isinstance(step.operation, Convolution):
                known[step.result] = _convolution(self, step.operation, *arguments)
            elif step.name in _TRANSLATIONS:
                known[step.result] = _TRANSLATIONS[step.name](self, *arguments)
            else:
                raise RevdistError(f"export: the operation {step.operation} has no translation to ONNX")
        return [known[value] for value in recorded.outputs]

    def _constant(self, values: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._make_constant(np.asarray(values, order="C"), name))
        return name


def _convolution(graph: Graph, plain: Convolution, x: str) -> str:
    weight, bias = plain.weight, plain.bias
    layout: dict[str, Any] = {
        "strides": list(plain.stride),
        "pads": [*plain.padding, *plain.padding],
        "dilations": list(plain.dilation),
        "group": plain.groups,
    }
    if not plain.transposed:
        return graph.add("Conv", x, *_weights(graph, weight, bias), **layout)
    if doubles(plain):  # as 1x1 and a move of its outputs, which OpenVINO runs faster; DCR: channels are (2, 2, out)
        flat = flattened(plain)
        wide = graph.add("Conv", x, *_weights(graph, flat.weight, flat.bias))
        return graph.add("DepthToSpace", wide, blocksize=2, mode="DCR")
    extra = list(plain.output_padding)
    return graph.add("ConvTranspose", x, *_weights(graph, weight, bias), output_padding=extra, **layout)


def _weights(graph: Graph, weight: torch.Tensor, bias: torch.Tensor | None) -> list[str]:
    return [graph.floats(each) for each in (weight, bias) if each is not None]


def _pad(graph: Graph, x: str, sides: Sequence[int], value: float = 0.0) -> str:
    """torch's sides: before and after of the last axis, then of the one before it."""
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
    """As large as x, whatever its batch; float32, as ONNX has it where nothing is said."""
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
