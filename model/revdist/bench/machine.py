"""Measures what a machine can do: the rates of its matrix products and single convolutions, in operations a second.

A network in the same run is compared with these rates: it cannot be faster, however well the rest is written.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from revdist.bench.workload import Work
from revdist.engines import recording
from revdist.engines.backend import Backend
from revdist.engines.processor import packed, quantised
from revdist.engines.processor.quantised import QuantParams

MATMUL, CONVOLUTION = "matmul", "convolution"
_SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices: larger matrices have the same rate
_TIMES = {"cpu": 1, "cuda": 20}  # calls of a convolution in a probe: on a GPU one call ends before it is waited for
_EACH = 3  # convolutions of each kernel that are tried
_KERNELS = ((3, 3), (1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One operation whose rate is measured."""

    precision: str
    kind: str  # MATMUL or CONVOLUTION
    what: str
    operations: int
    call: Callable[[], object]


def probes(target: Backend, work: Sequence[Work], pictures: int) -> Iterator[Probe]:
    """Yield a matrix product, and a network's largest 3x3 and 1x1 convolutions for this many pictures at once."""
    side, times = _SIDE[target.device.type], _TIMES[target.device.type]
    product = _matmul(target, side)
    if product is not None:
        shape = f"{side}x{side}x{side}"
        yield Probe(precision=target.precision, kind=MATMUL, what=shape, operations=2 * side**3, call=product)
    for layer in largest(work):
        yield Probe(
            precision=target.precision,
            kind=CONVOLUTION,
            what=f"{layer}, {pictures} at once",
            operations=layer.operations * pictures * times,
            call=_repeated(_convolution(target, layer, pictures), times),
        )


def _repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    return lambda: [call() for _ in range(times)]


def largest(work: Sequence[Work]) -> list[Work]:
    """Return the plain 3x3 and 1x1 convolutions of stride 1 with the most operations, one for each shape."""
    plain: dict[str, Work] = {}
    for layer in work:
        layout = tuple(layer.convolution.stride), layer.convolution.transposed, layer.convolution.groups
        if layout == ((1, 1), False, 1):
            plain[str(layer)] = layer
    ordered = sorted(plain.values(), key=lambda layer: -layer.operations)
    return [
        layer
        for kernel in _KERNELS
        for layer in [candidate for candidate in ordered if candidate.kernel == kernel][:_EACH]
    ]


def _matmul(target: Backend, side: int) -> Callable[[], object] | None:
    """Return a matrix product to call; None for int8 where this torch has no such product."""
    if target.precision == "int8":
        if not hasattr(torch, "_int_mm"):
            return None
        integers = torch.randint(-100, 100, (side, side), dtype=torch.int8)
        return lambda: torch._int_mm(integers, integers)
    left, right = (torch.randn(side, side, device=target.device).to(target.dtype) for _ in range(2))
    result = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=result)


def _convolution(target: Backend, work: Work, pictures: int) -> Callable[[], object]:
    """Return the convolution to call, run as an engine for this target runs it."""
    shape, outputs = work.convolution.weight.shape, work.convolution.weight.shape[0]
    plain = replace(work.convolution, weight=0.05 * torch.randn(shape), bias=torch.zeros(outputs))
    x = torch.rand(pictures, work.channels, work.rows, work.columns)
    if target.precision == "int8":
        integers = (255 * x).to(torch.uint8).contiguous(memory_format=torch.channels_last)
        quick = quantised.Convolution(plain, QuantParams.of(0.0, 1.0), QuantParams.of(-4.0, 4.0))
        return lambda: quick(integers)
    x = x.to(target.device, target.dtype).contiguous(memory_format=torch.channels_last)
    if target.fuses:
        fast = packed.Convolution(plain, target.dtype)
        return lambda: fast(x)
    return _module_like(plain, x)


def _module_like(plain: recording.Convolution, x: torch.Tensor) -> Callable[[], object]:
    assert plain.bias is not None
    weight = plain.weight.to(x.device, x.dtype).contiguous(memory_format=torch.channels_last)
    bias = plain.bias.to(x.device, x.dtype)
    stride, padding = list(plain.stride), list(plain.padding)
    return lambda: F.conv2d(x, weight, bias, stride, padding)


def describe() -> dict[str, Any]:
    """Describe the machine and torch's set-up on it, to be stored with figures."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch_config": torch.__config__.show(),
    }


def processor() -> str:
    """Return the processor's name with family and model: the name alone can stand for a whole series."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return f"{fields.get('model name', platform.machine())} (family {fields.get('cpu family')}, {fields.get('model')})"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds until the work's results are there, not counting what the device did before."""
    _finish(device)
    begin = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - begin


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Elsewhere:
    """Measures the share of processor time that other programs use: figures of a busy machine say little.

    Measured: a call of 72 ms on two idle cores took 270 ms beside a program that used both. Torch gives each thread an
    equal part of the work and waits for the slowest. OpenVINO, which hands out small parts, went from 65 to 143 ms.
    """

    def __init__(self, own: Sequence[int]) -> None:
        """`own`: ids of our other processes."""
        self._own = [os.getpid(), *own]
        self._begin = self._now()

    def share(self) -> float | None:
        """Return the share of all processors (0..1) that other programs used so far; None if that is unknown."""
        end = self._now()
        if self._begin is None or end is None or end[0] == self._begin[0]:
            return None
        passed, busy, ours = (after - before for after, before in zip(end, self._begin, strict=True))
        return min(1.0, max(0.0, (busy - ours) / passed))

    def _now(self) -> tuple[int, int, int] | None:
        """Return the clock ticks of all processors: how many passed, how many were busy, how many were ours."""
        try:
            ticks = [int(count) for count in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
            ours = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._own]
        except OSError:
            return None
        idle = ticks[3] + ticks[4]  # waiting for a disk included
        return sum(ticks), sum(ticks) - idle, sum(int(fields[11]) + int(fields[12]) for fields in ours)
