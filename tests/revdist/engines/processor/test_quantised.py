"""8-bit networks are near the plain ones, of every architecture, and never write into what is read once more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from networks import randomised
from torch import nn

from revdist.engines import backend, recording
from revdist.engines.folding import optimise
from revdist.engines.processor import fused, packed, quantised
from revdist.engines.processor.quantised import QuantParams
from revdist.errors import RevdistError
from revdist.networks import teacher
from revdist.scoring import detector

pytestmark = pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")

CPU = torch.device("cpu")


def _folded(module: nn.Module, seed: int) -> nn.Module:
    return optimise(randomised(module, seed), CPU)


def _pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def _quantised(
    plain: nn.Module, *batches: torch.Tensor | Sequence[torch.Tensor], given: Sequence[QuantParams] = ()
) -> quantised.Program:
    example = [batches[0]] if isinstance(batches[0], torch.Tensor) else list(batches[0])
    ranges = quantised.observe(fused.fuse(plain, *example), batches)
    return quantised.quantise(recording.record(plain, *example), ranges, given)


def _errors(network: quantised.Program, found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> list[float]:
    """Of each map that the network gave, relative."""
    errors = []
    for affine, each, wanted in zip(network.results, found, expected, strict=True):
        assert each.dtype == torch.uint8
        errors.append(float((affine.restore(each) - wanted).norm() / wanted.norm()))
    return errors


@pytest.mark.parametrize("name", teacher.NAMES)
@torch.no_grad()
def test_quantised_networks_are_near_the_plain_ones(name: str) -> None:
    trunk, student = _folded(teacher.build(name), 1), _folded(detector.Student(name), 2)
    pictures = [_pictures(2, 3, 64, 96) for _ in range(2)]
    fast_trunk = _quantised(trunk, *pictures)
    fast_student = _quantised(student, *(trunk(picture) for picture in pictures), given=fast_trunk.results)
    taught, found = trunk(pictures[0]), fast_trunk(pictures[0])
    before = [each.clone() for each in found]
    rebuilt = fast_student(found)
    errors = [*_errors(fast_trunk, found, taught), *_errors(fast_student, rebuilt, student(taught))]
    assert max(errors) < 0.1
    assert all(affine.zero == 0 for affine in (*fast_trunk.results, *fast_student.results)), (
        "features are never negative"
    )
    for each, kept in zip(found, before, strict=True):
        assert torch.equal(each, kept), "what is given is not written into"
        assert each.is_contiguous(memory_format=torch.channels_last)
    for each, together in zip(fast_trunk(pictures[0][:1]), found, strict=True):
        assert torch.equal(each, together[:1])


@torch.no_grad()
def test_all_but_the_first_convolution_is_8_bit() -> None:
    trunk = _folded(teacher.build("wide_resnet50_2"), 1)
    kinds = [type(step.operation) for step in _quantised(trunk, _pictures(1, 3, 64, 64))._steps]
    assert kinds.count(packed.Convolution) == 1
    assert kinds.count(quantised.Convolution) == 42, "of the 43 up to layer3"


class _Residuals(nn.Module):
    """Additions of what is read once more: by a later convolution, by itself, as a result, and of what was given."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        one, two, three, four, five = self.parts
        a = torch.relu(one(x) + x)
        b = torch.relu(two(a) + a)
        c = three(b) + a
        d = torch.relu(four(c) + b)
        return c, torch.relu(five(d) + d), d


@torch.no_grad()
def test_additions_in_place_spoil_nothing() -> None:
    torch.manual_seed(3)
    plain, x = _Residuals(), _pictures(2, 8, 16, 16)
    network, before = _quantised(plain, x), x.clone()
    for _ in range(2):
        assert max(_errors(network, network(x), plain(x))) < 0.03
    assert torch.equal(x, before)


@torch.no_grad()
def test_a_map_that_was_always_zero_stays_zero() -> None:
    student = _folded(detector.Student("efficientnet_lite0", bottleneck="oce"), 2)
    taught = [torch.rand(1, c, 64 // s, 64 // s) for c, s in zip((144, 240, 672), detector.STRIDES, strict=True)]
    network = _quantised(student, taught)
    assert max(_errors(network, network(taught), student(taught))) < 0.1


@torch.no_grad()
def test_values_outside_of_the_ranges_are_cut_off() -> None:
    affine = quantised.QuantParams.of(-1.0, 3.0)
    x = torch.tensor([-5.0, -1.0, 0.0, 1.0, 3.0, 9.0])
    found = affine.restore(affine.quantise(x))
    torch.testing.assert_close(found, x.clamp(-1, 3), rtol=0, atol=affine.scale / 2 + 1e-6)
    assert found[2] == 0, "zero is exact: borders are padded with it"


def test_ranges_of_another_network_are_refused() -> None:
    trunk = _folded(teacher.build("resnet18"), 1)
    recorded = recording.record(trunk, torch.zeros(1, 3, 64, 64))
    with pytest.raises(RevdistError, match=r"ranges of 7 maps do not fit a network of \d+; calibrate for int8 again"):
        quantised.quantise(recorded, quantised.Ranges(np.zeros((7, 2), np.float32)))


def test_equal_ranges_have_equal_digests() -> None:
    table = np.ones((7, 2), np.float32)
    assert quantised.Ranges(table).digest == quantised.Ranges(table.copy()).digest
    assert quantised.Ranges(table).digest != quantised.Ranges(2 * table).digest
