"""Ours against numbers of the paper's code on the same weights and pictures, which tests/bench/parity.py wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
import torch
from photographs import photographs

from revdist.evaluation import evaluate
from revdist.networks import loss, resnet
from revdist.recipe import Recipe, official
from revdist.scoring import detector
from revdist.training import train

LIMITS = {"map": 1e-4, "score": 1e-4, "losses": 1e-3}  # of the others 1e-5, all relative
NETWORKS = {"resnet18": 128, "resnet34": 64, "resnet50": 64, "wide_resnet50_2": 64}
LONG = "resnet18"  # of which there are 50 steps


def build(name: str) -> tuple[resnet.Trunk, detector.Student]:
    """Teacher's trunk and student; every tensor follows from its official name."""
    trunk, student = resnet.Trunk(name), detector.Student(name)
    for module in (trunk, student.bottleneck, student.decoder):
        parity.fill(module)
    return trunk.eval(), student


def differences(name: str, side: int, theirs: dict[str, Any]) -> dict[str, float]:
    """By what each quantity differs, relative."""
    trunk, student = build(name)
    pixels = evaluate.read_prepared(photographs(0)[:8], (side, side))
    student.eval()
    with torch.no_grad():
        taught = trunk(parity.batch(pixels[:2]))
        embedded = student.bottleneck(taught)
        rebuilt = student(taught)
        smoothed = detector.smooth(detector.anomaly_maps(taught, rebuilt, (side, side)))
    named = {f"f{row}": each for row, each in enumerate(taught, 1)} | {"z": embedded}
    named |= {f"d{row}": each for row, each in enumerate(rebuilt, 1)} | {"map": smoothed[0]}
    found = {key: parity.difference(parity.sketch(each), theirs[key]) for key, each in named.items()}
    found["score"] = abs(float(detector.scores(smoothed[:1])) - theirs["score"]) / theirs["score"]
    found["loss"] = abs(float(loss.flattened_cosine(taught, rebuilt)) - theirs["loss"]) / theirs["loss"]
    return found | _training(trunk.double(), student.double(), name, theirs)


def _training(trunk: resnet.Trunk, student: detector.Student, name: str, theirs: dict[str, Any]) -> dict[str, float]:
    recipe, found, losses = official(name), {}, []
    pixels = evaluate.read_prepared(photographs(0)[:8], (parity.SIDE, parity.SIDE))
    optimiser = train._optimiser(student, recipe)
    student.train()
    for step in range(len(theirs["losses"])):
        with torch.no_grad():
            shown = [pixels[row] for row in parity.rows(step, len(pixels), 4)]
            taught = trunk(parity.batch(shown, torch.float64))
        losses.append(train._step(student, optimiser, taught, recipe, step))
        if step == 0:
            used = [student.decoder, student.bottleneck]
            for what, now in (("weights", parity.weights_of(used)), ("statistics", parity.statistics_of(used))):
                key = f"{what} after a step"
                found[key] = parity.difference(parity.sketch(now), theirs[key])
    expected = np.array(theirs["losses"])
    return found | {"losses": float(np.max(np.abs(np.array(losses) - expected) / expected))}


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    return dict(json.loads(parity.GOLDEN.read_text()))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == LONG else name for name in NETWORKS]
)
def test_features_maps_scores_losses_and_a_step_are_those_of_the_paper_s_code(
    name: str, numbers: dict[str, Any]
) -> None:
    found = differences(name, NETWORKS[name], numbers[name])
    assert len(found) == 13
    wrong = {what: value for what, value in found.items() if not value <= LIMITS.get(what, 1e-5)}
    assert wrong == {}


def test_the_comparison_notices_a_wrong_weight(numbers: dict[str, Any]) -> None:
    trunk, _ = build("resnet18")
    with torch.no_grad():
        trunk.layer1[0].conv1.weight[0, 0, 1, 1] += 0.5
        fine = trunk(parity.batch(evaluate.read_prepared(photographs(0)[:2], (128, 128))))[0]
    assert parity.difference(parity.sketch(fine), numbers["resnet18"]["f1"]) > 1e-4


def test_the_per_pixel_loss_of_the_paper_s_equations_is_another_one(numbers: dict[str, Any]) -> None:
    trunk, student = build("resnet18")
    student.eval()
    with torch.no_grad():
        taught = trunk(parity.batch(evaluate.read_prepared(photographs(0)[:2], (128, 128))))
        rebuilt = student(taught)
        pixel = sum(float(detector.cosine_distance(t, s).mean()) for t, s in zip(taught, rebuilt, strict=True))
    assert abs(pixel - numbers["resnet18"]["loss"]) > 0.01 * numbers["resnet18"]["loss"]


def test_the_teacher_is_the_same_before_and_after_a_step() -> None:
    trunk, student = build("resnet18")
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    taught = trunk(torch.zeros(2, 3, 64, 64))
    recipe = official("resnet18")
    train._step(student.train(), train._optimiser(student, recipe), [each.detach() for each in taught], recipe, 0)
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize(
    ("name", "millions"), [("wide_resnet50_2", (24.863, 58.885, 24.918)), ("resnet18", (2.783, 11.680, 3.703))]
)
def test_parameters_are_as_many_as_published(name: str, millions: tuple[float, float, float]) -> None:
    student = detector.Student(name)
    parts = (resnet.Trunk(name), student.bottleneck, student.decoder)
    counts = [sum(each.numel() for each in part.parameters()) / 1e6 for part in parts]
    assert counts == pytest.approx(millions, abs=0.001)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (288, 288), (320, 256)])
def test_shapes_are_those_of_the_official_graph(height: int, width: int) -> None:
    with torch.device("meta"):
        trunk, student = resnet.Trunk("wide_resnet50_2"), detector.Student("wide_resnet50_2")
        taught = trunk(torch.empty(1, 3, height, width))
        embedded, rebuilt = student.bottleneck(taught), student(taught)
    at = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(each.shape[1:]) for each in taught] == [(256, *at[0]), (512, *at[1]), (1024, *at[2])]
    assert [each.shape for each in rebuilt] == [each.shape for each in taught]
    assert tuple(embedded.shape[1:]) == (2048, *at[3])


def test_convolutions_start_as_in_the_official_code() -> None:
    torch.manual_seed(0)
    student = detector.Student("resnet18")
    kinds = {type(part) for part in student.modules()}
    assert {torch.nn.ConvTranspose2d, torch.nn.Conv2d, torch.nn.BatchNorm2d} <= kinds
    for part in student.modules():
        if isinstance(part, torch.nn.Conv2d):
            fan_out = part.out_channels * part.kernel_size[0] * part.kernel_size[1]
            assert float(part.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        elif isinstance(part, torch.nn.ConvTranspose2d):
            bound = 1 / (part.weight.shape[1] * 4) ** 0.5
            assert float(part.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
        elif isinstance(part, torch.nn.BatchNorm2d):
            assert torch.equal(part.weight, torch.ones_like(part.weight))
            assert torch.equal(part.bias, torch.zeros_like(part.bias))


def test_the_official_recipe_takes_200_passes_with_a_last_batch_that_may_be_smaller() -> None:
    recipe = official("resnet18").for_pictures(37)
    assert recipe.steps == 600
    batches = [train.batch_rows(recipe, 37, step) for step in range(6)]
    assert [len(each) for each in batches] == [16, 16, 5, 16, 16, 5]
    passes = [[row for each in batches[at : at + 3] for row in each] for at in (0, 3)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(37))
    assert passes[0] != passes[1]
    assert {train.learning_rate(recipe, step) for step in (0, 1, 599)} == {0.005}
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_numbers_are_small() -> None:
    assert Path(parity.GOLDEN).stat().st_size < 50_000
