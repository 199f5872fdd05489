"""A network compiled by OpenVINO, an optional dependency: the other runtime for processors.

It costs less than torch for each operation, which counts where operations are many and small. Networks are handed over
as ONNX, compiled once for each shape of their inputs, and share memory with torch. What goes before the teacher and
comes behind the student is in them too, because torch would do it with one thread (see `alone`), and because OpenVINO
hands over distances, which are small, faster than maps. Between the two networks maps are float32, not channels last:
OpenVINO takes 6 ms to give a map of 256x64x64 in that order.

B pictures, C channels, H W of a map, h w of the picture.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

from revdist import onnx_detector
from revdist.errors import RevdistError
from revdist.onnx_graph import FORMAT, OPSET, Graph, onnx_package
from revdist.recording import Recording

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names; the inputs and results of networks stay float32
MOST = 24  # compiled shapes that a network keeps: some sizes, each in all parts that a batch is run in

Shapes = tuple[tuple[int, ...], ...]  # of each input
ShapesOf = Callable[[int, tuple[int, int]], Shapes]  # for so many pictures of a size (h, w)


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
    return precision in HINTS and (precision == "float32" or HINTS[precision].upper() in there)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What torch computes in this thread meanwhile, it computes without threads of its own.

    Those would go on spinning for some milliseconds after each operation, on the processors that OpenVINO's need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Program(nn.Module):
    """A compiled network, which has no weights that torch sees."""

    def __init__(self, model: bytes, shapes_of: ShapesOf, *, precision: str, threads: int) -> None:
        """`model`: as ONNX; `shapes_of`: its inputs. `teacher` and `student` make both."""
        super().__init__()
        self._shapes_of = shapes_of
        self._model = _core().read_model(model)
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # or the services of two lines would be pinned to the same processors
        }
        self._compiled: dict[Shapes, _Compiled] = {}  # the one used last is the last
        self._choosing = threading.Lock()

    def forward(self, x: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """One tensor, or a sequence of as many as the network takes. Any number of threads may call it."""
        tensor = openvino_package().Tensor
        inputs = [each.contiguous() for each in ([x] if isinstance(x, torch.Tensor) else x)]
        compiled = self._for(tuple(tuple(each.shape) for each in inputs))
        outputs = tuple(torch.empty(shape) for shape in compiled.outputs)  # the caller's: the next call has others
        with compiled.running:
            for place, each in enumerate(inputs):
                compiled.request.set_input_tensor(place, tensor(each.numpy(), shared_memory=True))
            for place, each in enumerate(outputs):
                compiled.request.set_output_tensor(place, tensor(each.numpy(), shared_memory=True))
            compiled.request.infer()
        return outputs

    def prepare(self, count: int, size: tuple[int, int]) -> None:
        """Compile for so many pictures of a size (h, w), so that no call waits for it."""
        self._for(self._shapes_of(count, size))

    @property
    def shapes(self) -> list[Shapes]:
        """Those that it is compiled for."""
        return list(self._compiled)

    def _for(self, shapes: Shapes) -> _Compiled:
        """The network for these shapes. Where two threads compile for the same ones, the first one's is kept."""
        with self._choosing:
            found = self._compiled.pop(shapes, None)
            if found is not None:
                self._compiled[shapes] = found
                return found
        made = self._compile(shapes)  # takes a tenth of a second and more: meanwhile others may run
        with self._choosing:
            found = self._compiled.setdefault(shapes, made)
            while len(self._compiled) > MOST:
                del self._compiled[next(iter(self._compiled))]
        return found

    def _compile(self, shapes: Shapes) -> _Compiled:
        model = self._model.clone()  # shares the weights
        model.reshape({place: list(shape) for place, shape in enumerate(shapes)})
        compiled = _core().compile_model(model, "CPU", self._settings)
        return _Compiled(compiled.create_infer_request(), [tuple(each.shape) for each in compiled.outputs])


@dataclass(frozen=True, slots=True, eq=False)
class _Compiled:
    """A network for one set of shapes, which runs once at a time."""

    request: Any  # openvino.InferRequest
    outputs: list[tuple[int, ...]]  # shapes
    running: threading.Lock = field(default_factory=threading.Lock)


@functools.cache
def _core() -> Any:
    return openvino_package().Core()


def teacher(recorded: Recording, mean: torch.Tensor, std: torch.Tensor, *, precision: str, threads: int) -> Program:
    """uint8 (B, h, w, 3), normalised by mean and std (3,) -> three maps (B, C, H, W) float32.

    Raises RevdistError for an operation that has no translation.
    """
    graph = Graph()
    maps = graph.network(recorded, [onnx_detector.normalised(graph, "pixels", mean, std)])
    model = _written(graph, {"pixels": onnx_package().TensorProto.UINT8}, maps)
    return Program(model, lambda count, size: ((count, *size, 3),), precision=precision, threads=threads)


def student(recorded: Recording, inputs: Sequence[tuple[int, int]], *, precision: str, threads: int) -> Program:
    """The teacher's maps (B, C, H, W) float32 -> the distance of each to the student's own: (B, H, W) float32.

    `inputs`: (channels, stride) of each. Distances are computed in float32 in any precision: OpenVINO keeps what comes
    behind the last convolution in it. Raises RevdistError for an operation that has no translation.
    """
    graph = Graph()
    taught = [f"taught_{place}" for place in range(len(inputs))]
    pairs = zip(taught, graph.network(recorded, taught), strict=True)
    distances = [onnx_detector.distance(graph, *pair) for pair in pairs]
    model = _written(graph, dict.fromkeys(taught, onnx_package().TensorProto.FLOAT), distances)

    def shapes_of(count: int, size: tuple[int, int]) -> Shapes:
        return tuple((count, channels, size[0] // stride, size[1] // stride) for channels, stride in inputs)

    return Program(model, shapes_of, precision=precision, threads=threads)


def _written(graph: Graph, inputs: Mapping[str, int], outputs: Sequence[str]) -> bytes:
    """The graph as ONNX: `inputs` with four sides each, by name their ONNX type, and float32 `outputs`."""
    onnx = onnx_package()
    describe = onnx.helper.make_tensor_value_info
    results = [graph.add("Identity", each, results=[f"result_{place}"]) for place, each in enumerate(outputs)]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "network",
            [describe(name, kind, [None] * 4) for name, kind in inputs.items()],
            [describe(name, onnx.TensorProto.FLOAT, None) for name in results],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
    )
    content: bytes = made.SerializeToString()
    return content
