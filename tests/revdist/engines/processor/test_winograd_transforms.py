"""revdist.engines.processor.winograd_transforms, revdist.engines.processor.winograd_code"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from revdist.engines.processor import winograd_transforms as transforms

_INPUTS = [  # Lavin & Gray, CVPR 2016, section 4.3: six inputs -> six places
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_OUTPUTS = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
SHAPES = [(1, 4, 4, 16), (3, 8, 12, 48), (2, 64, 16, 32)]  # (B, H, W, C)


@pytest.fixture(params=["as it is", "narrow", "alone"])
def _machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This processor, one with narrower registers, and one whose torch has another OpenMP."""
    if request.param == "narrow":
        monkeypatch.setattr(transforms, "_width", lambda features: transforms.WIDTH // 2)
    if request.param == "alone":
        monkeypatch.setattr(transforms, "_team", lambda: None)
    transforms._compiled.cache_clear()
    yield
    transforms._compiled.cache_clear()


@pytest.fixture(params=[1, 2, 5])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def _drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(shape).to(dtype)


def _spread(maps: torch.Tensor) -> torch.Tensor:
    transform = torch.tensor(_INPUTS, dtype=torch.float64)
    framed = F.pad(maps.double(), (0, 0, 1, 1, 1, 1))
    tiles = framed.unfold(1, 6, 4).unfold(2, 6, 4)  # (B, h, w, C, 6, 6)
    return (transform @ tiles @ transform.T).permute(0, 1, 2, 4, 5, 3)


def _gather(made: torch.Tensor) -> torch.Tensor:
    transform = torch.tensor(_OUTPUTS, dtype=torch.float64)
    tiles = transform @ made.double().permute(0, 1, 2, 5, 3, 4) @ transform.T  # (B, h, w, C, 4, 4)
    count, rows, columns, channels, *_ = tiles.shape
    return tiles.permute(0, 1, 4, 2, 5, 3).reshape(count, 4 * rows, 4 * columns, channels)


@pytest.mark.usefixtures("_machine", "_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "height", "width", "channels"), SHAPES)
def test_inputs_become_the_places_of_the_paper(
    dtype: torch.dtype, count: int, height: int, width: int, channels: int
) -> None:
    maps = _drawn(count, height, width, channels, dtype=dtype)
    found = torch.full((count, height // 4, width // 4, 6, 6, channels), math.nan)
    transforms.of_inputs(maps, torch.zeros(channels, dtype=dtype), found)
    torch.testing.assert_close(found.double(), _spread(maps), rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("_machine", "_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "height", "width", "channels"), SHAPES)
@pytest.mark.parametrize("adds", [False, True])
def test_places_become_the_outputs_of_the_paper_within_limits(
    dtype: torch.dtype, count: int, height: int, width: int, channels: int, adds: bool
) -> None:
    made = _drawn(count, height // 4, width // 4, 6, 6, channels)
    other = _drawn(count, height, width, channels, dtype=dtype) if adds else None
    found = torch.full((count, height, width, channels), math.nan, dtype=dtype)
    transforms.of_outputs(made, found, other, (-1.0, 6.0))
    wanted = (_gather(made) + (0 if other is None else other.double())).clamp(-1, 6)
    close = {"rtol": 1e-5, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 2.0**-8, "atol": 1e-4}
    torch.testing.assert_close(found.double(), wanted, **close)


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_rounded_as_torch_does_and_what_is_no_number_stays_that(dtype: torch.dtype) -> None:
    """The first place of a tile is part of its first output alone."""
    values = [1.00390625, 1.01171875, 3.3e38, -1e-40, math.inf, -math.inf, math.nan, -math.nan]
    payload = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)  # rounded, it would be -0
    given = torch.cat([torch.tensor(values), payload, torch.zeros(7)])
    made = torch.zeros(1, 1, 1, 6, 6, 16)
    made[0, 0, 0, 0, 0] = given
    found = torch.empty(1, 4, 4, 16, dtype=dtype)
    transforms.of_outputs(made, found)
    torch.testing.assert_close(found[0, 0, 0], given.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("maps", "border", "found"),
    [
        ((1, 6, 4, 16), 16, (1, 1, 1, 6, 6, 16)),
        ((1, 4, 4, 24), 24, (1, 1, 1, 6, 6, 24)),
        ((1, 4, 4, 16), 15, (1, 1, 1, 6, 6, 16)),
        ((1, 4, 8, 16), 16, (1, 1, 1, 6, 6, 16)),
    ],
)
def test_what_does_not_fit_is_refused_before_memory_is_touched(
    maps: tuple[int, ...], border: int, found: tuple[int, ...]
) -> None:
    with pytest.raises(AssertionError):
        transforms.of_inputs(torch.zeros(maps), torch.zeros(border), torch.zeros(found))


def test_maps_that_lie_otherwise_in_memory_are_refused() -> None:
    good = torch.zeros(1, 4, 4, 16), torch.zeros(16), torch.zeros(1, 1, 1, 6, 6, 16)
    transforms.of_inputs(*good)
    for place, bad in ((0, torch.zeros(1, 16, 4, 4).permute(0, 2, 3, 1)), (1, torch.zeros(16).bfloat16())):
        with pytest.raises(AssertionError):
            transforms.of_inputs(*(bad if number == place else each for number, each in enumerate(good)))
    with pytest.raises(AssertionError):
        transforms.of_outputs(good[2].double(), good[0])
    with pytest.raises(AssertionError):
        transforms.of_outputs(good[2], good[0].half())


@pytest.mark.skipif("libgomp" not in Path("/proc/self/maps").read_text(), reason="another OpenMP here: NOT TESTED")
def test_the_threads_of_torchs_team_are_found() -> None:
    assert transforms._team() is not None
