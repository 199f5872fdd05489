"""Real pictures, real weights, and one tiny bundle that all tests share (never change it: copy it)."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch._subclasses.fake_tensor import FakeTensorMode

from revdist.bundle.bundle import Bundle
from revdist.cli import command
from revdist.engines.engine import Engine
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.training import train

torch.set_num_threads(1)  # tiny pictures gain nothing from more, and on busy cores threads wait for each other

TINY = Recipe(
    teacher="efficientnet_lite0", student="slim", size=(64, 96), steps=6, batch=4, seed=3, false_reject_rate=0.2
)


def _elpv(wanted: str) -> list[Path]:
    """Photographs of solar cells (PyPI elpv-dataset), monocrystalline, by defect probability."""
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [data / path for path, probability, kind in rows if kind == "mono" and probability == wanted]


@pytest.fixture(scope="session")
def good_cells() -> list[Path]:
    return _elpv("0.0")


@pytest.fixture(scope="session")
def broken_cells() -> list[Path]:
    return _elpv("1.0")


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory, good_cells: list[Path]) -> Path:
    """24 photographs of good cells."""
    folder = tmp_path_factory.mktemp("good")
    for path in good_cells[:24]:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    """A factory data set that lies beside the checkout, in MVTec layout, where there is one."""
    root = Path(__file__).parents[3] / "shared" / "data" / "magnetic_tile"
    if not root.is_dir():
        pytest.skip(f"the magnetic tile data set is not beside the checkout ({root}): NOT TESTED")
    return root


@pytest.fixture(scope="session")
def lite0() -> teacher.Teacher:
    return teacher.load("efficientnet_lite0")


@pytest.fixture(scope="session")
def resnet18_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's state dict of a ResNet18, whole, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, good_folder: Path, lite0: teacher.Teacher) -> Bundle:
    """A bundle of a few training steps on 64x96 pixels."""
    output = tmp_path_factory.mktemp("bundles") / "tiny"
    return train.train(train.Job(good=good_folder, product="cell", output=output, recipe=TINY), lite0, device="cpu")


@pytest.fixture(scope="session")
def combined(tmp_path_factory: pytest.TempPathFactory, good_folder: Path, lite0: teacher.Teacher) -> Bundle:
    """The tiny bundle with the combined score."""
    output, recipe = tmp_path_factory.mktemp("bundles") / "combined", replace(TINY, score="combined")
    return train.train(train.Job(good=good_folder, product="cell", output=output, recipe=recipe), lite0, device="cpu")


@pytest.fixture
def tiny_copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may spoil."""
    return Path(shutil.copytree(tiny.path, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def engine(lite0: teacher.Teacher) -> Engine:
    """A CPU engine without products; a test that adds one removes it."""
    return Engine(lite0, device="cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `revdist`; gives exit status, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = command.main([str(each) for each in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def fake_cuda() -> Iterator[None]:
    """Tensors without content that follow every rule of devices, as if there was a GPU."""
    conv, matmul = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    with FakeTensorMode():
        yield
    torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = conv, matmul
