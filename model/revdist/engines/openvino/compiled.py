"""A network compiled by OpenVINO, the runtime for processors; imported when it is used first, so a GPU needs none.

OpenVINO costs less than torch for each operation, which counts where operations are many and small. Here a detector is
one network, from pixels to the distances of the three scales: to hand over the teacher's maps took OpenVINO a fifth of
the time of efficientnet_lite0. So each student has a teacher of its own, which costs memory and time. But pictures go
through one at a time, or side by side in lanes (lanes.py), which is fastest, so one pass of a shared teacher would save
nothing. OpenVINO gets networks as ONNX, compiles them once for each shape of their input, and shares memory with torch.

In lanes each picture has one thread: on two processors 1.13 times as many pictures go through efficientnet_lite0. That
needs a second compiled network, with weights of its own. A WideResNet50-2 gains next to nothing by it and would take
0.4 GB more for each product, so in so large a network pictures go one after the other, each with all threads.

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

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # OpenVINO's names; int8: for what is no integer
ONCE_FROM = 100 << 20  # bytes of weights: so large a network is compiled only once, for all threads
MOST = 24  # largest number of compiled shapes that a network keeps
PIXELS = "pixels"
_LARGE = 1 << 12  # bytes: OpenVINO reads constants from this size on in place, without a copy

Shape = tuple[int, ...]  # (B, h, w, 3)


def openvino_package() -> ModuleType:
    """Import the package `openvino`. Raises RevdistError that says how to install the package and what is missing.

    OpenVINO's telemetry is kept out: it reports to a host on the Internet from a forked process, which can end in a
    deadlock where another thread reads stdin.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails then
    try:
        import onnx  # noqa: F401  # networks are handed over in its format
        import openvino
    except ImportError as error:
        raise RevdistError(
            f"engine: openvino needs packages that are not here: {error}", hint="pip install openvino onnx"
        ) from error
    package: ModuleType = openvino
    return package


def installed() -> bool:
    """Whether OpenVINO can be imported, with what it needs."""
    try:
        openvino_package()
    except RevdistError:
        return False
    return True


def computes(precision: str) -> bool:
    """Whether OpenVINO supports a precision on this processor. Raises RevdistError where OpenVINO is not installed."""
    there = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    needed = {"bfloat16": "BF16", "int8": "INT8"}
    return precision in HINTS and (precision == "float32" or needed[precision] in there)


@dataclass(frozen=True, slots=True)
class Ways:
    """How OpenVINO is to run a network."""

    precision: str
    threads: int

    def settings(self, *, side_by_side: bool) -> dict[str, object]:
        """Return OpenVINO's settings. `side_by_side`: each thread runs a picture of its own."""
        how = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.threads}
        return (how if side_by_side else {"PERFORMANCE_HINT": "LATENCY"}) | {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,  # or the services of two lines would be pinned to the same processors
        }


class Program(nn.Module):
    """A compiled network, which has no weights that torch sees."""

    def __init__(self, graph: Graph, outputs: Sequence[str], ways: Ways) -> None:
        """`graph`: computes these outputs from PIXELS."""
        super().__init__()
        self._model, self._weights = _read(graph, outputs), graph.apart  # whose memory the model shares
        self._ways = ways
        self._once = sum(weight.nbytes for weight in graph.apart.values()) >= ONCE_FROM
        self._compiled: dict[tuple[Shape, bool], _Compiled] = {}  # by shape and side_by_side; the last used last
        self._choosing = threading.Lock()

    def forward(self, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Take one tensor uint8 (B, h, w, 3), return its outputs, float32: three distances (B, H, W), residuals.

        Any thread may call this.
        """
        tensor = openvino_package().Tensor
        (pixels,) = (batch.contiguous() for batch in seen)
        compiled = self._for(tuple(pixels.shape), side_by_side=in_lane())
        outputs = tuple(torch.empty(shape) for shape in compiled.outputs)  # new for each call: the caller keeps them
        request = compiled.requests.get()  # one for each lane; further callers wait until one is put back
        try:
            request.set_input_tensor(0, tensor(pixels.numpy(), shared_memory=True))
            for place, output in enumerate(outputs):
                request.set_output_tensor(place, tensor(output.numpy(), shared_memory=True))
            request.infer()
        finally:
            compiled.requests.put(request)
        return outputs

    def prepare(self, count: int, size: tuple[int, int], *, side_by_side: bool = False) -> None:
        """Compile for `count` pictures of a size (h, w), so that no call waits. `side_by_side`: for calls in lanes."""
        self._for((count, *size, 3), side_by_side=side_by_side)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes that the network is compiled for."""
        return [shape for shape, _ in self._compiled]

    def _for(self, shape: Shape, *, side_by_side: bool) -> _Compiled:
        """Return the network for this shape. If two threads compile for the same shape, the first result is kept."""
        key = shape, side_by_side and not self._once
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
    """A network that is compiled for one shape."""

    requests: SimpleQueue[Any]  # openvino.InferRequest that are free; each runs once at a time
    outputs: list[tuple[int, ...]]  # shapes (B, H, W); of residuals (B, C, H, W)


@functools.cache
def _core() -> Any:
    """Return OpenVINO's one interface to devices.

    No verdict waits for a file: networks are neither mapped into memory from a file nor kept in a cache on the disk.
    """
    core = openvino_package().Core()
    core.set_property({"ENABLE_MMAP": False, "CACHE_DIR": ""})
    return core


class Unchanged(nn.Module):
    """Stands in for a teacher and returns the pictures unchanged."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        return (pixels,)


def detector(
    networks: tuple[Recording, Recording],
    normalisation: tuple[torch.Tensor, torch.Tensor],
    ways: Ways,
    ranges: tuple[Ranges, Ranges] | None = None,
    residuals: Sequence[int] = (),
) -> Program:
    """Make one network of normalisation, teacher, student and distances: pixels -> three distances.

    The residuals (B, C, H, W) of the scales `residuals` follow, for the combined score.

    `normalisation`: mean and std (3,); `ranges`: of both networks' maps, for int8. Distances are computed in float32 in
    any precision, because OpenVINO keeps all operations behind the last convolution in float32. Raises RevdistError for
    an operation that has no translation.
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
    pairs = list(zip(taught, rebuilt, strict=True))
    outputs = [onnx_detector.distance(graph, *pair) for pair in pairs]
    outputs += [onnx_detector.residual(graph, *pairs[scale - 1]) for scale in residuals]
    return Program(graph, outputs, ways)


def _read(graph: Graph, outputs: Sequence[str]) -> Any:
    """Convert the graph to OpenVINO's model. Constants that are kept apart are inputs of the ONNX model meanwhile."""
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
