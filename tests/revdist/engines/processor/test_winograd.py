"""revdist.engines.processor.winograd"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from revdist.engines import recording
from revdist.engines.folding import optimise
from revdist.engines.processor import fused, packed, winograd
from revdist.networks import teacher

pytestmark = pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")


def _plain(inputs: int = 128, outputs: int = 128, *, bias: bool = True, **changed: Any) -> recording.Convolution:
    torch.manual_seed(inputs + outputs)
    given: dict[str, Any] = {
        "weight": torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5),
        "bias": torch.randn(outputs) if bias else None,
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "transposed": False,
        "output_padding": (0, 0),
        "groups": 1,
    }
    return recording.Convolution(**(given | changed))


def _either(plain: recording.Convolution, dtype: torch.dtype) -> winograd.Winograd:
    return winograd.Winograd(plain, dtype, packed.Convolution(plain, dtype))


def _maps(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(shape).relu().contiguous(memory_format=torch.channels_last)


def _exact(plain: recording.Convolution, x: torch.Tensor) -> torch.Tensor:
    bias = None if plain.bias is None else plain.bias.double()
    return F.conv2d(x.double(), plain.weight.double(), bias, padding=1)


@pytest.mark.parametrize("activation", ["", "relu", "hardtanh"])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (3, 16, 24), (2, 4, 64), (5, 64, 64)])
@torch.no_grad()
def test_it_gives_what_the_convolution_gives(activation: str, adds: bool, count: int, height: int, width: int) -> None:
    plain = _plain(128, 192, activation=activation)
    x, other = _maps(count, 128, height, width), _maps(count, 192, height, width) if adds else None
    wanted = _exact(plain, x) + (0 if other is None else other.double())
    if activation:
        wanted = wanted.clamp(0, 6 if activation == "hardtanh" else None)
    found = winograd.Tiled(plain)(x, other)
    assert (found - wanted).norm() < 5e-6 * wanted.norm()
    assert (found - wanted).abs().max() < 5e-5 * wanted.abs().max()
    assert found.dtype is torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_a_picture_is_convolved_alike_alone_and_among_others() -> None:
    plain = _plain(bias=False)
    x = _maps(7, 128, 64, 64)
    whole = winograd.Tiled(plain)(x)
    for row in range(len(x)):
        torch.testing.assert_close(winograd.Tiled(plain)(x[row : row + 1]), whole[row : row + 1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_weights_are_packed_before_other_numbers_of_pictures_come() -> None:
    """Of 16x16 with 256 inputs eight pictures go together, so that of eleven three are left."""
    tiled = winograd.Tiled(_plain(256, 128))
    tiled(_maps(1, 256, 16, 16))
    for count in (2, 11):
        tiled.prepare(count)
    packed_for = dict(tiled._product._packed)
    assert {shape[2] for shape, _ in packed_for} == {16, 32, 48, 128}, "tiles"
    tiled(_maps(11, 256, 16, 16))
    assert tiled._product._packed.keys() == packed_for.keys()


@torch.no_grad()
def test_beyond_the_edge_there_are_zeros() -> None:
    """Of a map of ones, by weights of one: at the edge fewer count."""
    plain = _plain(bias=False, weight=torch.ones(128, 128, 3, 3))
    found = winograd.Tiled(plain)(torch.ones(1, 128, 16, 16).contiguous(memory_format=torch.channels_last))
    places = {(8, 8): 9, (0, 8): 6, (15, 8): 6, (8, 0): 6, (8, 15): 6, (0, 0): 4, (15, 15): 4}
    for (row, column), weights in places.items():
        assert float(found[0, 0, row, column]) == pytest.approx(128 * weights, rel=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": (2, 2)},
        {"padding": (0, 0)},
        {"dilation": (2, 2)},
        {"groups": 2, "weight": torch.zeros(128, 64, 3, 3)},
        {"transposed": True},
        {"weight": torch.zeros(128, 128, 1, 1)},
        {"weight": torch.zeros(128, 128, 5, 5)},
        {"weight": torch.zeros(32, 128, 3, 3)},
        {"weight": torch.zeros(128, 32, 3, 3)},
        {"weight": torch.zeros(72, 128, 3, 3)},
        {"weight": torch.zeros(128, 72, 3, 3)},
    ],
)
def test_other_convolutions_do_not_suit(changed: dict[str, Any]) -> None:
    assert winograd.suits(_plain(), torch.float32)
    assert not winograd.suits(_plain(**changed), torch.float32)


@torch.no_grad()
def test_small_maps_and_those_that_tiles_do_not_cover_are_convolved_plainly() -> None:
    plain = _plain(512, 512, activation="relu")
    operation = _either(plain, torch.float32)
    for height, width in ((14, 14), (16, 14), (14, 16), (8, 8)):
        assert not winograd.pays(plain, height, width, torch.float32)
    assert winograd.pays(plain, 16, 16, torch.float32)
    for side in (14, 16, 14):
        x = _maps(2, 512, side, side)
        torch.testing.assert_close(operation(x).double(), _exact(plain, x).relu(), rtol=1e-4, atol=1e-4)
    assert operation._tiled
    operation.prepare(4)
    plainly = operation._plainly
    assert isinstance(plainly, packed.Convolution)
    assert {shape[0] for shape, _ in plainly._packed} == {2}, "of sizes that one picture was seen in"


def test_how_does_not_depend_on_the_number_of_pictures() -> None:
    plain = _plain(64, 64)
    assert not winograd.pays(plain, 16, 16, torch.float32)
    operation = _either(plain, torch.float32)
    for count in (1, 64):
        operation(_maps(count, 64, 16, 16))
    assert operation._tiled is None


@pytest.mark.parametrize(
    ("has", "suits"),
    [({"avx512_bf16": True}, True), ({"avx512_bf16": True, "amx_bf16": True}, False), ({"bf16": True}, False)],
)
def test_in_bfloat16_it_is_for_few_weights_and_large_maps_where_float32_is_half_as_fast(
    has: dict[str, bool], suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    winograd.only_twice.cache_clear()
    assert winograd.suits(_plain(256, 256), torch.bfloat16) is suits
    assert not winograd.suits(_plain(256, 272), torch.bfloat16)
    assert winograd.suits(_plain(256, 272), torch.float32)
    winograd.only_twice.cache_clear()
    for side, dtypes in ((16, [torch.float32]), (32, [torch.float32, torch.bfloat16])):
        assert [each for each in winograd._TILES if winograd.pays(_plain(256, 256), side, side, each)] == dtypes


@pytest.mark.parametrize("adds", [False, True])
@torch.no_grad()
def test_of_maps_in_bfloat16_it_is_computed_in_float32_and_rounded_once(adds: bool) -> None:
    plain = _plain(64, 96, activation="relu")
    x, other = _maps(3, 64, 32, 32).bfloat16(), _maps(3, 96, 32, 32).bfloat16() if adds else None
    found = winograd.Tiled(plain, torch.bfloat16)(x, other)
    wanted = winograd.Tiled(plain)(x.float(), None if other is None else other.float())
    assert torch.equal(found, wanted.bfloat16())
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("twice", [True, False])
def test_networks_are_made_of_it(twice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "only_twice", lambda: twice)
    module = optimise(teacher.build("resnet18"), torch.device("cpu"))
    kinds = {}
    for dtype in (torch.float32, torch.bfloat16):
        steps = fused.fuse(module, torch.zeros(1, 3, 64, 64), dtype=dtype)._steps
        kinds[dtype] = [type(step.operation) for step in steps].count(winograd.Winograd)
    wanted = {torch.float32: 10, torch.bfloat16: 10 if twice else 0}
    assert kinds == wanted, "4 with 64 channels, 3 each with 128 and 256"
