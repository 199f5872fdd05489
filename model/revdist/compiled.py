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

from revdist import onnx_detector, onnx_quantised
from revdist.errors import RevdistError
from revdist.onnx_graph import FORMAT, OPSET, Graph, onnx_package
from revdist.quantised import Affine, Ranges
from revdist.recording import Recording

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of OpenVINO, for what is not integers
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
    needed = {"bfloat16": "BF16", "int8": "INT8"}
    return precision in HINTS and (precision == "float32" or needed[precision] in there)


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


@dataclass(frozen=True, slots=True)
class Ways:
    """How OpenVINO is to run a network."""

    precision: str
    threads: int

    def settings(self) -> dict[str, object]:
        """In OpenVINO's words."""
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,  # or the services of two lines would be pinned to the same processors
        }


class Program(nn.Module):
    """A compiled network, which has no weights that torch sees."""

    def __init__(self, model: bytes, shapes_of: ShapesOf, ways: Ways, results: Sequence[Affine] = ()) -> None:
        """`model`: as ONNX; `shapes_of`: its inputs; `results`: how integers that it gives stand for values.

        `teacher` and `student` make all of them.
        """
        super().__init__()
        self.results = tuple(results)
        self._shapes_of = shapes_of
        self._model = _core().read_model(model)
        self._settings = ways.settings()
        self._compiled: dict[Shapes, _Compiled] = {}  # the one used last is the last
        self._choosing = threading.Lock()

    def forward(self, x: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """One tensor, or a sequence of as many as the network takes. Any number of threads may call it."""
        tensor = openvino_package().Tensor
        inputs = [each.contiguous() for each in ([x] if isinstance(x, torch.Tensor) else x)]
        compiled = self._for(tuple(tuple(each.shape) for each in inputs))
        kind = torch.uint8 if self.results else torch.float32
        outputs = tuple(
            torch.empty(shape, dtype=kind) for shape in compiled.outputs
        )  # the caller's: the next call has others
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


def teacher(
    recorded: Recording, mean: torch.Tensor, std: torch.Tensor, ways: Ways, ranges: Ranges | None = None
) -> Program:
    """uint8 (B, h, w, 3), normalised by mean and std (3,) -> three maps (B, C, H, W): float32, by `ranges` uint8.

    Raises RevdistError for an operation that has no translation.
    """
    graph, types = Graph(), onnx_package().TensorProto
    picture = onnx_detector.normalised(graph, "pixels", mean, std)
    results: tuple[Affine, ...] = ()
    if ranges is None:
        maps = graph.network(recorded, [picture])
    else:
        network = onnx_quantised.Network(graph, recorded, ranges)
        maps, results = network.integers(network.add([picture]))
    model = _written(graph, {"pixels": types.UINT8}, maps, types.UINT8 if results else types.FLOAT)
    return Program(model, lambda count, size: ((count, *size, 3),), ways, results)


def student(
    recorded: Recording,
    inputs: Sequence[tuple[int, int]],
    ways: Ways,
    ranges: Ranges | None = None,
    given: Sequence[Affine] = (),
) -> Program:
    """The teacher's maps (B, C, H, W) -> the distance of each to the student's own: (B, H, W) float32.

    `inputs`: (channels, stride) of each; they are float32, or with `ranges` uint8 that stand for values as `given`.
    Distances are computed in float32 in any precision: OpenVINO keeps what comes behind the last convolution in it.
    Raises RevdistError for an operation that has no translation.
    """
    graph, types = Graph(), onnx_package().TensorProto
    names = [f"taught_{place}" for place in range(len(inputs))]
    if ranges is None:
        taught, rebuilt = names, graph.network(recorded, names)
    else:
        network = onnx_quantised.Network(graph, recorded, ranges, given)
        rebuilt = network.add(names)
        taught = network.inputs
    distances = [onnx_detector.distance(graph, *pair) for pair in zip(taught, rebuilt, strict=True)]
    model = _written(graph, dict.fromkeys(names, types.FLOAT if ranges is None else types.UINT8), distances)

    def shapes_of(count: int, size: tuple[int, int]) -> Shapes:
        return tuple((count, channels, size[0] // stride, size[1] // stride) for channels, stride in inputs)

    return Program(model, shapes_of, ways)


def _written(graph: Graph, inputs: Mapping[str, int], outputs: Sequence[str], kind: int = 1) -> bytes:
    """The graph as ONNX: `inputs` with four sides each, by name their ONNX type, and `outputs` of a `kind`: float32."""
    onnx = onnx_package()
    describe = onnx.helper.make_tensor_value_info
    results = [graph.add("Identity", each, results=[f"result_{place}"]) for place, each in enumerate(outputs)]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "network",
            [describe(name, each, [None] * 4) for name, each in inputs.items()],
            [describe(name, kind, None) for name in results],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
    )
    content: bytes = made.SerializeToString()
    return content
