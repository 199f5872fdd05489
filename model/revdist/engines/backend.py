"""Where and how the networks of an engine run: by which runtime, on which device, in which precision.

An engine's identity is `RUNTIME-DEVICE-PRECISION`. With torch, maps between networks are float32 or, where the
precision says so, 16-bit; int8 runs on processors only. OpenVINO (compiled.py) runs on processors only; there a student
and its teacher are one network, from pixels to distances.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import nn

from revdist.engines import lanes, recording
from revdist.engines.folding import optimise
from revdist.engines.openvino import compiled
from revdist.engines.processor import fused, packed, quantised
from revdist.errors import RevdistError
from revdist.networks.teacher import Teacher, channels
from revdist.scoring import detector

AUTO = "auto"
TORCH, OPENVINO = "torch", "openvino"
RUNTIMES = (TORCH, OPENVINO)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}
_FASTEST = {  # precisions by runtime and device, the fastest first
    (TORCH, "cpu"): ("int8", "bfloat16", "float32"),
    (TORCH, "cuda"): ("float16", "bfloat16", "float32"),
    (OPENVINO, "cpu"): ("int8", "bfloat16", "float32"),
}
_NEEDED = {"bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "int8": ("avx512_vnni", "avx_vnni", "amx_int8")}
_EXAMPLE = 64  # pixels: side of the picture that a network is recorded on; any size would do


@dataclass(frozen=True, slots=True)
class Name:
    """The device, precision and runtime in an engine's name; the device may be `auto`, and for `fastest` each."""

    device: str
    precision: str = "float32"
    runtime: str = TORCH


@dataclass(frozen=True, slots=True)
class Backend:
    """A device of this machine, with a precision and a runtime that it supports."""

    device: torch.device
    precision: str
    runtime: str = TORCH
    threads: int = field(default_factory=torch.get_num_threads)  # of torch and of OpenVINO

    @property
    def identity(self) -> str:
        """The engine's name, under which bundles keep calibrations."""
        return f"{self.runtime}-{self.device.type}-{self.precision}"

    @property
    def dtype(self) -> torch.dtype:
        """The type of the maps that torch's networks take and return; with int8 the maps are uint8 instead."""
        return PRECISIONS[self.precision]

    @property
    def pictures(self) -> torch.dtype:
        """The type of the normalised pictures that torch's teachers take."""
        return torch.float32 if self.fuses else self.dtype

    @property
    def fuses(self) -> bool:
        """Whether torch's networks run as fused operations instead of modules."""
        return self.runtime == TORCH and self.device.type == "cpu" and packed.available()

    def alone(self) -> AbstractContextManager[None]:
        """Run torch with one thread in this context, so that its threads do not disturb those of OpenVINO."""
        return lanes.alone() if self.runtime == OPENVINO else contextlib.nullcontext()

    def teacher(self, known: Teacher, ranges: quantised.Ranges | None = None) -> nn.Module:
        """Make a copy of a teacher that runs here: normalised pictures -> three maps.

        With OpenVINO each student contains its own teacher, and this one passes pictures on unchanged.
        `ranges`: ranges of the teacher's maps, for int8.
        """
        return compiled.Unchanged() if self.runtime == OPENVINO else self._network(known.trunk, [(3, 1)], ranges)

    def student(
        self,
        module: nn.Module,
        known: Teacher,
        ranges: tuple[quantised.Ranges, quantised.Ranges] | None = None,
        given: Sequence[quantised.QuantParams] = (),
        residuals: Sequence[int] = (),
    ) -> nn.Module:
        """Make a copy of a float32 student that runs here: the maps of the `known` teacher -> the student's maps.

        With OpenVINO teacher and student are one network, from pixels to distances and the residuals of the scales
        `residuals`, see revdist.scoring.combination. For int8, `ranges` are those of the
        teacher's and the student's maps; `given` says how the integers of the teacher's maps stand for values.
        """
        inputs = list(zip(channels(known.name), detector.STRIDES, strict=True))
        if self.runtime != OPENVINO:
            return self._network(module, inputs, None if ranges is None else ranges[1], given)
        networks = self._recorded(known.trunk, [(3, 1)]), self._recorded(module, inputs)
        ways = compiled.Ways(self.precision, self.threads)
        return compiled.detector(networks, (known.mean, known.std), ways, ranges, residuals)

    def _network(
        self,
        module: nn.Module,
        inputs: Sequence[tuple[int, int]],
        ranges: quantised.Ranges | None = None,
        given: Sequence[quantised.QuantParams] = (),
    ) -> nn.Module:
        """Make a torch network: pictures or maps of `dtype` (int8: uint8) -> maps. `inputs`: (channels, stride)."""
        if not self.fuses:
            return optimise(module, self.device, self.dtype)
        if self.precision != "int8":
            return fused.fuse(optimise(module, self.device), *_example(inputs), dtype=self.dtype)
        assert ranges is not None, "int8 needs the ranges of the maps"
        return quantised.quantise(self._recorded(module, inputs), ranges, given)

    def _recorded(self, module: nn.Module, inputs: Sequence[tuple[int, int]]) -> recording.Recording:
        return recording.record(optimise(module, self.device), *_example(inputs))


def _example(inputs: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """Return zeros to record a network on: one tensor for each of its inputs (channels, stride)."""
    return [torch.zeros(1, channels, _EXAMPLE // stride, _EXAMPLE // stride) for channels, stride in inputs]


def target(device: str = "auto", precision: str = "float32", runtime: str = TORCH) -> Backend:
    """Find a backend. Raises RevdistError for a missing runtime or device, or a precision that they do not support."""
    backend = Backend(_device(device, runtime), precision, runtime)
    if precision not in PRECISIONS:
        hint = f"use one of {', '.join(PRECISIONS)}"
        raise RevdistError(f"engine: precision {precision!r} is not supported", hint=hint)
    precisions, kind = _FASTEST[runtime, backend.device.type], backend.device.type
    if precision not in precisions:
        on = f"{kind} with openvino" if runtime == OPENVINO else kind
        raise RevdistError(f"engine: there is no {precision} on {on}", hint=f"use one of {', '.join(precisions)}")
    if not _computes(backend):
        needed = " or ".join(_NEEDED[precision])
        raise RevdistError(f"engine: this processor cannot compute in {precision}: no {needed}", hint="use float32")
    return backend


def available(device: str = "auto") -> list[Backend]:
    """List torch's backends on a device of this machine, float32 first. Raises RevdistError for a missing device."""
    torch_device = _device(device, TORCH)
    backends = [Backend(torch_device, precision) for precision in reversed(_FASTEST[TORCH, torch_device.type])]
    return [backend for backend in backends if _computes(backend)]


def parse(name: str) -> Name:
    """Parse an engine's name: an identity, where a missing runtime means torch, a missing precision float32.

    Raises RevdistError for any other text.
    """
    parts = name.split("-")
    runtime = parts.pop(0) if parts[0] in RUNTIMES else TORCH
    if not all(parts) or len(parts) not in (1, 2):
        raise RevdistError(f"there is no engine {name!r}", hint="write auto, cpu, cuda or such as torch-cpu-bfloat16")
    device, precision = [*parts, "float32"][:2]
    return Name(device, precision, runtime)


def usable(identity: str) -> Name:
    """Return the name of the engine of this identity. Raises RevdistError that says why this machine lacks it."""
    name = parse(identity)
    target(name.device, name.precision, name.runtime)
    if name.device == "cuda" and not torch.cuda.is_available():
        raise RevdistError("engine: there is no GPU here")
    return name


def fastest(wanted: Name, calibrated: Iterable[Collection[str]]) -> Name:
    """Return the fastest engine that this machine has and that every bundle is calibrated for.

    `wanted`: what is `auto` is chosen: a GPU where there is one; on a processor OpenVINO, or torch where a bundle is
    not calibrated for OpenVINO. `calibrated`: for each bundle, the identities of the engines that it is calibrated for.
    Where no engine fits, returns the one whose calibration a later error is to ask for. Raises RevdistError for a
    missing runtime or device.
    """
    calibrations = list(calibrated)
    runtimes = _runtimes(wanted) if wanted.runtime == AUTO else [wanted.runtime]
    device = _device(wanted.device, runtimes[0])
    precisions = _FASTEST[runtimes[0], device.type] if wanted.precision == AUTO else (wanted.precision,)
    for precision in precisions:
        for runtime in runtimes:
            backend = Backend(device, precision, runtime)
            if all(backend.identity in engines for engines in calibrations) and _computes(backend):
                return Name(wanted.device, precision, runtime)
    return Name(wanted.device, "float32" if wanted.precision == AUTO else wanted.precision, runtimes[0])


def _runtimes(wanted: Name) -> list[str]:
    """Return the runtimes that are tried for a device, the better one first."""
    if _device(wanted.device, TORCH).type != "cpu":
        return [TORCH]
    return [OPENVINO, TORCH] if compiled.installed() else [TORCH]


def _computes(wanted: Backend) -> bool:
    if wanted.runtime == OPENVINO:
        return compiled.computes(wanted.precision) and (wanted.precision != "int8" or computes("int8"))
    return wanted.device.type == "cuda" or computes(wanted.precision)


def computes(precision: str) -> bool:
    """Whether this processor has the instructions that make a precision fast, and torch the operations."""
    if precision not in _NEEDED:
        return precision == "float32"
    there = torch.cpu.get_capabilities()
    return packed.available() and any(there.get(name, False) for name in _NEEDED[precision])


def _device(name: str, runtime: str) -> torch.device:
    if runtime not in RUNTIMES:
        raise RevdistError(f"engine: there is no runtime {runtime!r}", hint=f"use one of {', '.join(RUNTIMES)}")
    if name == "auto":
        name = "cuda" if runtime == TORCH and torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RevdistError(f"engine: there is no device {name!r}", hint="use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise RevdistError(f"engine: device {name!r} is not supported", hint="use auto, cpu or cuda")
    if (runtime, device.type) not in _FASTEST:
        raise RevdistError(f"engine: there is no {device.type} with {runtime}", hint="use cpu, or torch")
    return device
