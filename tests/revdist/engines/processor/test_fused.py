"""Fused networks give what the plain ones give, of every architecture, and fuse what they are made for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import randomised
from torch import nn

from revdist.engines import recording
from revdist.engines.folding import optimise
from revdist.engines.processor import fused, packed
from revdist.errors import RevdistError
from revdist.networks import teacher
from revdist.recipe import BottleneckName, StudentName
from revdist.scoring import detector

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")


@pytest.mark.parametrize(
    ("name", "bottleneck", "design"),
    [
        *((name, "full", None) for name in teacher.NAMES),
        ("efficientnet_lite0", "pretrained", None),
        ("resnet18", "pretrained", None),
        ("efficientnet_lite0", "full", "official"),
        ("resnet50", "full", "slim"),
        ("resnet18", "coarse", "official"),
        ("efficientnet_lite0", "coarse", "slim"),
    ],
)
@torch.no_grad()
def test_fused_networks_give_what_the_plain_ones_give(
    name: str, bottleneck: BottleneckName, design: StudentName | None
) -> None:
    trunk = optimise(randomised(teacher.build(name), 1), CPU)
    student = optimise(randomised(detector.Student(name, design=design, bottleneck=bottleneck), 2), CPU)
    example = torch.zeros(1, 3, 64, 64)
    fast_trunk, fast_student = fused.fuse(trunk, example), fused.fuse(student, *trunk(example))
    for shape in [(2, 3, 64, 96), (1, 3, 128, 64), (2, 3, 64, 96)]:
        picture = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        taught = trunk(picture)
        for expected, found in zip(
            [*taught, *student(taught)], [*fast_trunk(picture), *fast_student(taught)], strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
            assert found.is_contiguous(memory_format=torch.channels_last)


def test_convolutions_take_in_all_that_they_can() -> None:
    student = optimise(detector.Student("wide_resnet50_2"), CPU)
    taught = [torch.zeros(1, c, 64 // s, 64 // s) for c, s in ((256, 4), (512, 8), (1024, 16))]
    steps = [type(step.operation) for step in fused.fuse(student, *taught)._steps]
    rest = [step for step in steps if step not in (packed.Convolution, fused.Doubling)]
    assert len(rest) == 1, "the concatenation alone is left: no ReLU, no addition"
    lite0 = optimise(teacher.build("efficientnet_lite0"), CPU)
    steps = [type(step.operation) for step in fused.fuse(lite0, torch.zeros(1, 3, 64, 64))._steps]
    assert set(steps) == {packed.Convolution}, "padding of odd pixels and ReLU6 are taken in too"


class _Single(nn.Sequential):
    """Gives a tuple, as the networks do."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (super().forward(x),)


class _Shared(nn.Module):
    """What a convolution gives is read twice, once before its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.one(x)
        return F.relu(y) + y, self.two(F.relu6(y)) + 1


@torch.no_grad()
def test_what_is_read_twice_stays() -> None:
    plain, x = _Shared(), torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    for found, expected in zip(fused.fuse(plain, torch.randn(1, 4, 8, 8))(x), plain(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class _Residual(nn.Module):
    """Adds to what is given, to what nobody else reads, to what is read later, to what is put beside another map."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(9))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self._block(x, 0)
        second = self._block(first, 2)
        third = self._block(second, 4)
        return self._block(third, 6), torch.cat([third, self.parts[8](second)], 1)

    def _block(self, x: torch.Tensor, number: int) -> torch.Tensor:
        found: torch.Tensor = F.relu(self.parts[number + 1](F.relu(self.parts[number](x))) + x)
        return found


@torch.no_grad()
def test_a_map_is_added_to_in_place_where_nobody_reads_it_later() -> None:
    plain, x = _Residual(), torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    program, before = fused.fuse(plain, torch.randn(1, 8, 8, 8)), x.clone()
    adding = [step.operation for step in program._steps if len(step.arguments) == 2 and step.name is None]
    assert [each._overwrites for each in adding] == [False, True, False, False]
    for found, expected in zip(program(x), plain(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)


@torch.no_grad()
def test_shapes_with_one_order_share_their_weights() -> None:
    program = fused.fuse(_Single(nn.Conv2d(672, 112, 1)), torch.zeros(1, 672, 8, 8))
    for count in (1, 2, 4):
        program(torch.zeros(count, 672, 16, 16).contiguous(memory_format=torch.channels_last))
    convolution = program._steps[0].operation
    threads = torch.get_num_threads()
    assert set(convolution._packed) == {(torch.Size((count, 672, 16, 16)), threads) for count in (1, 2, 4)}
    assert len({id(packed) for packed in convolution._packed.values()}) == len(convolution._orders)


@torch.no_grad()
def test_each_number_of_threads_has_its_weights() -> None:
    """With 256 channels and maps of 32x32, one thread and two want other orders of AVX2's registers."""
    threads = torch.get_num_threads()
    recorded = recording.record(nn.Conv2d(256, 64, 3, padding=1), torch.zeros(1, 256, 8, 8))
    convolution, wanted = packed.Convolution(recorded.steps[0].operation, torch.float32), torch.zeros(1, 256, 32, 32)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            convolution(wanted.contiguous(memory_format=torch.channels_last))
            order = packed.laid_out(convolution.weight(wanted.shape))
            assert order == packed.order(
                torch.Size((64, 256, 3, 3)), torch.float32, convolution._layout, wanted.shape, count
            )
            convolution.prepare(3)
            assert {(shape[0], own) for shape, own in convolution._packed} >= {(1, count), (3, count)}
    finally:
        torch.set_num_threads(threads)


def test_unknown_operations_are_refused() -> None:
    with pytest.raises(RevdistError, match=r"the operation aten\.sigmoid\.default cannot be fused"):
        fused.fuse(nn.Sigmoid(), torch.zeros(1))
    with pytest.raises(RevdistError, match=r"transposed convolution of \(3, 3\) with stride \(2, 2\) cannot be fused"):
        fused.fuse(_Single(nn.ConvTranspose2d(4, 4, 3, 2)), torch.zeros(1, 4, 8, 8))
