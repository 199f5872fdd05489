"""revdist.cli.command and revdist.evaluation.evaluate, as a user runs them"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist import recipe
from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import command, training_commands, typed
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.errors import ImageError
from revdist.evaluation import evaluate

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, good_cells: list[Path], broken_cells: list[Path]) -> Path:
    """Unseen cells in the MVTec layout, without masks."""
    root = tmp_path_factory.mktemp("labelled")
    for kind, cells in (("good", good_cells[100:110]), ("crack", broken_cells[:10])):
        (root / "test" / kind).mkdir(parents=True)
        for path in cells:
            shutil.copy(path, root / "test" / kind)
    return root


def test_train_show_and_predict_from_nothing(run: Run, good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "cell"
    status, out, _ = run(
        "train", "--good", good_folder, "--product", "cell", "--output", output, "--teacher", "efficientnet_lite0",
        "--steps", 2, "--size", "64x96", "--batch", 2, "--seed", 5, "--false-reject-rate", 0.2, "--device", "cpu",
    )  # fmt: skip
    assert status == 0
    assert "Proven with 5 pictures: 16.67 % false rejects on average" in out
    assert bundle.read(output).recipe.seed == 5
    digest = bundle.read(output).digest
    again = ("train", "--good", good_folder, "--product", "cell", "--output", output, "--steps", 2, "--device", "cpu")
    again += ("--teacher", "efficientnet_lite0", "--size", "64x96", "--batch", 2, "--seed", 6)
    status, _, err = run(*again)
    assert (status, bundle.read(output).digest) == (2, digest), "a good bundle is not overwritten unasked"
    assert f"{output}: there is a bundle already\nhint: choose another --output, or replace it with --replace\n" in err
    status, out, _ = run("show", output)
    assert status == 0
    assert run(*again, "--replace")[0] == 0
    assert bundle.read(output).recipe.seed == 6
    for part in ("cell", "efficientnet_lite0", "64x96", "torch-cpu-float32: threshold", "golden       6"):
        assert part in out


def test_predict_prints_a_line_of_json_for_each_image(run: Run, tiny: Bundle, good_cells: list[Path]) -> None:
    status, out, err = run("predict", tiny.path, *good_cells[50:53], "--engine", "cpu")
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in good_cells[50:53]]
    threshold = tiny.calibration("torch-cpu-float32").threshold
    for line in lines:
        assert set(line) == {"image", "score", "score_max", "threshold", "decision", "p_value", "p_estimate"}
        assert line["score_max"] == line["score"], "the score is the paper's"
        assert line["threshold"] == threshold
        assert line["decision"] == ("reject" if line["score"] > threshold else "pass")
        assert 0 < line["p_value"] <= 1


def test_predict_writes_raw_maps_and_overlays(run: Run, tiny: Bundle, good_cells: list[Path], tmp_path: Path) -> None:
    maps, heatmaps = tmp_path / "deep" / "maps", tmp_path / "heatmaps"
    status, out, _ = run(
        "predict", tiny.path, good_cells[50], "--maps", maps, "--heatmaps", heatmaps, "--engine", "cpu"
    )
    assert status == 0
    found = np.load(maps / f"{good_cells[50].stem}.npy")
    assert found.dtype == np.float32
    assert found.shape == tiny.size
    assert float(found.max()) == json.loads(out)["score"]
    with Image.open(heatmaps / f"{good_cells[50].stem}.png") as overlay:
        assert (overlay.size, overlay.mode) == ((300, 300), "RGB")


def test_two_images_of_one_name_would_overwrite_each_other_and_are_refused(
    run: Run, tiny: Bundle, good_cells: list[Path], tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(good_cells[0], tmp_path / folder / "same.png")
    both = (tmp_path / "a" / "same.png", tmp_path / "b" / "same.png")
    status, _, err = run("predict", tiny.path, *both, "--maps", tmp_path / "maps", "--engine", "cpu")
    assert status == 2
    assert "would overwrite each other's same.npy" in err
    assert not (tmp_path / "maps").exists()
    assert run("predict", tiny.path, *both, "--engine", "cpu")[0] == 0


def test_a_broken_image_is_told_and_the_others_are_scored(
    run: Run, tiny: Bundle, good_cells: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(good_cells[0].read_bytes()[:2000])
    status, out, err = run("predict", tiny.path, tmp_path / "broken.png", good_cells[1], "--engine", "cpu")
    assert status == 2
    assert len(out.splitlines()) == 1
    assert err.startswith("revdist: ")
    assert "broken.png: the PNG is cut off" in err


def test_errors_are_one_line_and_a_hint(run: Run, tmp_path: Path, good_folder: Path) -> None:
    status, out, err = run("show", tmp_path)
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first == f"revdist: {tmp_path}/bundle.json: cannot be read: No such file or directory"
    assert second.startswith("hint: ")
    common = (
        "train",
        "--good",
        good_folder,
        "--product",
        "p",
        "--output",
        tmp_path / "p",
        "--teacher",
        "efficientnet_lite0",
    )
    status, _, err = run(*common, "--size", 100)
    assert status == 2
    assert "size is (100, 100), must be (height, width), each a multiple of 32" in err
    status, _, err = run(*common, "--steps", 0)
    assert status == 2
    assert "steps is 0" in err


def test_evaluate_measures_unseen_pictures(run: Run, tiny: Bundle, labelled: Path) -> None:
    status, out, _ = run("evaluate", tiny.path, "--data", labelled, "--json", "--engine", "cpu")
    assert status == 0
    result = json.loads(out)
    assert (result["good"], result["defective"]) == (10, 10)
    assert result["pixel_auroc"] is result["pro"] is result["pro_per_image"] is None
    assert result["threshold"] == tiny.calibration("torch-cpu-float32").threshold
    for name in ("image_auroc", "false_reject_rate", "escape_rate"):
        assert 0 <= result[name] <= 1
    assert result["images_per_second"] > 0
    status, out, _ = run("evaluate", tiny.path, "--data", labelled, "--engine", "cpu")
    assert status == 0
    assert "image AUROC" in out
    assert "no masks" in out
    table = result["what_if"]
    assert any(choice["threshold"] == result["threshold"] and choice["name"] == "in force" for choice in table)
    assert all(f"{choice['missed']} of 10" in out for choice in table), "the table for people has the same rows"
    assert "what to do next" in out
    assert all(advice["do"] in out and advice["command"] in out for advice in result["next"])
    missed = round(10 * result["escape_rate"])
    assert f"{missed} of 10 ({missed / 10:.2%})" in next(line for line in out.splitlines() if "missed defects" in line)


def test_evaluate_measures_pixels_where_there_are_masks(tiny: Bundle, engine: Engine, magnetic_tile: Path) -> None:
    loaded = bundle.load(tiny.path, engine)
    result = evaluate.evaluate(engine, loaded.product, loaded.calibration(engine.identity), magnetic_tile)
    engine.remove(loaded.product)
    assert result.pixel_auroc is not None
    assert result.pro is not None
    assert result.pro_per_image is not None
    assert set(result.escape_rate_by_kind) == {"blowhole", "break", "crack", "fray", "uneven"}
    by_hand = sum(result.escape_rate_by_kind.values()) / 5  # 30 pictures each
    assert result.escape_rate == pytest.approx(by_hand)


def test_masks_that_cannot_be_read_are_all_named_before_anything_is_inspected(
    tiny: Bundle, engine: Engine, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(labelled, tmp_path / "masked"))
    loaded = bundle.load(tiny.path, engine)
    masks = [
        root / "ground_truth" / "crack" / f"{path.stem}_mask.png" for path in sorted((root / "test/crack").iterdir())
    ]
    masks[0].parent.mkdir(parents=True)
    for mask in masks:
        pixels = np.zeros((300, 300), np.uint8)
        pixels[100:200, 100:200] = 255
        Image.fromarray(pixels).save(mask)
    result = evaluate.evaluate(engine, loaded.product, loaded.calibration(engine.identity), root)
    assert result.pixel_auroc is not None
    for mask in (masks[0], masks[-1]):
        mask.write_bytes(mask.read_bytes()[:-40])
    inspected: list[object] = []
    monkeypatch.setattr(engine, "inspect", lambda *arguments: inspected.append(arguments))
    with pytest.raises(ImageError) as error:
        evaluate.inspect_labelled(engine, loaded.product, root)
    engine.remove(loaded.product)
    assert all(mask.name in error.value.message for mask in (masks[0], masks[-1]))
    assert inspected == []


@pytest.mark.parametrize(("text", "size"), [("256", (256, 256)), ("96x160", (96, 160)), ("96X160", (96, 160))])
def test_sizes_can_be_one_number_or_two(text: str, size: tuple[int, int]) -> None:
    assert typed.size(text) == size


@pytest.mark.parametrize("text", ["big", "1x2x3", "-32", "32x", ""])
def test_other_sizes_are_refused(text: str, run: Run) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("train", "--good", "g", "--product", "p", "--output", "o", "--size", text)


def test_the_options_of_the_ablation_reach_the_bundle(run: Run, good_folder: Path, tmp_path: Path) -> None:
    status, _, _ = run(
        "train", "--good", good_folder, "--product", "cell", "--output", tmp_path / "cell", "--teacher",
        "efficientnet_lite0", "--steps", 1, "--size", 64, "--batch", 2, "--false-reject-rate", 0.2, "--device", "cpu",
        "--bottleneck", "pretrained", "--scales", "3,2", "--combine", "multiply",
    )  # fmt: skip
    assert status == 0
    made = bundle.read(tmp_path / "cell").recipe
    assert (made.bottleneck, made.scales, made.combine) == ("pretrained", (2, 3), "multiply")
    assert run("predict", tmp_path / "cell", next(good_folder.iterdir()), "--engine", "cpu")[0] == 0
    status, out, _ = run("show", tmp_path / "cell")
    assert status == 0
    assert "student      slim, bottleneck pretrained\nmap          scales 2, 3, combine multiply" in out


def test_without_these_options_the_recipe_is_the_default_one(tmp_path: Path) -> None:
    common = ["benchmark", str(tmp_path), "--output", str(tmp_path), "--teacher", "resnet18"]
    options = command._parser().parse_args(common)
    assert training_commands._recipe(options) == recipe.default("resnet18")
    options = command._parser().parse_args([*common, "--bottleneck", "oce", "--scales", "2"])
    assert training_commands._recipe(options) == dataclasses.replace(
        recipe.default("resnet18"), bottleneck="oce", scales=(2,)
    )


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--bottleneck", "mff", "invalid choice: 'mff'"), ("--combine", "max", "invalid choice: 'max'"),
        ("--scales", "fine", "'fine' are no scales, write 2 or 1,2,3"), ("--scales", "", "'' are no scales"),
    ],
)  # fmt: skip
def test_options_that_are_none_are_refused(
    option: str, text: str, message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("train", "--good", "g", "--product", "p", "--output", "o", option, text)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "4", "1,1", "1,2,3,4"])
def test_scales_that_are_not_there_are_refused(text: str, run: Run, good_folder: Path, tmp_path: Path) -> None:
    status, _, err = run("train", "--good", good_folder, "--product", "p", "--output", tmp_path / "p", "--scales", text)
    assert status == 2
    assert "must be some of 1 (fine), 2 and 3 (coarse), each once" in err


def test_the_input_size_follows_from_the_smallest_defect(
    run: Run, good_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "revdist")
    start = ("train", "--good", good_folder, "--product", "cell", "--teacher", "efficientnet_lite0", "--steps", 1)
    output = tmp_path / "cell"
    status, _, err = run(*start, "--output", output, "--defect", "0.6mm", "--field", "30mm", "--threads", 1)
    assert status == 0, err
    assert "a defect of 0.6 mm is 6.0 pixels of a picture of 300x300, and 6.4 at the input of 320x320" in caplog.text
    assert "a camera with more pixels" in caplog.text
    assert bundle.read(output).size == (320, 320)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--defect", "0.3mm"), "a defect in mm needs the field of view in mm"),
        (("--defect", "12", "--field", "80mm"), "a defect in mm needs the field of view in mm"),
        (("--defect", "1mm", "--field", "80"), "a defect in mm needs the field of view in mm"),
        (("--field", "80mm"), "--field says nothing without --defect"),
    ],
)
def test_a_defect_without_what_it_needs_is_refused(
    options: tuple[str, ...], told: str, run: Run, good_folder: Path, tmp_path: Path
) -> None:
    status, _, err = run("train", "--good", good_folder, "--product", "cell", "--output", tmp_path / "cell", *options)
    assert (status, told in err) == (2, True)
    assert not (tmp_path / "cell").exists()


def test_heat_maps_as_in_the_paper_are_red_somewhere_in_every_picture(
    run: Run, tiny: Bundle, good_cells: list[Path], tmp_path: Path
) -> None:
    start = ("predict", tiny.path, good_cells[40], "--engine", "cpu", "--heatmaps")
    assert run(*start, tmp_path / "paper", "--heatmap-scale", "paper")[0] == 0
    assert run(*start, tmp_path / "usual")[0] == 0
    paper, usual = (images.read(tmp_path / name / f"{good_cells[40].stem}.png") for name in ("paper", "usual"))
    assert paper.shape == usual.shape
    assert (paper[..., 0].astype(int) - paper[..., 2]).max() > 100
    assert not np.array_equal(paper, usual)
