"""revdist.scoring.detector, revdist.networks.bottleneck and revdist.networks.decoder"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from revdist.errors import TeacherError
from revdist.networks import teacher
from revdist.recipe import BottleneckName, Combine, StudentName
from revdist.scoring import detector
from revdist.scoring.detector import Scoring


@pytest.mark.parametrize(
    ("name", "bottleneck", "decoder", "entries"),
    [
        ("resnet18", 11_680_000, 3_703_168, (48, 90)),
        ("resnet50", None, None, (78, 252)),
        ("wide_resnet50_2", 58_885_120, 24_917_504, (78, 252)),
    ],
)
def test_parameters_are_as_many_as_the_official_graph_uses(
    name: str, bottleneck: int | None, decoder: int | None, entries: tuple[int, int]
) -> None:
    student = detector.Student(name)
    counted = [sum(each.numel() for each in part.parameters()) for part in (student.bottleneck, student.decoder)]
    if bottleneck is not None:
        assert counted == [bottleneck, decoder]
    assert (len(student.bottleneck.state_dict()), len(student.decoder.state_dict())) == entries


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "efficientnet_lite0"])
def test_a_slim_student_is_far_smaller_and_no_teacher_but_lite0_has_it_by_default(name: str) -> None:
    with torch.device("meta"):
        official, slim, usual = (detector.Student(name, design=design) for design in ("official", "slim", None))
    counted = [sum(each.numel() for each in student.parameters()) for student in (official, slim, usual)]
    assert counted[1] < counted[0] / 2.5
    assert counted[2] == counted[name == "efficientnet_lite0"]


def test_names_are_those_of_official_checkpoints() -> None:
    student = detector.Student("wide_resnet50_2")
    down, up = student.bottleneck.state_dict(), student.decoder.state_dict()
    assert down["conv1.weight"].shape == (512, 256, 3, 3)
    assert down["bn_layer.0.conv1.weight"].shape == (1024, 3072, 1, 1)
    assert down["bn_layer.0.downsample.0.weight"].shape == (2048, 3072, 1, 1)
    assert "bn_layer.2.bn3.running_var" in down
    assert not any(name.startswith(("conv4", "bn4")) for name in down)
    assert up["layer1.0.conv2.weight"].shape == (512, 512, 2, 2)
    assert up["layer1.0.upsample.0.weight"].shape == (2048, 1024, 2, 2)
    assert {f"layer{layer}.{last}.conv3.weight" for layer, last in ((1, 2), (2, 3), (3, 5))} <= set(up)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "wide_resnet50_2", "efficientnet_lite0"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@pytest.mark.parametrize("bottleneck", ["full", "coarse", "oce", "pretrained"])
@pytest.mark.parametrize("design", ["official", "slim"])
def test_student_rebuilds_the_shapes_of_the_teacher(
    name: str, size: tuple[int, int], bottleneck: BottleneckName, design: StudentName
) -> None:
    with torch.device("meta"):
        student, trunk = detector.Student(name, design=design, bottleneck=bottleneck), teacher.build(name)
        taught = trunk(torch.empty(2, 3, *size))
        assert student.bottleneck(taught).shape[2:] == (size[0] // 32, size[1] // 32)
        assert [each.shape for each in student(taught)] == [each.shape for each in taught]
    assert tuple(each.shape[1] for each in taught) == teacher.channels(name)


@pytest.mark.parametrize("bottleneck", ["coarse", "oce", "pretrained"])
def test_with_one_of_the_ablation_s_bottlenecks_the_student_sees_the_coarsest_map_alone(
    bottleneck: BottleneckName, noise: np.random.Generator
) -> None:
    torch.manual_seed(0)
    student = detector.Student("efficientnet_lite0", bottleneck=bottleneck).eval()
    first, other = (
        [torch.from_numpy(noise.random((1, channels, side, side), np.float32)) for channels, side in shapes]
        for shapes in [((144, 16), (240, 8), (672, 4))] * 2
    )
    with torch.no_grad():
        fused = student([other[0], other[1], first[2]])
        assert all(torch.equal(a, b) for a, b in zip(student(first), fused, strict=True))
        assert not torch.equal(student(first)[0], student([*first[:2], other[2]])[0])


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(1)
    student = detector.Student("resnet50")
    kinds = {type(part) for part in student.modules()}
    assert {nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d} <= kinds
    for part in student.modules():
        if isinstance(part, nn.ConvTranspose2d):
            bound = 1 / math.sqrt(part.weight.shape[1] * 4)
            assert part.weight.abs().max() <= bound
            assert part.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.weight.shape[0] * part.kernel_size[0] ** 2
            assert part.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        elif isinstance(part, nn.BatchNorm2d):
            assert part.weight.eq(1).all()
            assert part.bias.eq(0).all()


def test_students_of_unknown_teachers_are_refused() -> None:
    with pytest.raises(TeacherError, match="no student for teacher 'vgg16'"):
        detector.Student("vgg16")


def test_pixels_are_normalised_as_the_teacher_was_trained(lite0: teacher.Teacher) -> None:
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = torch.tensor([-127 / 128, 0, 1]).view(1, 3, 1, 1)
    torch.testing.assert_close(detector.normalise(pixels, lite0.mean, lite0.std), expected)
    assert teacher.IMAGENET.mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255))
    assert teacher.IMAGENET.std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255))


def test_maps_are_the_summed_cosine_distances_brought_to_the_picture() -> None:
    taught = [torch.rand(2, c, 64 // s, 96 // s) for c, s in ((8, 4), (16, 8), (32, 16))]
    rebuilt = [torch.rand_like(each) for each in taught]
    expected = torch.zeros(2, 64, 96)
    for t, s in zip(taught, rebuilt, strict=True):
        distance = 1 - F.cosine_similarity(t, s)
        expected += F.interpolate(distance[:, None], (64, 96), mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(detector.anomaly_maps(taught, rebuilt, (64, 96)), expected, rtol=1e-5, atol=1e-6)
    assert detector.anomaly_maps(taught, taught, (64, 96)).abs().max() < 1e-6


def test_scales_that_do_not_count_change_nothing_and_the_others_are_added_or_multiplied() -> None:
    taught = [torch.rand(2, c, 64 // s, 96 // s) for c, s in ((8, 4), (16, 8), (32, 16))]
    rebuilt = [torch.rand_like(each) for each in taught]
    alone = [detector.anomaly_maps(taught, rebuilt, (64, 96), Scoring(scales=(scale,))) for scale in (1, 2, 3)]
    for scales in [(1, 2), (1, 3), (2, 3), (1, 2, 3)]:
        chosen = torch.stack([alone[scale - 1] for scale in scales])
        added = detector.anomaly_maps(taught, rebuilt, (64, 96), Scoring(scales=scales))
        torch.testing.assert_close(added, chosen.sum(0))
        multiplied = detector.anomaly_maps(taught, rebuilt, (64, 96), Scoring(scales=scales, combine="multiply"))
        torch.testing.assert_close(multiplied, chosen.prod(0))


@pytest.mark.parametrize("combine", ["add", "multiply"])
@pytest.mark.parametrize("scales", [(1, 2, 3), (1, 3), (2,)])
def test_the_level_of_a_scale_is_what_together_makes_the_level_of_the_map(
    combine: Combine, scales: tuple[int, ...]
) -> None:
    scoring = Scoring(scales=scales, combine=combine)
    same = torch.full((1, 1, 1), scoring.level_of_a_scale(0.4))
    assert scoring.combined([same] * len(scales)).item() == pytest.approx(0.4)


@pytest.mark.parametrize("combine", ["add", "multiply"])
@pytest.mark.parametrize("scales", [(1, 2), (1, 3), (3,), (1, 2, 3)])
def test_spreading_takes_the_scales_that_count(combine: Combine, scales: tuple[int, ...]) -> None:
    taught = [torch.rand(2, c, 64 // s, 96 // s) for c, s in ((8, 4), (16, 8), (32, 16))]
    rebuilt = [torch.rand_like(each) for each in taught]
    scoring = Scoring(scales=scales, combine=combine)
    spread, distances = detector.Spread((64, 96), torch.device("cpu"), scoring), detector.distances(taught, rebuilt)
    expected = detector.smooth(detector.anomaly_maps(taught, rebuilt, (64, 96), scoring))
    torch.testing.assert_close(spread(distances), expected, rtol=1e-5, atol=1e-6)
    for scale, found in zip(scales, spread.scales(distances), strict=True):
        alone = detector.smooth(detector.anomaly_maps(taught, rebuilt, (64, 96), Scoring(scales=(scale,))))
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (256, 224), (800, 64), (544, 32)])
def test_spreading_is_interpolating_and_smoothing(size: tuple[int, int]) -> None:
    taught = [torch.rand(2, c, size[0] // s, size[1] // s) for c, s in ((8, 4), (16, 8), (32, 16))]
    rebuilt = [torch.rand_like(each) for each in taught]
    spread, distances = detector.Spread(size, torch.device("cpu")), detector.distances(taught, rebuilt)
    expected = detector.smooth(detector.anomaly_maps(taught, rebuilt, size))
    torch.testing.assert_close(spread(distances), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum(spread.scales(distances)), expected, rtol=1e-5, atol=1e-6)


def test_cosine_is_taken_in_float32_from_half_precision_features() -> None:
    taught = torch.rand(1, 64, 8, 8) + 0.5
    rebuilt = taught * (1 + 0.01 * torch.randn_like(taught))  # distances near 1e-4
    exact = detector.cosine_distance(taught.bfloat16().double(), rebuilt.bfloat16().double())
    maps = detector.anomaly_maps([taught.bfloat16()], [rebuilt.bfloat16()], (8, 8), Scoring(scales=(1,)))
    assert maps.dtype == torch.float32
    assert (maps - exact).abs().max() < 1e-6


def test_features_that_are_all_zero_do_not_divide_by_zero() -> None:
    zero = torch.zeros(1, 4, 2, 2)
    assert detector.cosine_distance(zero, zero).eq(1).all()


@pytest.mark.parametrize("shape", [(64, 96), (16, 16), (5, 40), (1, 7)])
def test_smoothing_equals_scipy_at_every_border(shape: tuple[int, int]) -> None:
    maps = torch.rand(3, *shape)
    maps[0, 0, 0] = 5.0  # a defect that touches the border
    expected = np.stack([ndimage.gaussian_filter(each.double().numpy(), 4, mode="reflect") for each in maps])
    assert np.abs(detector.smooth(maps).numpy() - expected).max() < 1e-6


def test_the_score_is_the_raw_maximum() -> None:
    maps = torch.rand(3, 8, 8)
    assert torch.equal(detector.scores(maps), maps.flatten(1).max(1).values)
    tenth = maps.flatten(1).sort(descending=True).values[:, : round(maps[0].numel() / 10)]
    torch.testing.assert_close(detector.scores(maps, 0.1), tenth.mean(1))
    assert torch.equal(detector.scores(maps, 1e-9), detector.scores(maps)), "one value at least"
