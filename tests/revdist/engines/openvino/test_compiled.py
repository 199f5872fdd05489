"""revdist.engines.openvino.compiled: what OpenVINO has compiled gives what the plain networks and torch's engines
give."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import randomised
from torch import nn

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines import backend, recording
from revdist.engines.engine import Engine
from revdist.engines.folding import optimise
from revdist.engines.lanes import Lanes
from revdist.engines.openvino import compiled
from revdist.errors import RevdistError
from revdist.networks import teacher
from revdist.recipe import BottleneckName
from revdist.scoring import detector

Run = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")
ARCHITECTURES = [
    *((name, "full") for name in teacher.NAMES),
    ("efficientnet_lite0", "pretrained"),
    ("efficientnet_lite0", "oce"),
    ("resnet18", "pretrained"),
]
needs_int8 = pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
needs_bfloat16 = pytest.mark.skipif(not compiled.computes("bfloat16"), reason="no bfloat16 here: NOT TESTED")


def _compiled(known: teacher.Teacher, student: nn.Module, precision: str = "float32") -> compiled.Program:
    example = [torch.zeros(1, channels, 64 // stride, 64 // stride) for channels, stride in _maps(known.name)]
    networks = (
        recording.record(optimise(known.trunk, CPU), torch.zeros(1, 3, 64, 64)),
        recording.record(optimise(student, CPU), *example),
    )
    return compiled.detector(networks, (known.mean, known.std), compiled.Ways(precision, 1))


def _random_teacher(name: str) -> teacher.Teacher:
    return teacher.Teacher(name, randomised(teacher.build(name), 1), "random")


def _pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _maps(name: str) -> list[tuple[int, int]]:
    return list(zip(teacher.channels(name), detector.STRIDES, strict=True))


@torch.no_grad()
def _taught(known: teacher.Teacher, pixels: torch.Tensor) -> Sequence[torch.Tensor]:
    taught: Sequence[torch.Tensor] = optimise(known.trunk, CPU)(detector.normalise(pixels, known.mean, known.std))
    return taught


@pytest.mark.parametrize(("name", "bottleneck"), ARCHITECTURES)
@torch.no_grad()
def test_a_compiled_detector_gives_what_the_plain_networks_give(name: str, bottleneck: BottleneckName) -> None:
    known, student = _random_teacher(name), randomised(detector.Student(name, bottleneck=bottleneck), 2)
    fast, plain = _compiled(known, student), optimise(student, CPU)
    for shape in [(2, 64, 96, 3), (1, 128, 64, 3), (2, 64, 96, 3)]:
        pixels = _pictures(*shape)
        taught = _taught(known, pixels)
        for expected, found in zip(detector.distances(taught, plain(taught)), fast((pixels,)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert len(fast.shapes) == 2


@needs_bfloat16
@torch.no_grad()
def test_in_bfloat16_maps_are_coarser_but_distances_are_not() -> None:
    known, pixels = _random_teacher("efficientnet_lite0"), _pictures(2, 64, 96, 3)
    student = randomised(detector.Student("efficientnet_lite0"), 2)
    taught = _taught(known, pixels)
    expected = detector.distances(taught, optimise(student, CPU)(taught))
    for exact, found in zip(expected, _compiled(known, student, "bfloat16")((pixels,)), strict=True):
        assert found.dtype == torch.float32
        assert 1e-5 < float((found - exact).abs().mean()) < 0.02
    for distance in _compiled(known, nn.Identity(), "bfloat16")((pixels,)):  # a student that makes no mistake
        assert float(distance.abs().max()) < 1e-5, "1 - cos in bfloat16 would be off by 1/256"


@torch.no_grad()
def test_in_bfloat16_weights_come_rounded_with_their_sums_kept() -> None:
    """OpenVINO would round each to its nearest, as it does with those of transposed convolutions."""
    known, student = _random_teacher("efficientnet_lite0"), randomised(detector.Student("efficientnet_lite0"), 2)
    transposed = sum(isinstance(part, nn.ConvTranspose2d) for part in student.modules())
    exact, given = (
        [torch.from_numpy(each).flatten(1) for each in _compiled(known, student, kind)._weights.values()]
        for kind in ("float32", "bfloat16")
    )
    pairs = [(one, other) for one, other in zip(exact, given, strict=True) if not torch.equal(one, other)]
    assert len(exact) - len(pairs) == transposed
    assert all(torch.equal(each, each.bfloat16().float()) for _, each in pairs)
    nearest = sum(float((one.bfloat16().float().sum(1) - one.sum(1)).abs().mean()) for one, _ in pairs)
    assert sum(float((other.sum(1) - one.sum(1)).abs().mean()) for one, other in pairs) < nearest / 10


@torch.no_grad()
def test_results_outlive_the_next_call() -> None:
    network = _compiled(_random_teacher("resnet18"), randomised(detector.Student("resnet18"), 2))
    first = network((torch.full((1, 64, 64, 3), 255, dtype=torch.uint8),))
    copies = [each.clone() for each in first]
    network((torch.zeros(1, 64, 64, 3, dtype=torch.uint8),))
    for kept, copy in zip(first, copies, strict=True):
        assert torch.equal(kept, copy)


def test_threads_compile_and_run_the_same_network_at_once() -> None:
    network = _compiled(_random_teacher("efficientnet_lite0"), _student(2))
    pictures = [_pictures(1, 64, 64, 3) for _ in range(4)]
    found: dict[int, list[torch.Tensor]] = {}
    start = threading.Barrier(len(pictures))

    def work(place: int) -> None:
        start.wait(timeout=30)
        found[place] = [network((pictures[place],))[2] for _ in range(10)]

    threads = [threading.Thread(target=work, args=(place,), name=f"work {place}") for place in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert network.shapes == [(1, 64, 64, 3)]
    for place, picture in enumerate(pictures):
        alone = network((picture,))[2]
        assert all(torch.equal(each, alone) for each in found[place])


def test_the_shapes_that_were_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST", 2)
    network = _compiled(_random_teacher("resnet18"), detector.Student("resnet18"))
    for side in (32, 64, 32, 96):
        network.prepare(1, (side, 32))
    assert network.shapes == [(1, 32, 32, 3), (1, 96, 32, 3)]


def _student(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return randomised(detector.Student("efficientnet_lite0"), seed)


def _loaded(lite0: teacher.Teacher, precision: str, runtime: str) -> Engine:
    """Three products of two sizes."""
    engine = Engine(lite0, device="cpu", precision=precision, runtime=runtime)
    for seed, (product, size) in enumerate({"bolt": (64, 96), "nut": (64, 96), "plate": (96, 64)}.items()):
        engine.add(product, _student(seed), size, detector.Scoring(top_share=0.1 if product == "nut" else 0.0))
    return engine


@pytest.fixture(scope="module")
def plain(lite0: teacher.Teacher) -> Engine:
    return _loaded(lite0, "float32", "torch")


@pytest.fixture(scope="module")
def mixed(plain: Engine, good_cells: list[Path]) -> tuple[list[Pixels], list[str]]:
    """A batch of three products and two sizes, in no order."""
    products = ["bolt", "plate", "nut", "bolt", "nut", "plate", "bolt", "bolt"]
    cells = [images.read(path) for path in good_cells[: len(products)]]
    return [images.prepare(cell, plain.size(each)) for cell, each in zip(cells, products, strict=True)], products


@pytest.mark.parametrize(
    ("precision", "close"), [("float32", 1e-4), pytest.param("bfloat16", 2e-2, marks=needs_bfloat16)]
)
def test_an_engine_scores_mixed_batches_as_torch_does(
    lite0: teacher.Teacher, plain: Engine, mixed: tuple[list[Pixels], list[str]], precision: str, close: float
) -> None:
    engine = _loaded(lite0, precision, "openvino")
    assert (engine.identity, engine.needs_ranges) == (f"openvino-cpu-{precision}", False)
    found, expected = engine.inspect(*mixed), plain.inspect(*mixed)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=close)
    for row in range(len(mixed[0])):
        np.testing.assert_allclose(found.map(row), expected.map(row), rtol=close, atol=close)
    for row, (picture, product) in enumerate(zip(*mixed, strict=True)):
        alone = engine.inspect([picture], [product])
        np.testing.assert_allclose(alone.scores[0], found.scores[row], rtol=2e-6)
    scales = engine.scale_maps(mixed[0][0], mixed[1][0])
    np.testing.assert_allclose(scales.sum(0), found.map(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "close"), [("float32", 1e-4), pytest.param("bfloat16", 5e-2, marks=needs_bfloat16)]
)
@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_the_combined_score_is_that_of_torch(
    combined: Bundle,
    lite0: teacher.Teacher,
    mixed: tuple[list[Pixels], list[str]],
    tile: tuple[int, int] | None,
    precision: str,
    close: float,
) -> None:
    picture, inspections = mixed[0][0], []
    for engine in (
        Engine(lite0, device="cpu"), Engine(lite0, device="cpu", precision=precision, runtime="openvino")
    ):  # fmt: skip
        engine.add("cell", bundle.student(combined), combined.size, bundle.scoring(combined), tile=tile)
        inspections.append(engine.inspect([picture] * 5, ["cell"] * 5))
    expected, found = inspections
    np.testing.assert_allclose(found.scores, expected.scores, rtol=close)
    np.testing.assert_allclose(found.maxima, expected.maxima, rtol=close)
    if precision == "float32":
        np.testing.assert_allclose(found.map(0), expected.map(0), rtol=close, atol=close)
    assert expected.scores[0] != pytest.approx(expected.maxima[0], rel=0.1)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_a_picture_scores_the_same_after_a_restart_alone_or_in_a_batch_and_with_other_threads(
    lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]], precision: str
) -> None:
    before = torch.get_num_threads()
    try:
        scores = []
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            engine = _loaded(lite0, precision, "openvino")
            scores.append(engine.inspect(*mixed).scores)
            scores.append([engine.inspect([one], [own]).scores[0] for one, own in zip(*mixed, strict=True)])
    finally:
        torch.set_num_threads(before)
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=2e-6)


@needs_int8
def test_in_int8_scores_are_near_those_of_float32_and_torch(
    lite0: teacher.Teacher, plain: Engine, mixed: tuple[list[Pixels], list[str]]
) -> None:
    ranges = {
        product: plain.observe(product, [each for each, own in zip(*mixed, strict=True) if own == product])
        for product in plain.products
    }
    engines = [Engine(lite0, device="cpu", precision="int8", runtime=runtime) for runtime in backend.RUNTIMES]
    for engine in engines:
        for seed, product in enumerate(("bolt", "nut", "plate")):
            scoring = detector.Scoring(top_share=0.1 if product == "nut" else 0.0)
            engine.add(product, _student(seed), plain.size(product), scoring, ranges=ranges[product])
    fast = engines[1]
    assert (fast.identity, fast.needs_ranges) == ("openvino-cpu-int8", True)
    found = fast.inspect(*mixed)
    for other, close in ((plain, 0.1), (engines[0], 0.03)):
        np.testing.assert_allclose(found.scores, other.inspect(*mixed).scores, rtol=close)
    assert not np.allclose(found.scores, plain.inspect(*mixed).scores, rtol=1e-4), "it is int8"
    for row, (picture, product) in enumerate(zip(*mixed, strict=True)):
        np.testing.assert_allclose(fast.inspect([picture], [product]).scores[0], found.scores[row], rtol=2e-6)
    np.testing.assert_allclose(fast.scale_maps(mixed[0][0], mixed[1][0]).sum(0), found.map(0), rtol=1e-5, atol=1e-6)


@needs_int8
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_int8_students_of_every_design_come_near_float32(name: str) -> None:
    known, pixels = _random_teacher(name), _pictures(1, 64, 96, 3)
    pixels = torch.from_numpy(cv2.GaussianBlur(pixels[0].numpy(), (9, 9), 4))[None]
    plain, fast = Engine(known, device="cpu"), Engine(known, device="cpu", precision="int8", runtime="openvino")
    for design in ("official", "slim"):
        student = randomised(detector.Student(name, design=design), 3)
        plain.add(design, student, (64, 96))
        fast.add(design, student, (64, 96), ranges=plain.observe(design, [pixels[0].numpy()]))
    batch = [pixels[0].numpy()] * 2, ["official", "slim"]
    np.testing.assert_allclose(fast.inspect(*batch).scores, plain.inspect(*batch).scores, rtol=0.1)


def test_after_warming_nothing_is_compiled_for_any_batch_nor_for_a_product_that_comes_later(
    lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _loaded(lite0, "float32", "openvino")
    engine.warm([1, 5])
    engine.add("bolt", _student(7), (64, 96))
    engine.add("long", _student(8), (32, 96))

    def forbidden(network: compiled.Program, shape: compiled.Shape, side_by_side: bool) -> None:
        raise AssertionError(f"compiled for {shape}")

    monkeypatch.setattr(compiled.Program, "_compile", forbidden)
    pictures, products = [*mixed[0], np.zeros((32, 96, 3), np.uint8)], [*mixed[1], "long"]
    for rows in ([0], [0, 1], [2, 1, 0], [8], list(range(len(pictures)))):
        engine.inspect([pictures[row] for row in rows], [products[row] for row in rows])


def test_pictures_side_by_side_have_a_thread_each() -> None:
    network = _compiled(_random_teacher("efficientnet_lite0"), _student(2))
    network._ways = compiled.Ways("float32", 2)
    pixels = _pictures(4, 64, 96, 3)
    wanted = [network((pixels[row : row + 1],)) for row in range(4)]
    assert list(network._compiled) == [((1, 64, 96, 3), False)]
    together = Lanes(2).begin(lambda row: network((pixels[row : row + 1],)), range(4)).result()
    assert list(network._compiled) == [((1, 64, 96, 3), False), ((1, 64, 96, 3), True)]
    assert [each.requests.qsize() for each in network._compiled.values()] == [1, 2], "all were given back"
    for one, other in zip(wanted, together, strict=True):
        for distance, found in zip(one, other, strict=True):
            torch.testing.assert_close(found, distance, rtol=1e-5, atol=1e-6)
    how = network._ways.settings(side_by_side=True)
    assert (how["NUM_STREAMS"], how["INFERENCE_NUM_THREADS"]) == (2, 2)


def test_a_large_network_is_compiled_once_and_pictures_in_lanes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    known, student = _random_teacher("efficientnet_lite0"), _student(2)
    pixels = _pictures(4, 64, 96, 3)
    wanted = [_compiled(known, student)((pixels[row : row + 1],)) for row in range(4)]
    monkeypatch.setattr(compiled, "ONCE_FROM", 1 << 20)
    network = _compiled(known, student)
    network.prepare(1, (64, 96), side_by_side=True)
    turns = Lanes(2).begin(lambda row: network((pixels[row : row + 1],)), range(4)).result()
    assert list(network._compiled) == [((1, 64, 96, 3), False)]
    for one, other in zip(wanted, turns, strict=True):
        for distance, found in zip(one, other, strict=True):
            torch.testing.assert_close(found, distance, rtol=2e-6, atol=1e-7)


def test_torch_has_its_threads_back_after_each_batch(
    lite0: teacher.Teacher, mixed: tuple[list[Pixels], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole = detector.scores

    def spied(maps: torch.Tensor, top_share: float = 0.0) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return whole(maps, top_share)

    monkeypatch.setattr(detector, "scores", spied)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine = _loaded(lite0, "float32", "openvino")
        engine.inspect(*mixed)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(RevdistError, match="no product"):
            engine.inspect(mixed[0][:1], ["screw"])
        assert torch.get_num_threads() == 2
        assert engine._students["bolt"].student._ways.threads == 2
    finally:
        torch.set_num_threads(before)


def test_what_openvino_has_not_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {
        ("cuda", "float32"): "there is no cuda with openvino; use cpu, or torch",
        ("auto", "float16"): "there is no float16 on cpu with openvino; use one of int8, bfloat16, float32",
        ("cpu", "int4"): "precision 'int4' is not supported",
    }
    for (device, precision), message in refused.items():
        with pytest.raises(RevdistError, match=message):
            backend.target(device, precision, "openvino")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backend.target("auto", "float32", "openvino").identity == "openvino-cpu-float32"


class _Processor:
    """One that has nothing but float32."""

    def get_property(self, device: str, name: str) -> list[str]:
        return {("CPU", "OPTIMIZATION_CAPABILITIES"): ["FP32", "INT8"]}[device, name]


def test_a_processor_without_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_core", _Processor)
    with pytest.raises(RevdistError, match=r"this processor cannot compute in bfloat16: no avx512_bf16.*use float32"):
        backend.target("cpu", "bfloat16", "openvino")
    wanted = backend.Name("cpu", "auto", "openvino")
    assert backend.fastest(wanted, [{"openvino-cpu-bfloat16"}]).precision == "float32"


@needs_bfloat16
def test_the_fastest_is_that_of_the_runtime() -> None:
    wanted = backend.Name("auto", "auto", "openvino")
    every = {"torch-cpu-int8", "torch-cpu-float32", "openvino-cpu-float32", "openvino-cpu-bfloat16"}
    assert backend.fastest(wanted, [every]).precision == "bfloat16"
    if backend.computes("int8"):
        assert backend.fastest(wanted, [every | {"openvino-cpu-int8"}]).precision == "int8"
    assert backend.fastest(wanted, [every, every - {"openvino-cpu-bfloat16"}]).precision == "float32"


@pytest.mark.parametrize("missing", ["openvino", "onnx"])
def test_without_the_packages_the_error_says_what_to_install(
    run: Run, tiny: bundle.Bundle, good_cells: list[Path], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    compiled._core.cache_clear()
    status, out, err = run("predict", tiny.path, good_cells[50], "--engine", "openvino-cpu")
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("revdist: engine: openvino needs packages that are not here: ")
    assert second == "hint: pip install openvino onnx"


def _for_torch_alone(path: Path) -> None:
    """Make the bundle what an older revdist wrote: calibrated for torch alone."""
    manifest = json.loads((path / "bundle.json").read_text())
    del manifest["calibrations"]["openvino-cpu-float32"]
    (path / "bundle.json").write_text(json.dumps(manifest))


def test_a_bundle_is_calibrated_for_openvino(run: Run, tiny_copy: Path, good_cells: list[Path], tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for path in good_cells[60:72]:
        shutil.copy(path, more)
    _for_torch_alone(tiny_copy)
    status, _, err = run("predict", tiny_copy, good_cells[50], "--engine", "openvino-cpu")
    assert status == 2
    assert "no calibration for engine openvino-cpu-float32" in err
    command = ("calibrate", tiny_copy, "--good", more, "--false-reject-rate", 0.1)
    status, out, _ = run(*command, "--engine", "openvino-cpu-float32")
    assert status == 0
    assert "scores differ from torch-cpu-float32 by 0.00% (median)" in out
    changed = bundle.read(tiny_copy)
    for vector in changed.golden:
        assert changed.expected(vector, "openvino-cpu-float32") == pytest.approx(vector.score, rel=1e-4)
    found = json.loads(run("predict", tiny_copy, good_cells[50], "--engine", "openvino-cpu")[1])
    assert found["threshold"] == changed.calibration("openvino-cpu-float32").threshold
    by_itself = json.loads(run("predict", tiny_copy, good_cells[50], "--engine", "auto")[1])
    assert by_itself["threshold"] == found["threshold"], "auto is OpenVINO"


@needs_int8
def test_a_bundle_is_calibrated_for_int8_of_openvino(
    run: Run, tiny_copy: Path, good_cells: list[Path], tmp_path: Path
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for path in good_cells[60:90]:
        shutil.copy(path, more)
    command = ("calibrate", tiny_copy, "--good", more, "--false-reject-rate", 0.1, "--engine", "openvino-cpu-int8")
    status, out, err = run(*command)
    assert status == 0, err
    assert "unseen pictures were taken for the ranges of maps" in out
    found = json.loads(run("predict", tiny_copy, good_cells[50], "--engine", "openvino-cpu-int8")[1])
    assert found["threshold"] == bundle.read(tiny_copy).calibration("openvino-cpu-int8").threshold
