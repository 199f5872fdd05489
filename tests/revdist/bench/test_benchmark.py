"""revdist.bench.benchmark: every product of a folder, resumed after a stop, beside the paper's numbers."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist import recipe
from revdist.bench import benchmark
from revdist.bench.benchmark import BenchmarkRow, Plan
from revdist.cli import command as cli
from revdist.errors import DataError
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.training import train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cells: list[Path], defective_cells: list[Path]) -> Path:
    """Two products: the first with masks, the second without."""
    root = tmp_path_factory.mktemp("benchmark")
    for number, product in enumerate(("bottle", "cell")):
        here = cells[number * 20 : number * 20 + 20]
        for folder, pictures in (
            ("train/good", here[:14]),
            ("test/good", here[14:]),
            ("test/bad", defective_cells[:4]),
        ):
            (root / product / folder).mkdir(parents=True)
            for picture in pictures:
                shutil.copy(picture, root / product / folder)
    (root / "bottle" / "ground_truth" / "bad").mkdir(parents=True)
    mask = np.zeros((300, 300), np.uint8)
    mask[100:200, 100:180] = 255
    for picture in (root / "bottle" / "test" / "bad").iterdir():
        Image.fromarray(mask).save(root / "bottle" / "ground_truth" / "bad" / f"{picture.stem}_mask.png")
    return root


def small(_data: Path) -> Recipe:
    return replace(recipe.default("efficientnet_lite0"), size=(64, 64), steps=3, batch=4)


def plan(root: Path, output: Path, seeds: int = 1) -> Plan:
    return Plan(root=root, output=output, products=benchmark.products(root), recipe=small, seeds=seeds)


def test_every_product_is_trained_and_evaluated_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = teacher.load("efficientnet_lite0")
    rows = benchmark.run(plan(root, tmp_path / "out", seeds=2), lite)
    assert [row.product for row in rows] == ["bottle", "cell"]
    assert all(len(row.values["image_auroc"]) == 2 for row in rows)
    assert rows[0].values["pro"][0] is not None
    assert rows[1].values["pro"] == [None, None], "there are no masks"
    kept = json.loads((tmp_path / "out" / "cell-1.json").read_text())
    assert kept["recipe"]["seed"] == 1
    assert rows[1].values["image_auroc"][1] == 100 * kept["image_auroc"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was trained already")

    monkeypatch.setattr(train, "train", never)
    assert benchmark.run(plan(root, tmp_path / "out", seeds=2), lite) == rows


def test_after_a_stop_what_is_missing_is_done_and_a_changed_recipe_is_done_anew(root: Path, tmp_path: Path) -> None:
    lite, output = teacher.load("efficientnet_lite0"), tmp_path / "out"
    first = benchmark.run(plan(root, output), lite)
    (output / "cell-0.json").unlink()
    (output / "bottle-0.json").unlink()
    shutil.rmtree(output / "bottle-0.bundle")
    kept = (output / "cell-0.bundle" / "bundle.json").stat().st_mtime_ns
    assert benchmark.run(plan(root, output), lite) == first, "a seed gives the same figures"
    assert (output / "cell-0.bundle" / "bundle.json").stat().st_mtime_ns == kept, "its bundle was there: not retrained"
    other = replace(plan(root, output), recipe=lambda data: replace(small(data), steps=4))
    benchmark.run(other, lite)
    assert json.loads((output / "bottle-0.json").read_text())["recipe"]["steps"] == 4


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": 1}'])
def test_a_damaged_result_is_named(content: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "bottle-0.json").write_text(content)
    with pytest.raises(DataError, match=r"bottle-0\.json: .*delete it to measure again"):
        benchmark.run(plan(root, tmp_path), teacher.load("efficientnet_lite0"))


def test_the_command_runs_the_products_that_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", str(root), "--output", str(tmp_path), "--products", "bottle", "--teacher"]
    command += ["efficientnet_lite0", "--steps", "2", "--size", "64", "--batch", "4", "--device", "cpu"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| bottle | ")
    assert lines[2].split(" | ")[2] == "100.0", "the paper's image AUROC stands beside ours"
    assert cli.main([*command, "--products", "nut"]) == 2


def test_a_training_that_was_stopped_goes_on(root: Path, tmp_path: Path) -> None:
    lite, output = teacher.load("efficientnet_lite0"), tmp_path / "out"
    whole = train._step

    def stopping(*arguments: object) -> float:
        if arguments[4] == 1:
            signal.raise_signal(signal.SIGINT)
        return whole(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            benchmark.run(plan(root, output), lite)
    assert len(json.loads((output / "bottle-0.bundle.training" / "state.json").read_text())["losses"]) == 2
    steps: list[object] = []

    def counting(*arguments: object) -> float:
        if arguments[4] != 3:  # the number behind the last step: it only measures how long one takes
            steps.append(arguments[4])
        return whole(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_step", counting)
        benchmark.run(plan(root, output), lite)
    assert steps == [2, 0, 1, 2], "the first product goes on with its last step, the second begins"


def test_the_table_shows_ours_beside_the_paper_s() -> None:
    one = {"image_auroc": [99.0, 100.0], "pixel_auroc": [98.0], "pro_per_image": [96.0], "pro": [90.0]}
    other = {"image_auroc": [90.0], "pixel_auroc": [None], "pro_per_image": [None], "pro": [None]}
    rows = [BenchmarkRow(product="bottle", values=one), BenchmarkRow(product="cell", values=other)]
    lines = benchmark.table(rows).splitlines()
    assert lines[0].split(" | ")[1:4] == ["image AUROC", "paper", "pixel AUROC"]
    assert lines[2] == "| bottle | 99.50 +- 0.71 | 100.0 | 98.00 | 98.7 | 96.00 | 96.6 | 90.00 |"
    assert lines[3] == "| cell | 90.00 | - | - | - | - | - | - |"
    assert lines[4] == "| mean | 94.75 | - | 98.00 | - | 96.00 | - | 90.00 |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_published_numbers_have_the_published_means() -> None:
    means = [round(float(np.mean(column)), 1) for column in zip(*benchmark.PUBLISHED.values(), strict=True)]
    assert means == [98.5, 97.8, 93.9]
    assert len(benchmark.PUBLISHED) == 15


def test_products_that_are_not_there_are_named(root: Path, tmp_path: Path) -> None:
    assert benchmark.products(root, ["cell"]) == ["cell"]
    with pytest.raises(DataError, match=r"there is no product 'screw'"):
        benchmark.products(root, ["cell", "screw"])
    with pytest.raises(DataError, match=r"there is no <product>/train/good"):
        benchmark.products(tmp_path)
