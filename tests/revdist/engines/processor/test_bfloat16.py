"""revdist.engines.processor.bfloat16"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from torch import nn

from revdist.data import images
from revdist.engines import backend, recording
from revdist.engines.engine import Engine
from revdist.engines.folding import optimise
from revdist.engines.processor import bfloat16, fused, packed
from revdist.engines.processor.fused import Program
from revdist.engines.recording import Step, Value
from revdist.networks import teacher
from revdist.scoring import detector

pytestmark = pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")


@pytest.fixture(scope="module")
def pictures(good_cells: list[Path]) -> torch.Tensor:
    return torch.from_numpy(np.stack([_prepared(path) for path in good_cells[:6]]))


def _prepared(path: Path) -> images.Pixels:
    return images.prepare(images.read(path), (128, 128))


def _drawn(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(shape)


@pytest.mark.parametrize("shape", [(96, 1, 3, 3), (32, 3, 4, 4), (24, 96, 1, 1), (64, 128, 3, 3), (4, 512, 3, 3)])
def test_weights_are_rounded_to_neighbours_and_their_sums_are_kept(shape: tuple[int, ...]) -> None:
    weight = _drawn(*shape)
    found, nearest = bfloat16.keeping_sums(weight), weight.bfloat16().float()
    assert torch.equal(found, found.bfloat16().float())
    gap = (nearest * 2.0**-7).abs()  # between neighbours, or half of it
    assert bool(((found - weight).abs() <= gap).all()), "one of the two next to it"
    assert (found != nearest).any()

    def off(rounded: torch.Tensor) -> torch.Tensor:
        return (rounded - weight).double().sum((1, 2, 3)).abs()

    assert bool((off(found) <= off(nearest)).all())
    assert off(found).mean() < 0.2 * off(nearest).mean()


def test_weights_that_are_bfloat16_already_stay() -> None:
    weight = _drawn(8, 4, 3, 3).bfloat16().float()
    weight[0, 0] = 0
    assert torch.equal(bfloat16.keeping_sums(weight), weight)


def test_the_head_is_what_comes_before_the_first_wide_convolution(lite0: teacher.Teacher) -> None:
    recorded = recording.record(_folded(lite0.trunk), torch.zeros(1, 3, 64, 64))
    steps = fused.joined(recorded)
    head = bfloat16.head(steps)
    kinds = [step.operation.weight.shape[:2] for step in steps[:head] if _convolves(step)]
    assert kinds == [(32, 3), (32, 1), (16, 32)], "the first block of efficientnet_lite0"
    made = bfloat16.with_head(steps, recorded.inputs, head)
    assert len(made) == len(steps) + 1, "one map goes on in bfloat16"
    assert made[:head] == steps[:head]
    assert len({step.result for step in made}) == len(made)


def test_a_student_has_no_head() -> None:
    student = _folded(detector.Student("efficientnet_lite0"))
    taught = [torch.zeros(1, *shape) for shape in ((144, 16, 16), (240, 8, 8), (672, 4, 4))]
    assert bfloat16.head(fused.joined(recording.record(student, *taught))) == 0


def test_what_the_head_gives_is_lowered_once_for_all_that_read_it() -> None:
    stem, wide = (recording.Convolution(_drawn(*shape), None, *_LAYOUT) for shape in ((16, 3, 1, 1), (64, 16, 1, 1)))
    given, first, left, right, total = (Value(number) for number in range(5))
    add = torch.ops.aten.add.Tensor
    steps = [
        Step(stem, (given,), first),
        *(Step(wide, (first,), made) for made in (left, right)),
        Step(add, (left, right), total),
    ]
    assert bfloat16.head(steps) == 1
    _, lowered, one, other, last = bfloat16.with_head(steps, [given], 1)
    assert lowered.arguments == (first,)
    assert one.arguments == other.arguments == (lowered.result,)
    assert last.arguments == (left, right)
    assert last.result == total


_LAYOUT = ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)


@torch.no_grad()
def test_a_teachers_maps_are_three_times_nearer_to_those_in_float32(
    lite0: teacher.Teacher, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised = detector.normalise(pictures, lite0.mean, lite0.std)
    exact = _fused(lite0.trunk, torch.float32)(normalised)
    with simulated.bfloat16():
        careful = _off(_fused(lite0.trunk, torch.bfloat16)(normalised), exact)
        monkeypatch.setattr(bfloat16, "head", lambda steps: 0)
        plainly = _off(_fused(lite0.trunk, torch.bfloat16)(normalised.bfloat16()), exact)
    assert all(one < other / 3 for one, other in zip(careful, plainly, strict=True)), (careful, plainly)


def test_an_engine_takes_pictures_in_float32_and_scores_nearly_as_in_it(
    lite0: teacher.Teacher, good_cells: list[Path]
) -> None:
    torch.manual_seed(0)
    student, shown = detector.Student("efficientnet_lite0").eval(), [_prepared(path) for path in good_cells[:3]]
    exact = Engine(lite0, device="cpu")
    with simulated.bfloat16():
        engine = Engine(lite0, device="cpu", precision="bfloat16")
        for each in (exact, engine):
            each.add("cell", student, (128, 128))
    found, expected = (each.inspect(shown, ["cell"] * 3).scores for each in (engine, exact))
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert not np.array_equal(found, expected)


def test_a_bias_is_exact_where_the_processor_takes_it() -> None:
    exact = packed.takes_exact_bias()
    assert backend.computes("bfloat16") or not exact
    plain = recording.Convolution(_drawn(8, 8, 1, 1), torch.full((8,), 1 + 2.0**-10), *_LAYOUT)
    made = packed.Convolution(plain, torch.bfloat16)
    assert made._bias is not None
    assert made._bias.dtype is (torch.float32 if exact else torch.bfloat16)


@pytest.mark.skipif(not backend.computes("bfloat16"), reason="no bfloat16 here: NOT TESTED")
def test_this_processors_bfloat16_is_what_is_simulated(lite0: teacher.Teacher, pictures: torch.Tensor) -> None:
    """With and without maps that are added, which take different biases."""
    assert packed.takes_exact_bias(), "if it does not, simulated.py tells too little"
    normalised = detector.normalise(pictures[:1], lite0.mean, lite0.std)
    found = _fused(lite0.trunk, torch.bfloat16)(normalised)
    with simulated.bfloat16():
        expected = _fused(lite0.trunk, torch.bfloat16)(normalised)
    exact = _fused(lite0.trunk, torch.float32)(normalised)
    near, far = _off(found, [each.float() for each in expected]), _off(found, exact)
    assert all(one < other / 2 for one, other in zip(near, far, strict=True)), (near, far)


def _folded(module: nn.Module) -> nn.Module:
    return optimise(module, torch.device("cpu"))


def _fused(module: nn.Module, dtype: torch.dtype) -> Program:
    return fused.fuse(_folded(module), torch.zeros(1, 3, 64, 64), dtype=dtype)


def _convolves(step: Step) -> bool:
    return isinstance(step.operation, recording.Convolution)


def _off(found: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> list[float]:
    """Root mean square of what is wrong with the maps of each scale, relative."""
    return [float((one.float() - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)]
