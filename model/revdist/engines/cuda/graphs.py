"""CUDA graphs: the kernels of a small batch are recorded once and then launched as a whole.

By arithmetic, not measured: a detector is some 300 kernels, and a processor needs about 4 us to launch one. A
WideResNet50-2 computes 61 GFLOP for a picture of 256x256: at 400 TFLOP/s (less than half of an H100's peak in bfloat16)
that is 0.15 ms, so that up to eight pictures wait for their launches. A small GPU of 30 TFLOP/s computes longer than
the launches take, even for one picture.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

log = logging.getLogger(__name__)

MOST = 8  # pictures: for larger batches graphs would only take memory
_CLOSE = 0.02  # relative to the largest value: how far a graph's outputs may be from the function's

Function = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]
Shapes = tuple[torch.Size, ...]
Record = Callable[[Callable[[], Sequence[torch.Tensor]]], tuple[Callable[[], None], Sequence[torch.Tensor]]]


@dataclass(frozen=True, slots=True)
class Graph:
    """A recorded function: the tensors that it reads, and the tensors that each replay fills."""

    given: Sequence[torch.Tensor]
    replay: Callable[[], None]
    found: Sequence[torch.Tensor]


class Graphs:
    """Runs functions of tensors: as a graph where one was recorded for arguments of these shapes.

    One thread runs functions; other threads may prepare graphs meanwhile. Graphs share the memory between their inputs
    and outputs, so they run one after the other, on one stream. Graphs are freed with their owner.
    """

    def __init__(self, record: Record | None) -> None:
        """`record`: records a function, see `recorder`; None where there are no graphs."""
        self._record = record
        self._graphs: weakref.WeakKeyDictionary[nn.Module, dict[Shapes, Graph]] = weakref.WeakKeyDictionary()
        self._given: dict[Shapes, list[torch.Tensor]] = {}  # the shared inputs of all graphs with these shapes
        self._running = threading.Lock()

    @property
    def recording(self) -> bool:
        """Whether `prepare` does anything."""
        return self._record is not None

    def __call__(
        self, owner: nn.Module, function: Function, given: Sequence[torch.Tensor], *, keep: bool = True
    ) -> Sequence[torch.Tensor]:
        """Call the owner's function. Without `keep`, the result is valid until the owner's next call only."""
        graph = self._graphs[owner].get(_shapes(given)) if owner in self._graphs else None
        if graph is None:
            return function(given)
        with self._running:
            for stored, tensor in zip(graph.given, given, strict=True):
                stored.copy_(tensor)
            graph.replay()
            return [output.clone() for output in graph.found] if keep else graph.found

    def prepare(self, owner: nn.Module, function: Function, given: Sequence[torch.Tensor]) -> None:
        """Record the owner's function for arguments of these shapes, unless there is a graph already.

        If recording fails, or a graph computes something else, a warning says so and nothing is recorded any more.
        """
        shapes = _shapes(given)
        if self._record is None or shapes in self._graphs.get(owner, {}):
            return
        function(given)  # outside of the lock: libraries set themselves up for new shapes
        try:
            with self._running:
                inputs = self._given.setdefault(shapes, [tensor.clone() for tensor in given])
                for stored, tensor in zip(inputs, given, strict=True):
                    stored.copy_(tensor)
                expected = function(inputs)
                graph = Graph(inputs, *self._record(lambda: function(inputs)))
                graph.replay()
                for computed, replayed in zip(expected, graph.found, strict=True):
                    _check(computed.float(), replayed.float())
        except RuntimeError as error:
            self._record = None
            log.warning("the GPU launches each kernel: recording CUDA graphs failed: %s", error)
        else:
            self._graphs.setdefault(owner, {})[shapes] = graph


def recorder(device: torch.device) -> Record | None:
    """Return a recorder of graphs for a device; None where the device has no graphs."""
    return _Recorder(device) if device.type == "cuda" and torch.cuda.is_available() else None


class _Recorder:
    """Records graphs on a stream of its own, into memory that all its graphs share."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types here
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(
        self, function: Callable[[], Sequence[torch.Tensor]]
    ) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        """Run the function once, because libraries set themselves up for each stream, then record it."""
        torch.cuda.synchronize(self._stream.device)  # no graph runs meanwhile
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            function()
            self._stream.synchronize()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                outputs = function()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # this call fails too where recording failed
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph.replay, outputs


def _shapes(given: Sequence[torch.Tensor]) -> Shapes:
    return tuple(tensor.shape for tensor in given)


def _check(wanted: torch.Tensor, found: torch.Tensor) -> None:
    """Raises RuntimeError for values that differ by more than rounding."""
    apart = float((wanted - found).abs().max())
    if not apart <= _CLOSE * float(wanted.abs().max()):
        raise RuntimeError(f"a graph computes otherwise than its function, by {apart:.3g}")
