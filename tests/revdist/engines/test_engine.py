"""revdist.engines.engine"""

from __future__ import annotations

import itertools
import platform
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_combination

from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.engines.folding import fold_batch_norms, optimise
from revdist.engines.processor import packed
from revdist.errors import ImageError, RecipeError, RevdistError
from revdist.networks import teacher
from revdist.scoring import detector


def _student(name: str, seed: int) -> detector.Student:
    """A student whose batch norms are not trivial, so that folding has something to do."""
    torch.manual_seed(seed)
    student = detector.Student(name)
    for part in student.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features) * 0.1
            part.running_var = torch.rand(part.num_features) + 0.5
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.1)
    return student.eval()


@pytest.fixture(scope="module")
def loaded(lite0: teacher.Teacher) -> Engine:
    engine = Engine(lite0, device="cpu")
    engine.add("bolt", _student("efficientnet_lite0", 1), (64, 96))
    engine.add("nut", _student("efficientnet_lite0", 2), (64, 96))
    engine.add("plate", _student("efficientnet_lite0", 3), (96, 64))
    return engine


@pytest.fixture(scope="module")
def mixed(loaded: Engine, good_cells: list[Path]) -> tuple[list[Pixels], list[str]]:
    """A batch of three products and two sizes, in no order."""
    products = ["bolt", "plate", "nut", "bolt", "nut", "plate", "bolt", "bolt"]
    cells = [images.read(path) for path in good_cells[: len(products)]]
    return [images.prepare(cell, loaded.size(each)) for cell, each in zip(cells, products, strict=True)], products


def test_the_identity_names_backend_device_and_precision(loaded: Engine) -> None:
    assert loaded.identity == "torch-cpu-float32"
    assert loaded.products == {"bolt", "nut", "plate"}


def test_a_score_is_the_same_alone_and_in_any_batch(loaded: Engine, mixed: tuple[list[Pixels], list[str]]) -> None:
    pixels, products = mixed
    together = loaded.inspect(pixels, products)
    assert together.scores.dtype == np.float32
    alone = [loaded.inspect([each], [product]) for each, product in zip(pixels, products, strict=True)]
    np.testing.assert_allclose([each.scores[0] for each in alone], together.scores, rtol=2e-6)
    for row, each in enumerate(alone):
        np.testing.assert_allclose(each.map(0), together.map(row), rtol=1e-5, atol=1e-6)
    backwards = loaded.inspect(pixels[::-1], products[::-1])
    np.testing.assert_allclose(backwards.scores[::-1], together.scores, rtol=2e-6)
    assert len(set(together.scores.tolist())) == len(products), "the pictures differ, and so do their scores"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_lanes_change_nothing(
    lite0: teacher.Teacher, loaded: Engine, mixed: tuple[list[Pixels], list[str]], threads: int
) -> None:
    pixels, products = mixed
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engine = Engine(lite0, device="cpu")
        for seed, product in enumerate(("bolt", "nut", "plate"), 1):
            engine.add(product, _student("efficientnet_lite0", seed), loaded.size(product))
        found = engine.inspect(pixels, products)
    finally:
        torch.set_num_threads(before)
    assert (engine._passes._lanes is not None) == (threads > 1), "lanes were made"
    np.testing.assert_allclose(found.scores, loaded.inspect(pixels, products).scores, rtol=2e-6)


def test_score_is_the_maximum_of_the_map_at_the_size_of_the_input(
    loaded: Engine, mixed: tuple[list[Pixels], list[str]]
) -> None:
    pixels, products = mixed
    inspection = loaded.inspect(pixels, products)
    for row, picture in enumerate(pixels):
        found = inspection.map(row)
        assert found.shape == picture.shape[:2]
        assert found.dtype == np.float32
        assert found.max() == inspection.scores[row]


def test_the_maps_of_the_scales_add_up_to_the_map(loaded: Engine, mixed: tuple[list[Pixels], list[str]]) -> None:
    pixels, products = mixed
    scales = loaded.scale_maps(pixels[0], products[0])
    assert scales.shape == (3, *pixels[0].shape[:2])
    np.testing.assert_allclose(scales.sum(0), loaded.inspect(pixels[:1], products[:1]).map(0), rtol=1e-5, atol=1e-6)
    assert len({float(scale.max()) for scale in scales}) == 3


def test_a_scale_that_does_not_count_has_no_map(lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]]) -> None:
    engine, picture = Engine(lite0, device="cpu"), mixed[0][0]
    for name, scoring in {
        "all": detector.Scoring(),
        "some": detector.Scoring(scales=(1, 3)),
        "product": detector.Scoring(combine="multiply"),
    }.items():
        engine.add(name, _student("efficientnet_lite0", 1), picture.shape[:2], scoring)
    fine, middle, coarse = engine.scale_maps(picture, "all")
    some = engine.scale_maps(picture, "some")
    np.testing.assert_allclose(some, [fine, coarse], rtol=1e-5, atol=1e-6)
    inspection = engine.inspect([picture] * 3, ["some", "all", "product"])
    np.testing.assert_allclose(inspection.map(0), fine + coarse, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inspection.map(1), fine + middle + coarse, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(engine.scale_maps(picture, "product"), [fine, middle, coarse], rtol=1e-4, atol=1e-5)
    assert inspection.map(2).max() == inspection.scores[2]
    assert 0.5 < inspection.map(2).mean() / (fine * middle * coarse).mean() < 2, "near the product of smoothed maps"


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_products_of_both_scores_share_a_batch_and_each_has_the_paper_s_maximum(
    lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]], tile: tuple[int, int] | None
) -> None:
    engine, picture = Engine(lite0, device="cpu"), mixed[0][0]
    size = picture.shape[:2]
    student, combination = _student("efficientnet_lite0", 1), random_combination("efficientnet_lite0", size)
    engine.add("plain", student, size, tile=tile)
    engine.add("mean", student, size, detector.Scoring(top_share=0.1), tile=tile)
    engine.add("both", student, size, detector.Scoring(combination=combination), tile=tile)
    inspection = engine.inspect([picture] * 3, ["plain", "both", "mean"])
    plain, both, mean = inspection.scores
    np.testing.assert_allclose(inspection.maxima, plain, rtol=1e-6)
    assert inspection.map(1).max() == both
    assert len({plain, both, mean}) == 3
    np.testing.assert_allclose(engine.scale_maps(picture, "both").sum(0), inspection.map(1), rtol=1e-4, atol=1e-5)


def test_each_product_is_scored_as_its_recipe_says(
    lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]]
) -> None:
    engine = Engine(lite0, device="cpu")
    shares = {"bolt": 0.0, "nut": 0.1, "plate": 0.01}
    for seed, (product, share) in enumerate(shares.items(), 1):
        engine.add(
            product,
            _student("efficientnet_lite0", seed),
            mixed[0][1 if product == "plate" else 0].shape[:2],
            detector.Scoring(top_share=share),
        )
    inspection = engine.inspect(*mixed)
    for row, product in enumerate(mixed[1]):
        values = np.sort(inspection.map(row), axis=None)[::-1]
        expected = values[: max(1, round(shares[product] * values.size))].mean()
        assert inspection.scores[row] == pytest.approx(expected, rel=1e-5)


def test_the_engine_computes_what_the_plain_parts_compute(loaded: Engine, lite0: teacher.Teacher) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 96, 3), np.uint8)
    student = _student("efficientnet_lite0", 1)
    with torch.no_grad():
        taught = lite0(detector.normalise(torch.from_numpy(picture[None]), lite0.mean, lite0.std).contiguous())
        maps = detector.smooth(detector.anomaly_maps(taught, student(taught), (64, 96)))
    inspection = loaded.inspect([picture], ["bolt"])
    np.testing.assert_allclose(inspection.map(0), maps[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_product_can_be_replaced_while_another_thread_inspects(
    lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]]
) -> None:
    engine = Engine(lite0, device="cpu")
    students = [_student("efficientnet_lite0", seed) for seed in (1, 2)]
    engine.add("bolt", students[0], (64, 96))
    picture = mixed[0][0]
    expected = {float(engine.inspect([picture], ["bolt"]).scores[0])}
    engine.add("bolt", students[1], (64, 96))
    expected.add(float(engine.inspect([picture], ["bolt"]).scores[0]))
    assert len(expected) == 2
    enough = threading.Event()

    def swap() -> None:
        for turn in itertools.count():
            engine.add("bolt", students[turn % 2], (64, 96))
            if enough.is_set():
                return

    thread = threading.Thread(target=swap, name="swap", daemon=True)
    thread.start()
    seen: set[float] = set()
    until = time.monotonic() + 60
    while seen < expected and time.monotonic() < until:  # until it is both, or a score is neither's
        seen.add(float(engine.inspect([picture], ["bolt"]).scores[0]))
    enough.set()
    thread.join()
    assert seen == expected


def test_an_unknown_product_is_refused_with_the_known_ones(loaded: Engine) -> None:
    with pytest.raises(RevdistError, match="no product 'screw'; loaded: bolt, nut, plate"):
        loaded.inspect([np.zeros((64, 96, 3), np.uint8)], ["screw"])


def test_a_picture_of_another_size_is_refused(loaded: Engine) -> None:
    with pytest.raises(ImageError, match=r"\(96, 64, 3\), expected uint8 \(64, 96, 3\).*call images.prepare"):
        loaded.inspect([np.zeros((96, 64, 3), np.uint8)], ["bolt"])
    with pytest.raises(ValueError, match="zip"):
        loaded.inspect([np.zeros((64, 96, 3), np.uint8)], ["bolt", "bolt"])


def test_sizes_that_the_strides_do_not_allow_are_refused(loaded: Engine) -> None:
    with pytest.raises(RecipeError, match="multiple of 32"):
        loaded.add("odd", _student("efficientnet_lite0", 1), (64, 100))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: NOT TESTED")
def test_a_batch_takes_the_memory_of_the_one_before() -> None:
    """In a process of its own: what glibc does with memory depends on all that was allocated before.

    Maps of 200 MB, so that it would certainly give them back; of fewer it depends on where they lie.
    """
    program = """
import resource, torch
from revdist.bench import subject
torch.set_num_threads(1)
made = subject.random("efficientnet_lite0", (64, 64))
made.plain.inspect([made.pictures[0]], ["random"])
for turn in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.zeros(5 << 20) for _ in range(10)]
    del maps
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
each = []
for turn in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made.plain.inspect([made.pictures[0]] * 8, ["random"] * 8)
    each.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults, *sorted(each[3:]))
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    kept, *batches = map(int, made.stdout.split())
    assert kept < 1000, "of 4 kB each, where all would be 50,000"
    assert batches[2] < 100, "of batches in a row: by chance of where things lie one takes more than all before it"


def test_an_empty_batch_has_no_scores(loaded: Engine) -> None:
    assert loaded.inspect([], []).scores.shape == (0,)


@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")
def test_after_warming_no_batch_waits_for_weights_to_be_packed(
    lite0: teacher.Teacher,
    mixed: tuple[list[Pixels], list[str]],
    proven: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`proven`: one picture of each product went through before, as when a bundle is loaded: none runs again."""

    def kept() -> list[int]:
        programs = [engine._teacher, *(placed.student for placed in engine._students.values())]
        steps = [step.operation for program in programs for step in program._steps]
        return [len(step._packed) for step in steps if isinstance(step, packed.Convolution)]

    engine = Engine(lite0, device="cpu")
    for seed, (product, picture) in enumerate(dict(zip(mixed[1], mixed[0], strict=True)).items()):
        engine.add(product, _student("efficientnet_lite0", seed), picture.shape[:2])
    assert not any(kept()), "packed for the pictures, not for the example"
    if proven:
        for picture, product in zip(*mixed, strict=True):
            engine.inspect([picture], [product])
        monkeypatch.setattr(engine._passes, "_run", lambda *_: pytest.fail("one picture went through already"))
    engine.warm([1, 5])
    before = kept()
    assert all(before)
    for rows in ([0], [0, 1], [2, 1, 0], list(range(len(mixed[0])))):
        engine.inspect([mixed[0][row] for row in rows], [mixed[1][row] for row in rows])
    assert kept() == before


def test_a_removed_product_is_gone(lite0: teacher.Teacher) -> None:
    engine = Engine(lite0, device="cpu")
    engine.add("bolt", _student("efficientnet_lite0", 1), (64, 64))
    engine.warm([1, 2])
    engine.rename("bolt", "nut")
    assert engine.products == {"nut"}
    engine.remove("nut")
    engine.remove("nut")
    assert engine.products == frozenset()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_folding_batch_norms_changes_nothing_but_rounding(name: str) -> None:
    student = _student(name, 4)
    with torch.no_grad():
        taught = [torch.rand(2, c, 64 // s, 64 // s) for c, s in zip(teacher.channels(name), (4, 8, 16), strict=True)]
        expected = student(taught)
        folded = optimise(student, torch.device("cpu"))
        for ours, plain in zip(folded(taught), expected, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in student.modules()), "the student itself stays whole"


def test_a_batch_norm_without_a_convolution_before_it_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="no convolution before"):
        fold_batch_norms(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))


def test_cuda_on_a_machine_without_it_is_refused_with_a_way_out(lite0: teacher.Teacher) -> None:
    with pytest.raises(RevdistError, match=r"cannot use device cuda: .*use cpu or auto"):
        Engine(lite0, device="cuda")


@pytest.mark.skipif(not backend.computes("bfloat16"), reason="no bfloat16 here: NOT TESTED")
def test_bfloat16_scores_are_near_those_of_float32(
    lite0: teacher.Teacher, loaded: Engine, mixed: tuple[list[Pixels], list[str]]
) -> None:
    engine = Engine(lite0, device="cpu", precision="bfloat16")
    assert engine.identity == "torch-cpu-bfloat16"
    for seed, product in enumerate(("bolt", "nut", "plate"), 1):
        engine.add(product, _student("efficientnet_lite0", seed), loaded.size(product))
    found, expected = engine.inspect(*mixed), loaded.inspect(*mixed)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-2)
    np.testing.assert_array_equal(found.maxima, found.scores)
    assert not np.array_equal(found.scores, expected.scores)
    assert found.map(0).dtype == np.float32
    alone = [engine.inspect([each], [product]).scores[0] for each, product in zip(*mixed, strict=True)]
    np.testing.assert_allclose(alone, found.scores, rtol=1e-4)


@pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
def test_int8_products_share_a_teacher_where_their_ranges_are_the_same(
    lite0: teacher.Teacher, loaded: Engine, mixed: tuple[list[Pixels], list[str]]
) -> None:
    engine = Engine(lite0, device="cpu", precision="int8")
    shown = {product: [p for p, own in zip(*mixed, strict=True) if own == product] for product in loaded.products}
    ranges = {product: loaded.observe(product, shown[product]) for product in shown}
    ranges["nut"] = replace(ranges["nut"], teacher=ranges["bolt"].teacher)
    for seed, product in enumerate(("bolt", "nut", "plate"), 1):
        student = _student("efficientnet_lite0", seed)
        engine.add(product, student, loaded.size(product), ranges=ranges[product])
    table = engine._students
    assert table["bolt"].teacher is table["nut"].teacher is not table["plate"].teacher
    found = engine.inspect(*mixed)
    np.testing.assert_allclose(found.scores, loaded.inspect(*mixed).scores, rtol=0.1)
    alone = [engine.inspect([each], [product]).scores[0] for each, product in zip(*mixed, strict=True)]
    np.testing.assert_allclose(alone, found.scores, rtol=2e-6)
    scales = engine.scale_maps(mixed[0][0], mixed[1][0])
    np.testing.assert_allclose(scales.sum(0), found.map(0), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")
def test_ranges_that_a_bundle_has_for_int8_do_not_part_products_elsewhere(
    lite0: teacher.Teacher, loaded: Engine, mixed: tuple[list[Pixels], list[str]]
) -> None:
    engine = Engine(lite0, device="cpu")
    for seed, product in enumerate(("bolt", "nut"), 1):
        picture = next(each for each, own in zip(*mixed, strict=True) if own == product)
        ranges = loaded.observe(product, [picture])
        engine.add(product, _student("efficientnet_lite0", seed), loaded.size(product), ranges=ranges)
    assert {placed.teacher_key for placed in engine._students.values()} == {""}
    assert engine._students["bolt"].teacher is engine._students["nut"].teacher


@pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
def test_int8_asks_for_ranges(lite0: teacher.Teacher) -> None:
    engine = Engine(lite0, device="cpu", precision="int8")
    with pytest.raises(RevdistError, match="bolt has no ranges for int8; make them: revdist calibrate --engine"):
        engine.add("bolt", _student("efficientnet_lite0", 1), (64, 96))
    assert not engine.products
    with pytest.raises(RevdistError, match="no product 'bolt'"):
        engine.observe("bolt", [])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "wide_resnet50_2"])
@pytest.mark.usefixtures("fake_cuda")
def test_the_cuda_path_never_mixes_devices(name: str, precision: str) -> None:
    engine = Engine(teacher.Teacher(name, teacher.build(name), "0" * 64), device="cuda", precision=precision)
    engine.add("bolt", detector.Student(name), (64, 96))
    engine.add("nut", detector.Student(name, bottleneck="pretrained"), (64, 96), detector.Scoring(combine="multiply"))
    engine.add(
        "cog", detector.Student(name), (64, 96), detector.Scoring(combination=random_combination(name, (64, 96)))
    )
    maps = engine.maps(torch.empty((3, 64, 96, 3), dtype=torch.uint8, device="cuda"), ["bolt", "cog", "nut"])
    scores = detector.scores(maps)
    with pytest.raises(Exception, match="device"):  # the proof that a mix-up would be noticed
        engine.maps(torch.empty((3, 64, 96, 3), dtype=torch.uint8), ["bolt", "bolt", "nut"])
    assert (maps.device.type, maps.dtype, maps.shape) == ("cuda", torch.float32, (3, 64, 96))
    assert (scores.device.type, scores.shape) == ("cuda", (3,))
    assert engine.identity == f"torch-cuda-{precision}"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


@pytest.mark.usefixtures("fake_cuda")
def test_tiles_of_a_large_picture_go_through_cuda_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revdist.engines.parts._TILES", 8)
    engine = Engine(teacher.Teacher("resnet18", teacher.build("resnet18"), "0" * 64), device="cuda")
    scoring = detector.Scoring(combination=random_combination("resnet18", (160, 160)))
    engine.add("bolt", detector.Student("resnet18"), (160, 160), scoring, tile=(64, 96))
    engine.add("nut", detector.Student("resnet18"), (160, 160), tile=(64, 96))
    seen: list[int] = []
    whole = detector.normalise

    def spied(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return whole(pixels, mean, std)

    monkeypatch.setattr(detector, "normalise", spied)
    batch = torch.empty((3 * 8, 64, 96, 3), dtype=torch.uint8, device="cuda")
    maps = engine.maps(batch, ["bolt", "bolt", "nut"])
    assert (maps.device.type, maps.dtype, maps.shape) == ("cuda", torch.float32, (3, 160, 160))
    assert seen == [8, 8, 8]
