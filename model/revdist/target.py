"""Where and how the networks of an engine run: on which device, in which precision.

An engine's identity is `torch-DEVICE-PRECISION`. Maps between networks and the scoring are float32 or, where the
precision says so, 16-bit; int8 is for processors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from revdist import fused, quantised, recording
from revdist.errors import RevdistError
from revdist.folding import optimise

RUNTIME = "torch"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}
_FASTEST = {"cpu": ("int8", "bfloat16", "float32"), "cuda": ("float16", "bfloat16", "float32")}
_NEEDED = {"bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "int8": ("avx512_vnni", "avx_vnni", "amx_int8")}
_EXAMPLE = 64  # pixels a side of the picture that a network is recorded on; any would do


@dataclass(frozen=True, slots=True)
class Target:
    """A device, and a precision that it has."""

    device: torch.device
    precision: str

    @property
    def identity(self) -> str:
        """The engine's name, under which bundles keep calibrations."""
        return f"{RUNTIME}-{self.device.type}-{self.precision}"

    @property
    def dtype(self) -> torch.dtype:
        """Of the pictures and maps that networks take and give; in int8 of the pictures alone."""
        return PRECISIONS[self.precision]

    @property
    def records(self) -> bool:
        """Whether networks become lists of fused operations, in the place of modules."""
        return self.device.type == "cpu" and fused.available()

    def network(
        self,
        module: nn.Module,
        inputs: Sequence[tuple[int, int]],
        ranges: quantised.Ranges | None = None,
        given: Sequence[quantised.Affine] = (),
    ) -> nn.Module:
        """A copy of a float32 network that runs here: `dtype` in, `dtype` out; in int8 maps are uint8.

        `inputs`: (channels, stride) of each map that it takes; `ranges`: of its maps, and how those stand for values
        that it is `given`, for int8.
        """
        if not self.records:
            return optimise(module, self.device, self.dtype)
        ready = optimise(module, self.device)
        example = [torch.zeros(1, channels, _EXAMPLE // stride, _EXAMPLE // stride) for channels, stride in inputs]
        if self.precision != "int8":
            return fused.fuse(ready, *example, dtype=self.dtype)
        assert ranges is not None, "int8 needs the ranges of the maps"
        return quantised.quantise(recording.record(ready, *example), ranges, given)


def target(device: str = "auto", precision: str = "float32") -> Target:
    """Raises RevdistError for a device that is not there or a precision that it has not."""
    found = _device(device)
    if precision not in PRECISIONS:
        hint = f"use one of {', '.join(PRECISIONS)}"
        raise RevdistError(f"engine: precision {precision!r} is not supported", hint=hint)
    if precision not in _FASTEST[found.type]:
        hint = f"use one of {', '.join(_FASTEST[found.type])}"
        raise RevdistError(f"engine: there is no {precision} on {found.type}", hint=hint)
    if found.type == "cpu" and precision in _NEEDED and not computes(precision):
        needed = " or ".join(_NEEDED[precision])
        raise RevdistError(f"engine: this processor cannot compute in {precision}: no {needed}", hint="use float32")
    return Target(found, precision)


def available(device: str = "auto") -> list[Target]:
    """Every precision that a device of this machine has, float32 first. Raises RevdistError for a missing device."""
    found = _device(device)
    there = [each for each in _FASTEST[found.type] if found.type == "cuda" or computes(each)]
    return [Target(found, precision) for precision in reversed(there)]


def parse(name: str) -> tuple[str, str]:
    """Device and precision of an engine's name: an identity, without the runtime, or a device alone, which is float32.

    Raises RevdistError for what is no name of an engine.
    """
    device, _, precision = name.removeprefix(f"{RUNTIME}-").partition("-")
    if not device or "-" in precision:
        raise RevdistError(f"there is no engine {name!r}", hint="write auto, cpu, cuda or such as torch-cpu-bfloat16")
    return device, precision or "float32"


def fastest(device: str, calibrated: Iterable[Collection[str]]) -> str:
    """The fastest precision that this machine has and that all are calibrated for, by the names of their engines.

    float32 where there is none, so that the error says which calibration is missing. Raises RevdistError for a device
    that is not there.
    """
    found, known = _device(device), list(calibrated)
    for precision in _FASTEST[found.type]:
        identity = Target(found, precision).identity
        if all(identity in each for each in known) and (found.type == "cuda" or computes(precision)):
            return precision
    return "float32"


def computes(precision: str) -> bool:
    """Whether this processor has what a precision needs to be faster, and torch the operations."""
    if precision not in _NEEDED:
        return precision == "float32"
    there = torch.cpu.get_capabilities()
    return fused.available() and any(there.get(name, False) for name in _NEEDED[precision])


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RevdistError(f"engine: there is no device {name!r}", hint="use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise RevdistError(f"engine: device {name!r} is not supported", hint="use auto, cpu or cuda")
    return device
