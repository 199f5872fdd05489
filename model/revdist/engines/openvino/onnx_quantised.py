"""A recorded network as ONNX in 8 bits: its convolutions between QuantizeLinear and DequantizeLinear.

The arithmetic is that of quantised.py, which runs on torch: a runtime turns these nodes into integer convolutions. A
string names a tensor of the graph, float32 unless it is called integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revdist.engines import recording
from revdist.engines.openvino.onnx_graph import Graph
from revdist.engines.processor import fused, quantised
from revdist.engines.processor.quantised import QuantParams, Ranges
from revdist.engines.recording import Recording, Step, Value, aten, values


class Network:
    """Adds a network to a graph. A map that an integer convolution reads exists once more, with quantised values."""

    def __init__(self, graph: Graph, recorded: Recording, ranges: Ranges, given: Sequence[QuantParams] = ()) -> None:
        """`given`: parameters of integer inputs. Raises RevdistError where the ranges are those of another network."""
        self._graph, self._recorded, self._given = graph, recorded, given
        self._steps = fused.joined(recorded)
        self._affine = quantised.affines(recorded, self._steps, ranges, given)
        self._exact: dict[Value, str] = {}
        self._rounded: dict[Value, str] = {}

    def add(self, inputs: Sequence[str]) -> list[str]:
        """Add the network and return its outputs; inputs are float32, or integers if there were `given` parameters."""
        for value, name in zip(self._recorded.inputs, inputs, strict=True):
            if self._given:
                self._exact[value] = self._rounded[value] = self._restored(name, self._affine[value])
            else:
                self._exact[value] = name
        for step in self._steps:
            self._exact[step.result] = self._convolution(step) if step.convolves else self._other(step)
        return [self._exact[value] for value in self._recorded.outputs]

    @property
    def inputs(self) -> list[str]:
        """The inputs of `add`, as float32."""
        return [self._exact[value] for value in self._recorded.inputs]

    def integers(self, outputs: Sequence[str]) -> tuple[list[str], tuple[QuantParams, ...]]:
        """Return the outputs of `add` as integers, and how those stand for values."""
        quant_params = tuple(self._affine[value] for value in self._recorded.outputs)
        return [self._quantised(name, affine) for name, affine in zip(outputs, quant_params, strict=True)], quant_params

    def _convolution(self, step: Step) -> str:
        source, *others = step.arguments
        integer = quantised.is_integer(step)
        plain = step.operation
        flat = recording.flattened(plain) if plain.transposed else plain
        result = self._graph.convolution(
            flat, self._near(source) if integer else self._exact[source], self._weight(flat) if integer else None
        )
        if plain.transposed:
            result = self._graph.squares(result)
        for added in others:
            result = self._graph.add("Add", result, self._near(added) if integer else self._exact[added])
        return self._graph.activated(result, plain.activation)

    def _weight(self, plain: recording.Convolution) -> str:
        integers, scales = quantised.of_weight(plain.weight.detach())
        zeros = self._graph.constant(np.zeros(len(scales), np.int8))
        of = self._graph.constant(integers.numpy()), self._graph.constant(scales.numpy()), zeros
        return self._graph.add("DequantizeLinear", *of, axis=0)

    def _other(self, step: Step) -> str:
        moves = step.name is aten.cat  # parts side by side and their result have the same scale
        names = {value: self._near(value) if moves else self._exact[value] for value in values(step.arguments)}
        return self._graph.translated(step, recording.filled(step.arguments, names))

    def _near(self, value: Value) -> str:
        """Return a map with its quantised values, as float32."""
        if value not in self._rounded:
            affine = self._affine[value]
            self._rounded[value] = self._restored(self._quantised(self._exact[value], affine), affine)
        return self._rounded[value]

    def _quantised(self, exact: str, affine: QuantParams) -> str:
        return self._graph.add("QuantizeLinear", exact, *self._scale(affine))

    def _restored(self, integers: str, affine: QuantParams) -> str:
        return self._graph.add("DequantizeLinear", integers, *self._scale(affine))

    def _scale(self, affine: QuantParams) -> tuple[str, str]:
        return self._graph.floats(affine.scale), self._graph.constant(np.array(affine.zero, np.uint8))
