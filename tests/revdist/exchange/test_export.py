"""revdist.exchange.export and revdist.engines.openvino.onnx_graph: other runtimes find what torch finds, on real
pictures"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import command as cli
from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines import recording
from revdist.engines.engine import Engine
from revdist.engines.openvino import compiled
from revdist.engines.openvino.onnx_graph import Graph
from revdist.errors import RevdistError
from revdist.exchange import export
from revdist.networks import teacher
from revdist.recipe import BottleneckName, Recipe
from revdist.training import train

Run = Callable[..., tuple[int, str, str]]
CLOSE = 1e-4  # relative
SHORT = Recipe(
    teacher="efficientnet_lite0", student="slim", size=(64, 96), steps=2, batch=4, seed=3, false_reject_rate=0.2
)


def scored(content: bytes, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime makes of pictures (B, h, w, 3): maps (B, h, w), scores (B,)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    maps, scores = session.run([export.MAP, export.SCORE], {export.PIXELS: batch})
    return maps, scores


def prepared(paths: Sequence[Path], size: tuple[int, int]) -> list[Pixels]:
    return [images.prepare(images.read(path), size) for path in paths]


def check_like_torch(found: Bundle, taught_by: teacher.Teacher, pictures: Sequence[Pixels]) -> None:
    """The exported graph gives the engine's maps and scores, alone and in batches."""
    engine = Engine(taught_by, device="cpu")
    engine.add("part", bundle.student(found), found.size, bundle.scoring(found), tile=found.recipe.tile)
    inspection = engine.inspect(pictures, ["part"] * len(pictures))
    content = export.model(found, taught_by)
    for begin, end in [(0, 1), (1, 4)]:
        maps, scores = scored(content, np.stack(pictures[begin:end]))
        assert (maps.dtype, maps.shape) == (np.float32, (end - begin, *found.size))
        assert (scores.dtype, scores.shape) == (np.float32, (end - begin,))
        np.testing.assert_allclose(scores, inspection.scores[begin:end], rtol=CLOSE)
        for found_map, place in zip(maps, range(begin, end), strict=True):
            np.testing.assert_allclose(found_map, inspection.map(place), rtol=CLOSE, atol=1e-6)


@pytest.fixture(scope="module")
def pictures(good_cells: list[Path], broken_cells: list[Path]) -> list[Pixels]:
    return prepared([*good_cells[50:52], *broken_cells[:2]], (64, 96))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"combine": "multiply"}, {"scales": (1, 3)}, {"scales": (2,)}, {"combine": "multiply", "scales": (2, 3)},
        {"combine": "multiply", "scales": (3,)}, {"top_share": 0.1}, {"top_share": 1.0}, {"top_share": 1e-9},
    ],
)  # fmt: skip
def test_every_way_to_score_gives_what_the_engine_gives(
    changes: dict[str, object], tiny: Bundle, lite0: teacher.Teacher, pictures: list[Pixels]
) -> None:
    recipe = dataclasses.replace(tiny.recipe, **changes)  # type: ignore[arg-type]
    check_like_torch(dataclasses.replace(tiny, recipe=recipe), lite0, pictures)


@pytest.mark.parametrize("tile", [(128, 128), (64, 224), (160, 96)])
def test_tiles_give_what_the_engine_gives(
    tile: tuple[int, int], tiny: Bundle, lite0: teacher.Teacher, good_cells: list[Path]
) -> None:
    recipe = dataclasses.replace(tiny.recipe, size=(160, 224), tile=tile)
    tiled = dataclasses.replace(tiny, recipe=recipe, size=recipe.size)
    assert recipe.tiles.count > 1
    check_like_torch(tiled, lite0, prepared(good_cells[50:54], recipe.size))


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_the_combined_score_is_what_the_engine_gives(
    tile: tuple[int, int] | None, combined: Bundle, lite0: teacher.Teacher, pictures: list[Pixels]
) -> None:
    recipe = dataclasses.replace(combined.recipe, tile=tile)
    check_like_torch(dataclasses.replace(combined, recipe=recipe), lite0, pictures)


@pytest.mark.parametrize("bottleneck", ["coarse", "oce", "pretrained"])
def test_every_bottleneck_gives_what_the_engine_gives(
    bottleneck: BottleneckName, good_folder: Path, lite0: teacher.Teacher, pictures: list[Pixels], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(SHORT, bottleneck=bottleneck)
    job = train.Job(good=good_folder, product="cell", output=tmp_path / "cell", recipe=recipe)
    check_like_torch(train.train(job, lite0, device="cpu"), lite0, pictures)


def test_a_resnet_gives_what_the_engine_gives(
    good_folder: Path, resnet18_file: Path, pictures: list[Pixels], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(SHORT, teacher="resnet18", student="official")
    job = train.Job(good=good_folder, product="cell", output=tmp_path / "cell", recipe=recipe)
    encoder = teacher.load("resnet18", resnet18_file)
    check_like_torch(train.train(job, encoder, device="cpu"), encoder, pictures)


@pytest.fixture(scope="module")
def exported(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle's model."""
    path = tmp_path_factory.mktemp("models") / "cell.onnx"
    assert cli.main(["export", str(tiny.path), "--output", str(path)]) == 0
    return path


def test_the_command_writes_a_file_that_explains_itself(run: Run, tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "new" / "cell.onnx"
    status, out, err = run("export", tiny.path, "--output", path)
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert first == str(path)
    told = re.fullmatch(r"6 golden pictures: scores differ from torch's by (.+) at most, relative", second)
    assert told
    assert float(told[1]) <= CLOSE
    assert [each.name for each in path.parent.iterdir()] == ["cell.onnx"]
    made = onnx.load(path)
    assert [(each.domain, each.version) for each in made.opset_import] == [("", 17)]
    assert (made.producer_name, made.graph.name) == ("revdist", "cell")
    known = {each.key: each.value for each in made.metadata_props}
    assert (known["product"], known["bundle_sha256"]) == ("cell", tiny.digest)
    assert (known["teacher"], known["teacher_sha256"]) == (tiny.teacher.name, tiny.teacher.sha256)
    assert float(known["threshold.torch-cpu-float32"]) == tiny.calibration("torch-cpu-float32").threshold
    assert (known["trained.torch"], known["exported.onnx"]) == (tiny.versions["torch"], onnx.__version__)
    assert known["preprocessing"] == images.PREPROCESSING


def test_golden_pictures_get_the_same_decisions_in_the_same_order(tiny: Bundle, exported: Path) -> None:
    known = bundle.golden_pictures(tiny)
    _, scores = scored(exported.read_bytes(), np.stack([pixels for _, pixels in known]))
    expected = [vector.score for vector, _ in known]
    assert list(np.argsort(scores)) == list(np.argsort(expected))
    calibration = tiny.calibration("torch-cpu-float32")
    assert [calibration.decide(float(each)) for each in scores] == [calibration.decide(each) for each in expected]


def test_a_bundle_gives_the_same_bytes_again(tiny: Bundle, lite0: teacher.Teacher, exported: Path) -> None:
    assert export.model(tiny, lite0) == exported.read_bytes()


def test_a_fixed_batch_is_compared_too_and_takes_no_other(
    run: Run, tiny: Bundle, pictures: list[Pixels], tmp_path: Path
) -> None:
    status, out, _ = run("export", tiny.path, "--output", tmp_path / "four.onnx", "--batch", 4)
    assert status == 0
    assert "6 golden pictures: scores differ" in out
    content = (tmp_path / "four.onnx").read_bytes()
    assert scored(content, np.stack(pictures))[1].shape == (4,)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="invalid dimensions"):
        scored(content, np.stack(pictures[:3]))
    status, _, err = run("export", tiny.path, "--output", tmp_path / "none.onnx", "--batch", -1)
    assert status == 2
    assert err == "revdist: batch is -1, must be 1 or more, or 0 for any number of pictures\n"


def test_openvino_gives_what_onnxruntime_gives(exported: Path, pictures: list[Pixels]) -> None:
    core = compiled.openvino_package().Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = core.compile_model(core.read_model(exported), "CPU", settings)
    for batch in (np.stack(pictures[:1]), np.stack(pictures[1:])):
        maps, scores = scored(exported.read_bytes(), batch)
        found = network({export.PIXELS: batch})
        np.testing.assert_allclose(found[export.SCORE], scores, rtol=CLOSE)
        np.testing.assert_allclose(found[export.MAP], maps, rtol=CLOSE, atol=1e-6)


def test_without_onnx_the_error_says_what_to_install(
    run: Run, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, out, err = run("export", tiny.path, "--output", tmp_path / "cell.onnx")
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("revdist: a model cannot be exported without onnx: ")
    assert second == "hint: pip install onnx"
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_the_model_is_not_compared_and_that_is_told(
    run: Run, tiny: Bundle, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, out, _ = run("export", tiny.path, "--output", tmp_path / "cell.onnx")
    assert status == 0
    assert out.splitlines()[1] == "not compared with torch: onnxruntime is missing (pip install onnxruntime)"
    assert (tmp_path / "cell.onnx").read_bytes() == exported.read_bytes()


def test_a_model_that_scores_otherwise_is_not_written(
    run: Run, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export.model

    def spoilt(found: Bundle, taught_by: teacher.Teacher, *, batch: int = 0) -> bytes:
        taught_by.mean = taught_by.mean + 1
        return whole(found, taught_by, batch=batch)

    monkeypatch.setattr(export, "model", spoilt)
    status, out, err = run("export", tiny.path, "--output", tmp_path / "cell.onnx")
    assert (status, out) == (2, "")
    assert "onnxruntime's scores of the golden pictures differ from torch's by " in err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_file_is_refused_before_the_work(run: Run, tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path, tmp_path / "file" / "cell.onnx"):
        status, _, err = run("export", tiny.path, "--output", place)
        assert status == 2
        assert f"revdist: {place}: a model cannot be written there: " in err
        assert "\nhint: name a file" in err
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


LIMITED = """
import resource, sys
from revdist import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_write_that_fails_halfway_leaves_the_older_file_and_no_debris(tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "cell.onnx"
    path.write_text("older")
    command = [sys.executable, "-c", LIMITED, "export", str(tiny.path), "--output", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2, ran.stderr
    assert f"revdist: {path}: cannot be written: File too large" in ran.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["cell.onnx"]
    assert path.read_text() == "older"


class _Odd(nn.Module):
    """What the networks here do not have, but might."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, stride=2, dilation=2, groups=2)
        self.transposed = nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2)
        self.doubling = nn.ConvTranspose2d(4, 3, 2, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = F.hardtanh(self.grouped(F.pad(x, (0, 1, 2, 3), value=0.5)), -0.5, 0.25)
        wide = self.doubling(self.transposed(x))
        pooled = F.max_pool2d(F.max_pool2d(wide, (3, 2), 2), 2)
        return pooled, torch.cat([wide, torch.zeros_like(wide).detach()], 3), F.pad(wide, (1, 0))


def test_odd_convolutions_paddings_and_poolings_are_translated() -> None:
    torch.manual_seed(0)
    network, picture = _Odd().eval(), torch.randn(2, 4, 20, 24)
    graph = Graph()
    with torch.no_grad():
        expected = network(picture)
    outputs = graph.network(recording.record(network, picture[:1, :, :16, :16]), ["x"])
    operations = [node.op_type for node in graph.nodes]
    assert [operations.count(each) for each in ("Conv", "ConvTranspose", "DepthToSpace")] == [2, 1, 1]
    describe = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "odd",
            [describe("x", onnx.TensorProto.FLOAT, ["batch", 4, 20, 24])],
            [describe(each, onnx.TensorProto.FLOAT, None) for each in outputs],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", export.OPSET)],
        ir_version=export.FORMAT,
    )
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for found, wanted in zip(session.run(outputs, {"x": picture.numpy()}), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=CLOSE, atol=1e-6)


class _Calls(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self._function(x),)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x + 1, "the addition of a number has no translation"),
        (lambda x: F.max_pool2d(x, 3, 1, 1, 2), "max-pooling with dilation or ceil_mode has no translation"),
        (torch.sigmoid, "sigmoid"),
    ],
)
def test_what_has_no_translation_is_an_error(function: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
    with pytest.raises(RevdistError, match=message):
        Graph().network(recording.record(_Calls(function), torch.zeros(1, 2, 8, 8)), ["x"])
