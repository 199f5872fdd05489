"""Winograd's transforms (winograd.py) as machine code, made for this processor when they are first needed.

As operations of torch they are dozens, each of which reads and writes whole maps: they took longer than the products
between them. Here a tile is read once, stays in registers, and is written once, channels side by side: in a seventh of
the time. The code is written in LLVM's language, which llvmlite compiles in a thirtieth of a second. The threads are
those of torch's own team (libgomp), so that there are no more of them.

B pictures, C channels, H W pixels, h w tiles of 4x4 pixels. All is contiguous, channels last. Maps are float32 or
bfloat16; what is between the transforms is float32.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from revdist.engines.processor import winograd_code
from revdist.engines.processor.winograd_code import PLACES, SIDE, Arguments, Kind

WIDTH = 16  # channels that are computed at once, or half of it where registers are narrower: C is a multiple
_TEAM = "GOMP_parallel", *winograd_code.TEAM


def of_inputs(maps: torch.Tensor, border: torch.Tensor, found: torch.Tensor) -> None:
    """Tiles of 6x6 inputs, which overlap by two, each transformed: (B, H, W, C) -> (B, h, w, 6, 6, C).

    `border`: (C,), of the maps' precision, what lies around them: zeros.
    """
    assert border.numel() == maps.shape[3]
    _run(Kind.INPUTS, maps, maps, found, border)


def of_outputs(
    made: torch.Tensor,
    found: torch.Tensor,
    other: torch.Tensor | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> None:
    """Tiles of 4x4 outputs from the products of their 36 places: (B, h, w, 6, 6, C) -> (B, H, W, C).

    `other` (B, H, W, C) is added, then all is cut to limits.
    """
    assert other is None or other.shape == found.shape
    _run(Kind.OUTPUTS if other is None else Kind.SUMS, found, made, found, other, limits)


def _run(
    kind: Kind,
    maps: torch.Tensor,  # of which there are tiles
    given: torch.Tensor,
    found: torch.Tensor,
    other: torch.Tensor | None,
    limits: tuple[float, float] = (0.0, 0.0),
) -> None:
    count, height, width, channels = maps.shape
    tiles = found if maps is given else given
    assert maps.numel(), "loops run once at least"
    assert maps.dtype in (torch.float32, torch.bfloat16)
    assert (height % SIDE, width % SIDE, channels % WIDTH) == (0, 0, 0), "no tile is cut"
    assert tiles.numel() * SIDE**2 == maps.numel() * PLACES**2
    for each in (given, found, other):  # what comes now knows nothing but addresses
        assert each is None or (each.is_contiguous() and each.device.type == "cpu")
        assert each is None or each.dtype is (torch.float32 if each is tiles else maps.dtype)
    addresses = given.data_ptr(), found.data_ptr(), None if other is None else other.data_ptr()
    arguments = Arguments(*addresses, channels, height, width, count * height // SIDE, *limits)
    compiled, team, threads = _compiled(kind, maps.dtype), _team(), torch.get_num_threads()
    if team and threads > 1:
        team(compiled.address, ctypes.byref(arguments), threads, 0)
    else:
        compiled.call(ctypes.byref(arguments))


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A function, whose rows of tiles are shared by the team that calls it."""

    address: int
    call: Callable[..., None]
    owner: object  # has the memory of the code


@functools.cache
def _compiled(kind: Kind, dtype: torch.dtype) -> _Compiled:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3)
    for each in winograd_code.TEAM if _team() else ():
        llvm.add_symbol(each, ctypes.cast(getattr(ctypes.CDLL(None), each), ctypes.c_void_p).value)
    text = winograd_code.text(kind, _width(features), half=dtype is torch.bfloat16, alone=_team() is None)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    address = engine.get_function_address(winograd_code.NAME)
    return _Compiled(address, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), engine)


def _width(features: Mapping[str, bool]) -> int:
    """How many channels fit the registers of a processor."""
    return WIDTH if features.get("avx512f") else WIDTH // 2


@functools.cache
def _team() -> Callable[..., None] | None:
    """What runs a function in all threads of this thread's team. Another OpenMP than libgomp may not have it."""
    here = ctypes.CDLL(None)
    if not all(hasattr(here, name) for name in _TEAM):
        return None
    parallel = here.GOMP_parallel
    parallel.restype, parallel.argtypes = None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    found: Callable[..., None] = parallel
    return found
