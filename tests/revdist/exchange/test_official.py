"""revdist.exchange.official: checkpoints of the paper's code become bundles; anything that does not fit is named."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
import torch
import torchvision
from PIL import Image

from revdist.bundle import bundle
from revdist.cli import command
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.errors import BundleError
from revdist.exchange import official
from revdist.networks import teacher
from revdist.scoring import detector

UNUSED = {"conv4.weight": (512, 1024, 1, 1), "bn4.weight": (512,), "bn4.bias": (512,), "bn4.running_mean": (512,)}


@pytest.fixture
def parts() -> dict[str, dict[str, torch.Tensor]]:
    """A checkpoint as the official code saves it, with the layers that it never runs."""
    student = detector.Student("resnet18")
    parity.fill(student.bottleneck)
    parity.fill(student.decoder)
    unused = {name: torch.zeros(shape) for name, shape in UNUSED.items()}
    return {"bn": {**student.bottleneck.state_dict(), **unused}, "decoder": dict(student.decoder.state_dict())}


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path / "wres50_cell.pth")
    return path / "wres50_cell.pth"


def test_a_checkpoint_becomes_a_bundle_that_scores_as_the_checkpoint(
    parts: dict[str, dict[str, torch.Tensor]],
    tmp_path: Path,
    cells: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = torchvision.models.resnet18(weights=None)
    parity.fill(network)
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    (tmp_path / "good").mkdir()
    for cell in cells[:12]:
        shutil.copy(cell, tmp_path / "good")
    arguments = ["import-rd4ad", saved(tmp_path, parts), "--teacher", "resnet18", "--product", "cell", "--size", "64"]
    arguments += [
        "--teacher-weights",
        tmp_path / "teacher.pth",
        "--good",
        tmp_path / "good",
        "--output",
        tmp_path / "b",
    ]
    assert command.main([str(each) for each in arguments]) == 0
    assert "Proven with 12 pictures" in capsys.readouterr().out
    loaded = teacher.load("resnet18", tmp_path / "teacher.pth")
    engine = Engine(loaded, device="cpu")
    found = bundle.load(tmp_path / "b", engine)
    assert (found.product, found.size, found.recipe.epochs, found.recipe.learning_rate) == ("cell", (64, 64), 200, 5e-3)
    assert found.trained_on == frozenset(), "nobody knows"
    pixels = images.prepare(images.read(cells[20]), (64, 64))
    plain = detector.Student("resnet18").eval()
    plain.bottleneck.load_state_dict({k: v for k, v in parts["bn"].items() if k not in UNUSED})
    plain.decoder.load_state_dict(parts["decoder"])
    with torch.no_grad():
        taught = loaded(detector.normalise(torch.tensor(pixels)[None], loaded.mean, loaded.std))
        score = detector.scores(detector.smooth(detector.anomaly_maps(taught, plain(taught), (64, 64))))
    assert engine.inspect([pixels], ["cell"]).scores[0] == pytest.approx(float(score), rel=1e-4)


def test_pictures_of_12_bits_are_refused_until_their_bits_are_stated_and_the_bundle_keeps_them(
    parts: dict[str, dict[str, torch.Tensor]], tmp_path: Path, cells: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    network = torchvision.models.resnet18(weights=None)
    parity.fill(network)
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    (tmp_path / "good").mkdir()
    for cell in cells[:12]:
        deep = images.read(cell)[..., 0].astype(np.uint16) * 16
        Image.fromarray(deep).save(tmp_path / "good" / f"{cell.stem}.png")
    arguments = ["import-rd4ad", saved(tmp_path, parts), "--teacher", "resnet18", "--product", "cell", "--size", 64]
    arguments += [
        "--teacher-weights",
        tmp_path / "teacher.pth",
        "--good",
        tmp_path / "good",
        "--output",
        tmp_path / "b",
    ]
    texts = [str(argument) for argument in arguments]
    assert command.main(texts) == 2
    assert "--bits 12" in capsys.readouterr().err
    assert command.main([*texts, "--bits", "12"]) == 0
    assert bundle.read(tmp_path / "b").recipe.reading.bits == 12


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "wide_resnet50_2"])
def test_every_official_network_is_taken(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        student = detector.Student(name)
    zeros = {
        part: {key: torch.zeros(()).to(value.dtype).expand(value.shape) for key, value in module.state_dict().items()}
        for part, module in (("bn", student.bottleneck), ("decoder", student.decoder))
    }
    taken = official.student(saved(tmp_path, zeros), name)
    assert sum(each.numel() for each in taken.parameters()) == sum(each.numel() for each in student.parameters())


def test_what_does_not_fit_is_an_error_that_lists_the_tensors(
    parts: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    parts["bn"]["conv9.weight"] = torch.zeros(1)
    del parts["bn"]["conv1.weight"]
    with pytest.raises(BundleError, match=r"bn: missing conv1\.weight; unexpected conv9\.weight; the checkpoint is of"):
        official.student(saved(tmp_path, parts), "resnet18")


def test_a_checkpoint_that_is_not_finite_is_refused(parts: dict[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    parts["bn"]["conv1.weight"][0] = float("nan")
    with pytest.raises(BundleError, match=r"bn: weights that are not finite: conv1\.weight"):
        official.student(saved(tmp_path, parts), "resnet18")


def test_another_teacher_s_checkpoint_is_told_by_its_shapes(
    parts: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    parts["decoder"]["layer1.0.conv1.weight"] = torch.zeros(2048, 256, 2, 2)
    with pytest.raises(BundleError, match=r"decoder: wrong shapes: layer1\.0\.conv1\.weight \(2048, 256, 2, 2\) for"):
        official.student(saved(tmp_path, parts), "resnet18")


@pytest.mark.parametrize(
    ("value", "found"),
    [({"model": {}}, "expected bn and decoder, found model"), ([1], "expected bn and decoder, found list")],
)
def test_a_file_of_something_else_is_refused(value: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=found):
        official.student(saved(tmp_path, value), "resnet18")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_a_pickle_with_code_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, {"bn": _Evil(), "decoder": {}})
    with pytest.raises(BundleError, match="not a readable weights file"):
        official.student(path, "resnet18")
    assert capsys.readouterr().out == ""


def test_a_truncated_or_missing_file_is_told(parts: dict[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    content = io.BytesIO()
    torch.save({"bn": {"a": torch.from_numpy(np.zeros(1000))}}, content)
    (tmp_path / "cut.pth").write_bytes(content.getvalue()[:700])
    with pytest.raises(BundleError, match=r"cut\.pth: not a readable weights file"):
        official.student(tmp_path / "cut.pth", "resnet18")
    with pytest.raises(BundleError, match=r"none\.pth: cannot read the weights"):
        official.student(tmp_path / "none.pth", "resnet18")


def test_the_official_code_has_no_efficientnet(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no teacher efficientnet_lite0"):
        official.student(tmp_path / "x.pth", "efficientnet_lite0")
