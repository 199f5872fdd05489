"""rejectd.inspector: models that come and go while frames pass. A real bundle on the real engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rejectd.contract.messages import Frame, Pixels, Policy
from rejectd.contract.settings import Device, Engine, Precision, Product, Runtime
from rejectd.inspector import Inspector, InspectorError
from revdist.cli import command as cli
from revdist.data import images
from revdist.engines import backend

CPU = Engine(device=Device.CPU, threads=1)


def variant(bundle: Path, path: Path, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> Path:
    """A copy of a bundle with another manifest, and so another digest."""
    shutil.copytree(bundle, path)
    manifest = json.loads((path / "bundle.json").read_text())
    manifest["quality"]["made_by"] = hash(path.name) % 1000
    change(manifest)
    (path / "bundle.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture
def inspector(bundle: Path) -> Inspector:
    """Two products."""
    return Inspector(CPU, {"cell": Product(bundle=bundle), "wafer": Product(bundle=bundle)})


@pytest.fixture(scope="module")
def settled(bundle: Path) -> Inspector:
    """The same for all tests that leave it as it was."""
    return Inspector(CPU, {"cell": Product(bundle=bundle), "wafer": Product(bundle=bundle)})


@pytest.fixture(scope="module")
def pictures(cells: list[Path], defective_cells: list[Path]) -> list[Pixels]:
    paths = [*cells[100:102], *defective_cells[:2]]
    return [np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)) for path in paths]


def a_frame(inspector: Inspector, picture: Pixels, product: str = "cell") -> Frame:
    """A frame as the pipeline makes it: prepared for the model that is in force now."""
    pixels, model = inspector.prepare(picture, product)
    return Frame(
        event_id="e",
        camera="a",
        product=product,
        seq=1,
        captured_ns=0,
        captured_unix_ns=0,
        deadline_ns=1,
        policy=Policy.REJECT,
        source="",
        model=model,
        pixels=pixels,
        picture=picture,
    )


def test_the_known_pictures_of_a_bundle_get_the_scores_that_it_says(settled: Inspector) -> None:
    model = settled.models["cell"]
    assert {picture.kind for picture in model.golden} == {"good", "scratch"}
    for picture in model.golden:
        assert picture.pixels.shape == (*model.size, 3)
        frame = a_frame(settled, picture.pixels)
        (result,) = settled.inspect([frame])
        assert abs(result.score - picture.expected) <= picture.tolerance
        assert (result.bundle, result.engine, result.threshold) == (model.digest, model.engine, model.threshold)
        assert result.engine_ns > 0


def test_a_mixed_batch_is_judged_product_by_product_and_only_rejects_bring_a_map(
    settled: Inspector, pictures: list[Pixels]
) -> None:
    calibrated = settled.models["cell"].calibration.threshold
    cell, wafer = settled.models["cell"].key, settled.models["wafer"].key
    settled.set_threshold(cell, 1000)
    settled.set_threshold(wafer, 1e-9)
    frames = [a_frame(settled, pictures[n % 4], "cell" if n % 2 else "wafer") for n in range(5)]
    results = settled.inspect(frames)
    assert [result.threshold for result in results] == [1e-9, 1000, 1e-9, 1000, 1e-9]
    assert [result.anomaly_map is None for result in results] == [False, True, False, True, False]
    for result in results[::2]:
        assert result.anomaly_map is not None
        assert float(result.anomaly_map.max()) == pytest.approx(result.score, rel=1e-6)
    alone = [settled.inspect([frame])[0].score for frame in frames]
    assert [result.score for result in results] == pytest.approx(alone, rel=1e-4)
    without = settled.inspect(frames, maps=False)
    assert [result.anomaly_map for result in without] == [None] * 5
    assert [result.score for result in without] == [result.score for result in results]
    assert [result.score_max for result in results] == [result.score for result in results], "the score is the paper's"
    settled.set_threshold(cell, calibrated)
    settled.set_threshold(wafer, calibrated)


def test_batches_that_are_begun_before_others_have_ended_get_the_same_scores(
    bundle: Path, pictures: list[Pixels]
) -> None:
    made = Inspector(Engine(device=Device.CPU, threads=2), {"cell": Product(bundle=bundle)})
    made.set_threshold(made.models["cell"].key, 1e-9)  # so that all have maps
    sizes = ((0, 4), (1, 2), (2, 1), (3, 4), (1, 3))  # of which 1 and 3 leave one picture that no lane takes
    batches = [[a_frame(made, pictures[(n + shift) % 4]) for n in range(count)] for shift, count in sizes]
    begun = [made.begin(frames) for frames in batches]
    room = [each._begun.result().wait_for_room is not None for each in begun]
    busy = [True] * len(sizes)  # beside other programs each picture has a lane, also a single one
    assert room in ([True, True, False, True, False], busy)
    together = [each.results() for each in begun]
    for frames, results in zip(batches, together, strict=True):
        alone = [made.inspect([frame])[0] for frame in frames]
        assert [each.score for each in results] == pytest.approx([each.score for each in alone], rel=1e-4)
        for one, other in zip(results, alone, strict=True):
            np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, rtol=1e-3, atol=1e-5)
            assert 0 < one.engine_ns < 60e9
    made.close()


def test_a_changeover_happens_between_two_frames(
    inspector: Inspector, bundle: Path, pictures: list[Pixels], tmp_path: Path
) -> None:
    before = inspector.models["cell"]
    old = a_frame(inspector, pictures[0])
    model = inspector.load("cell", variant(bundle, tmp_path / "new"))
    assert inspector.models["cell"] is before, "it is loaded, but not in force"
    assert a_frame(inspector, pictures[0]).model == before.key
    assert inspector.use(model) is inspector.models["cell"] is model
    new = a_frame(inspector, pictures[0])
    assert new.model == model.key != old.model
    assert [result.bundle for result in inspector.inspect([old, new])] == [before.digest, model.digest]
    inspector.unload(before.key)
    assert inspector.inspect([new])[0].bundle == model.digest


def test_a_frame_of_a_model_that_was_put_away_fails_and_names_it_and_the_rest_of_its_batch_can_be_judged(
    inspector: Inspector, bundle: Path, pictures: list[Pixels], tmp_path: Path
) -> None:
    old = a_frame(inspector, pictures[0])
    inspector.use(inspector.load("cell", variant(bundle, tmp_path / "new")))
    inspector.unload(old.model)
    new = a_frame(inspector, pictures[0])
    for frames in ([old], [new, old]):
        with pytest.raises(InspectorError, match=r"the model 'cell@[0-9a-f]{64}' has been put away"):
            inspector.inspect(frames)
    assert len(inspector.inspect([new])) == 1


def test_a_model_in_force_is_never_put_away(settled: Inspector, pictures: list[Pixels]) -> None:
    key = settled.models["cell"].key
    settled.unload(key)
    assert settled.inspect([a_frame(settled, pictures[0])])
    settled.unload("nobody's")


def test_a_bundle_that_is_loaded_already_is_not_loaded_again(settled: Inspector, bundle: Path) -> None:
    assert settled.load("cell", bundle) is settled.models["cell"]
    assert settled.load("wafer", bundle) is settled.models["wafer"], "of another product it is another model"
    assert settled.models["cell"].key != settled.models["wafer"].key


def test_a_damaged_copy_of_what_is_in_force_is_refused_though_its_manifest_is_the_same(
    settled: Inspector, bundle: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(bundle, tmp_path / "copied"))
    truncated(copied)
    with pytest.raises(InspectorError, match=r"student\.safetensors: differs from the manifest"):
        settled.load("cell", copied)


def truncated(path: Path) -> None:
    weights = path / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], Callable[[Path], object], str]] = {
    "truncated": (lambda manifest: None, truncated, r"student\.safetensors: differs from the manifest"),
    "another teacher": (
        lambda manifest: manifest["teacher"].update(name="wide_resnet50_2"),
        lambda path: None,
        "trained with teacher wide_resnet50_2",
    ),
    "other weights of the teacher": (
        lambda manifest: manifest["teacher"].update(sha256="0" * 64),
        lambda path: None,
        "trained with teacher efficientnet_lite0 000000000000",
    ),
    "no calibration for this engine": (
        lambda manifest: manifest.update(calibrations={}),
        lambda path: None,
        "no calibration for engine",
    ),
    "no manifest": (lambda manifest: None, lambda path: (path / "bundle.json").unlink(), "bundle.json: cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bundle_that_cannot_be_used_is_named_and_changes_nothing(
    settled: Inspector, bundle: Path, pictures: list[Pixels], tmp_path: Path, name: str
) -> None:
    change, damage, message = BROKEN[name]
    path = variant(bundle, tmp_path / "broken", change)
    damage(path)
    before = dict(settled.models)
    with pytest.raises(InspectorError, match=rf"product cell: .*{message}"):
        settled.load("cell", path)
    assert settled.models == before
    assert settled.inspect([a_frame(settled, pictures[0])])


def test_a_service_does_not_start_with_a_bundle_whose_known_pictures_disagree(bundle: Path, tmp_path: Path) -> None:
    path = variant(bundle, tmp_path / "liar", lambda manifest: manifest["golden"][0].update(score=99.0))
    with pytest.raises(InspectorError, match=r"product cell: .* expected 99"):
        Inspector(CPU, {"cell": Product(bundle=path)})


def test_products_of_different_teachers_are_told_before_anything_is_loaded(bundle: Path, tmp_path: Path) -> None:
    other = variant(bundle, tmp_path / "other", lambda manifest: manifest["teacher"].update(name="wide_resnet50_2"))
    with pytest.raises(InspectorError, match=r"cell: efficientnet_lite0, wafer: wide_resnet50_2.*same --teacher"):
        Inspector(CPU, {"cell": Product(bundle=bundle), "wafer": Product(bundle=other)})


# thresholds


def test_a_threshold_holds_for_one_loaded_bundle_and_for_its_frames_that_are_under_way(
    inspector: Inspector, bundle: Path, pictures: list[Pixels], tmp_path: Path
) -> None:
    old, frame = inspector.models["cell"], a_frame(inspector, pictures[0])
    calibrated = old.calibration.threshold
    assert old.threshold == inspector.models["wafer"].threshold == calibrated, "until another is set"
    new = inspector.load("cell", variant(bundle, tmp_path / "new"))
    assert inspector.set_threshold(old.key, 0.123).threshold == 0.123
    assert inspector.inspect([frame])[0].threshold == inspector.models["cell"].threshold == 0.123
    assert inspector.models["wafer"].threshold == calibrated
    assert inspector.set_threshold(new.key, 0.7) == inspector.load("cell", tmp_path / "new")
    assert inspector.models["cell"].threshold == 0.123, "the other one is not in force yet"
    assert inspector.use(new).threshold == inspector.models["cell"].threshold == 0.7
    results = inspector.inspect([frame, a_frame(inspector, pictures[0])])
    assert [result.threshold for result in results] == [0.123, 0.7]


def test_a_picture_that_no_model_can_see_is_the_cameras_fault(settled: Inspector) -> None:
    with pytest.raises(InspectorError):
        settled.prepare(np.zeros((0, 5, 3), np.uint8), "cell")


def test_batches_of_every_size_are_tried_before_the_first_part_comes(settled: Inspector) -> None:
    elapsed_ns = settled.warm({4, 1})
    assert list(elapsed_ns) == [1, 4]
    assert all(elapsed > 0 for elapsed in elapsed_ns.values())


def test_a_product_in_tiles_is_judged_beside_one_without(bundle: Path, cells: list[Path], tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for path in cells[120:140]:
        shutil.copy(path, good)
    tiled = tmp_path / "tiled"
    command = ["train", "--good", str(good), "--product", "module", "--output", str(tiled), "--device", "cpu"]
    command += ["--teacher", "efficientnet_lite0", "--size", "128x160", "--tile", "64x96", "--steps", "2"]
    assert cli.main([*command, "--false-reject-rate", "0.3"]) == 0
    products = {"module": Product(bundle=tiled), "cell": Product(bundle=bundle)}
    made = Inspector(CPU, products)
    elapsed_ns = made.warm({1, 4})
    assert all(elapsed > 0 for elapsed in elapsed_ns.values())
    picture = np.asarray(cv2.cvtColor(cv2.imread(str(cells[100])), cv2.COLOR_BGR2RGB))
    frames = [a_frame(made, picture, product) for product in ("module", "cell", "module")]
    found = made.inspect(frames)
    alone = [made.inspect([frame])[0] for frame in frames]
    assert [each.score for each in found] == pytest.approx([each.score for each in alone], rel=1e-5)
    assert found[0].score != found[1].score


def test_a_padded_product_s_maps_lie_over_the_picture_as_it_was_captured(bundle: Path, tmp_path: Path) -> None:
    padded = variant(bundle, tmp_path / "padded", lambda manifest: manifest["recipe"].update(fit="pad"))
    inspector = Inspector(CPU, {"cell": Product(bundle=padded)})
    height, width = inspector.models["cell"].size
    picture = np.full((4 * height, 12 * width, 3), 90, np.uint8)  # three times as wide as the input
    picture[:, : picture.shape[1] // 8] = np.random.default_rng(0).integers(0, 256, (4 * height, 12 * width // 8, 3))
    frame = a_frame(inspector, picture)
    assert np.array_equal(frame.pixels, images.prepare(picture, (height, width), "pad"))
    inspector.set_threshold(frame.model, 0.0)
    [result] = inspector.inspect([frame])
    assert result.anomaly_map is not None
    assert result.anomaly_map.shape == (round(height / 3), width)
    assert result.anomaly_map.max() == pytest.approx(result.score)
    inspector.close()


def test_whichever_threads_load_inspect_and_prepare_one_team_of_threads_computes(
    bundle: Path, cells: list[Path]
) -> None:
    """More teams than processors make OpenMP slow: see revdist.engines.lanes."""
    program = """
import os, sys, threading, time
from pathlib import Path
import cv2, numpy, torch
torch.set_num_threads(3)
from rejectd.inspector import Inspector
from rejectd.contract.settings import Device, Engine, Product, Runtime
from rejectd.contract.messages import Frame, Policy

def native():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

before = native()
made = Inspector(Engine(device=Device.CPU, runtime=Runtime.TORCH), {"cell": Product(bundle=Path(sys.argv[1]))})
made.warm({1, 4})
picture = cv2.imread(sys.argv[2])

def camera():
    for _ in range(3):
        pixels, model = made.prepare(numpy.tile(picture, (4, 4, 1)), "cell")
        frame = Frame(
            event_id="e", camera="a", product="cell", seq=1, captured_ns=0, captured_unix_ns=0, deadline_ns=1,
            policy=Policy.REJECT, source="", model=model, pixels=pixels, picture=picture,
        )
        assert made.inspect([frame])[0].score > 0
    made.load("cell", Path(sys.argv[1]))
    teams.append(torch.get_num_threads())

teams = []
threads = [threading.Thread(target=camera) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
left = time.monotonic() + 5  # threads that were joined are not gone at once
while native() - before > 2 and time.monotonic() < left:
    time.sleep(0.01)
print(native() - before, set(teams), made._device.call(torch.get_num_threads))
made.close()
"""
    command = [sys.executable, "-c", program, bundle, cells[100]]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (found.stdout, found.returncode) == ("2 {1} 3\n", 0), found.stderr


def test_what_computes_gives_way_to_what_answers(settled: Inspector) -> None:
    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert settled._device.call(nice) == nice() + 1


def test_what_cannot_be_loaded_leaves_no_thread_behind(bundle: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    spoiled = variant(bundle, tmp_path / "spoiled", lambda manifest: manifest["golden"][0].update(score=1e6))
    for path in (tmp_path / "missing", spoiled):
        with pytest.raises(InspectorError):
            Inspector(CPU, {"cell": Product(bundle=path)})
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive(), thread.name


def test_to_get_ready_torch_s_compiler_is_not_imported(bundle: Path) -> None:
    """It takes a second, and nothing is compiled: some of torch's conveniences import it all the same."""
    program = """
import sys
from pathlib import Path
from rejectd.inspector import Inspector
from rejectd.contract.settings import Device, Engine, Product, Runtime
Inspector(Engine(device=Device.CPU), {"cell": Product(bundle=Path(sys.argv[1]))}).warm({1, 8})
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    made = subprocess.run([sys.executable, "-c", program, bundle], capture_output=True, text=True, check=False)
    assert (made.stdout, made.returncode) == ("[]\n", 0), made.stderr


def older(bundle: Path, path: Path) -> Path:
    """A copy of a bundle as an older revdist made it: calibrated for torch alone."""
    return variant(bundle, path, lambda manifest: manifest["calibrations"].pop("openvino-cpu-float32"))


def running(runtime: Runtime, path: Path) -> Inspector:
    return Inspector(CPU.model_copy(update={"runtime": runtime}), {"cell": Product(bundle=path)})


def test_networks_are_computed_by_the_runtime_that_is_set(
    settled: Inspector, bundle: Path, tmp_path: Path, pictures: list[Pixels]
) -> None:
    plain, openvino = running(Runtime.TORCH, bundle), running(Runtime.OPENVINO, bundle)
    results = [made.inspect([a_frame(made, pictures[0])])[0] for made in (plain, openvino, settled)]
    identities = ["torch-cpu-float32", "openvino-cpu-float32", "openvino-cpu-float32"]
    assert [result.engine for result in results] == identities
    assert [result.score for result in results] == pytest.approx([results[0].score] * 3, rel=1e-4)
    with pytest.raises(InspectorError, match=r"no calibration for engine openvino-cpu-float32.*--engine openvino-cpu-"):
        running(Runtime.OPENVINO, older(bundle, tmp_path / "older"))


def test_after_an_upgrade_a_line_goes_on_with_bundles_that_know_torch_alone(
    bundle: Path, tmp_path: Path, pictures: list[Pixels], caplog: pytest.LogCaptureFixture
) -> None:
    path = older(bundle, tmp_path / "older")
    both = {"cell": Product(bundle=path), "wafer": Product(bundle=bundle)}
    made = Inspector(CPU, both)
    result = made.inspect([a_frame(made, pictures[0])])[0]
    assert (result.engine, result.score > 0) == ("torch-cpu-float32", True)
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert warning.getMessage().endswith(
        f"revdist calibrate {path} --good DIR --false-reject-rate 0.1 --engine openvino-cpu-float32"
    )


def test_a_line_on_openvino_refuses_a_bundle_that_knows_torch_alone_and_goes_on(
    settled: Inspector, bundle: Path, tmp_path: Path
) -> None:
    before = settled.models["cell"].key
    with pytest.raises(InspectorError, match=r"no calibration for engine openvino-cpu-float32.*--engine openvino-cpu-"):
        settled.load("cell", older(bundle, tmp_path / "older"))
    assert settled.models["cell"].key == before


@pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
def test_the_fastest_precision_that_every_bundle_is_calibrated_for_is_taken(
    bundle: Path, cells: list[Path], tmp_path: Path, pictures: list[Pixels]
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for path in cells[120:140]:
        shutil.copy(path, good)
    both = [Path(shutil.copytree(bundle, tmp_path / name)) for name in ("cell", "wafer")]
    for path in both:
        command = ["calibrate", str(path), "--good", str(good), "--false-reject-rate", "0.1", "--engine"]
        for precision in ("bfloat16", "int8") if path == both[0] else ("bfloat16",):
            assert cli.main([*command, f"openvino-cpu-{precision}"]) == 0
    cell, wafer = (Product(bundle=path) for path in both)

    def identity(precision: Precision, **products: Product) -> str:
        made = Inspector(CPU.model_copy(update={"precision": precision}), products)
        result = made.inspect([a_frame(made, pictures[0])])[0]
        assert (result.engine, result.score > 0) == (made.models["cell"].engine, True)
        return result.engine

    assert identity(Precision.AUTO, cell=cell) == "openvino-cpu-int8"
    assert identity(Precision.AUTO, cell=cell, wafer=wafer) == "openvino-cpu-bfloat16"
    assert identity(Precision.FLOAT32, cell=cell, wafer=wafer) == "openvino-cpu-float32"
    missing = r"no calibration for engine openvino-cpu-int8.*--engine openvino-cpu-int8"
    with pytest.raises(InspectorError, match=missing):
        identity(Precision.INT8, cell=cell, wafer=wafer)
