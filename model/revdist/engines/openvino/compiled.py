"""A network compiled by OpenVINO, an optional dependency: the other runtime for processors.

It costs less than torch for each operation, which counts where operations are many and small. Here a detector is one
network, from pixels to the distances of the three scales: to hand over the teacher's maps took OpenVINO as long as a
fifth of efficientnet_lite0. So each student has a teacher of its own, in memory and in time; but pictures go through
one at a time, or side by side in lanes (lanes.py), which is fastest, and so one pass of a shared teacher would save
nothing. Networks are handed over as ONNX, compiled once for each shape of their input, and share memory with torch.

Side by side each picture has one thread: on two processors 1.13 times as many go through efficientnet_lite0.

B pictures, H W a map, h w the picture.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import torch
from torch import nn

from revdist.engines.lanes import in_lane
from revdist.engines.openvino import onnx_detector, onnx_quantised
from revdist.engines.openvino.onnx_graph import FORMAT, OPSET, Graph, onnx_package
from revdist.engines.processor import bfloat16
from revdist.engines.processor.quantised import Ranges
from revdist.engines.recording import Recording
from revdist.errors import RevdistError

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of OpenVINO, for what is not integers
MOST = 24  # compiled shapes that a network keeps
PIXELS = "pixels"
_LARGE = 1 << 12  # bytes of a constant that OpenVINO reads where it lies

Shape = tuple[int, ...]  # (B, h, w, 3)


def openvino_package() -> ModuleType:
    """The package `openvino`. Raises RevdistError that says how to install it, and what it needs.

    Its telemetry is not let in: it reports to a host on the Internet, from a forked process, which can end in a
    deadlock where another thread reads stdin.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails then
    try:
        import onnx  # noqa: F401  # networks are handed over in its format
        import openvino
    except ImportError as error:
        raise RevdistError(
            f"engine: openvino needs packages that are not here: {error}", hint="pip install 'rejectd[openvino]'"
        ) from error
    package: ModuleType = openvino
    return package


def computes(precision: str) -> bool:
    """Whether OpenVINO has what a precision needs on this processor. Raises RevdistError where it is not installed."""
    there = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    needed = {"bfloat16": "BF16", "int8": "INT8"}
    return precision in HINTS and (precision == "float32" or needed[precision] in there)


@dataclass(frozen=True, slots=True)
class Ways:
    """How OpenVINO is to run a network."""

    precision: str
    threads: int

    def settings(self, *, side_by_side: bool) -> dict[str, object]:
        """In OpenVINO's words. `side_by_side`: each thread for a picture of its own."""
        how = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.threads}
        return (how if side_by_side else {"PERFORMANCE_HINT": "LATENCY"}) | {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,  # or the services of two lines would be pinned to the same processors
        }


class Program(nn.Module):
    """A compiled network, which has no weights that torch sees."""

    def __init__(self, graph: Graph, outputs: Sequence[str], ways: Ways) -> None:
        """`graph`: from PIXELS to these outputs."""
        super().__init__()
        self._model, self._weights = _read(graph, outputs), graph.apart  # whose memory the model shares
        self._ways = ways
        self._compiled: dict[tuple[Shape, bool], _Compiled] = {}  # and whether side by side; the last used is the last
        self._choosing = threading.Lock()

    def forward(self, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The pictures alone, uint8 (B, h, w, 3) -> three distances (B, H, W) float32. For any number of threads."""
        tensor = openvino_package().Tensor
        (pixels,) = (batch.contiguous() for batch in seen)
        compiled = self._for(tuple(pixels.shape), side_by_side=in_lane())
        outputs = tuple(torch.empty(shape) for shape in compiled.outputs)  # the caller's: the next call has others
        request = compiled.requests.get()  # there is one for each lane; others wait until it is given back
        try:
            request.set_input_tensor(0, tensor(pixels.numpy(), shared_memory=True))
            for place, output in enumerate(outputs):
                request.set_output_tensor(place, tensor(output.numpy(), shared_memory=True))
            request.infer()
        finally:
            compiled.requests.put(request)
        return outputs

    def prepare(self, count: int, size: tuple[int, int], *, side_by_side: bool = False) -> None:
        """Compile for so many pictures of a size (h, w), so that no call, or none in a lane, waits for it."""
        self._for((count, *size, 3), side_by_side=side_by_side)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes that the network is compiled for."""
        return [shape for shape, _ in self._compiled]

    def _for(self, shape: Shape, *, side_by_side: bool) -> _Compiled:
        """The network for this shape. Where two threads compile for the same one, the first one's is kept."""
        key = shape, side_by_side
        with self._choosing:
            kept = self._compiled.pop(key, None)
            if kept is not None:
                self._compiled[key] = kept
                return kept
        new = self._compile(*key)  # takes a tenth of a second and more: meanwhile others may run
        with self._choosing:
            kept = self._compiled.setdefault(key, new)
            while len(self._compiled) > MOST:
                del self._compiled[next(iter(self._compiled))]
        return kept

    def _compile(self, shape: Shape, side_by_side: bool) -> _Compiled:
        model = self._model.clone()  # shares the weights
        model.reshape({0: list(shape)})
        compiled = _core().compile_model(model, "CPU", self._ways.settings(side_by_side=side_by_side))
        requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self._ways.threads if side_by_side else 1):
            requests.put(compiled.create_infer_request())
        return _Compiled(requests, [tuple(output.shape) for output in compiled.outputs])


@dataclass(frozen=True, slots=True, eq=False)
class _Compiled:
    """A network for one shape."""

    requests: SimpleQueue[Any]  # openvino.InferRequest that are free; each runs once at a time
    outputs: list[tuple[int, ...]]  # shapes (B, H, W)


@functools.cache
def _core() -> Any:
    return openvino_package().Core()


class Unchanged(nn.Module):
    """In the place of a teacher: the pictures go on as they are."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        return (pixels,)


def detector(
    networks: tuple[Recording, Recording],
    normalisation: tuple[torch.Tensor, torch.Tensor],
    ways: Ways,
    ranges: tuple[Ranges, Ranges] | None = None,
) -> Program:
    """Teacher and student, with what goes before and comes behind: pixels -> three distances.

    `normalisation`: mean and std (3,); `ranges`: of both networks' maps, for int8. Distances are computed in float32 in
    any precision: OpenVINO keeps what comes behind the last convolution in it. Raises RevdistError for an operation
    that has no translation.
    """
    if ways.precision == "bfloat16":
        networks = bfloat16.with_sums(networks[0]), bfloat16.with_sums(networks[1])
    graph, (teacher, student) = Graph(keep_from=_LARGE), networks
    picture = onnx_detector.normalised(graph, PIXELS, *normalisation)
    if ranges is None:
        taught = graph.network(teacher, [picture])
        rebuilt = graph.network(student, taught)
    else:
        first = onnx_quantised.Network(graph, teacher, ranges[0])
        taught, quant_params = first.integers(first.add([picture]))
        second = onnx_quantised.Network(graph, student, ranges[1], quant_params)
        rebuilt, taught = second.add(taught), second.inputs
    pairs = zip(taught, rebuilt, strict=True)
    return Program(graph, [onnx_detector.distance(graph, *pair) for pair in pairs], ways)


def _read(graph: Graph, outputs: Sequence[str]) -> Any:
    """The graph of PIXELS as OpenVINO's model. Constants that are kept apart are inputs on the way there."""
    onnx, openvino = onnx_package(), openvino_package()
    describe, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(values.dtype) for name, values in graph.apart.items()}
    onnx_model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "detector",
            [
                describe(PIXELS, types.UINT8, [None] * 4),
                *(describe(name, kinds[name], values.shape) for name, values in graph.apart.items()),
            ],
            [describe(name, types.FLOAT, None) for name in outputs],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
    )
    model = _core().read_model(onnx_model.SerializeToString())
    for parameter in model.get_parameters():
        if parameter.get_friendly_name() in graph.apart:
            values = graph.apart[parameter.get_friendly_name()]
            constant = openvino.op.Constant(values, shared_memory=True)
            for reader in parameter.output(0).get_target_inputs():
                reader.replace_source_output(constant.output(0))
            model.remove_parameter(parameter)
    return model
