"""revdist.data.inspection_mask: nothing in a mask changes a score, and everything beside it does, on every engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from networks import randomised
from PIL import Image
from torch import nn

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images, inspection_mask, survey
from revdist.data.images import Pixels
from revdist.data.inspection_mask import InspectionMask
from revdist.data.reading import PLAIN
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.errors import BundleError, DataError, ImageError
from revdist.exchange import export
from revdist.networks import loss, teacher
from revdist.recipe import Recipe
from revdist.scoring import detector
from revdist.training import recalibrate, train

Run = Callable[..., tuple[int, str, str]]
SIZE, TILE = (160, 160), (64, 96)
RECIPE = Recipe(
    teacher="efficientnet_lite0", student="slim", size=(64, 96), steps=30, batch=4, seed=3, false_reject_rate=0.2
)
CORNER = [[[0, 0], [150, 0], [150, 100], [0, 100]]]  # of cells of 300 x 300 pixels: the upper left


def _mask(size: tuple[int, int]) -> InspectionMask:
    masked = np.zeros(size, bool)
    masked[: size[0] // 2, : size[1] // 2] = True
    return InspectionMask(masked, (90, 91, 92))


def _painted(picture: Pixels, part: tuple[slice, slice], period: int = 4) -> Pixels:
    """A picture with a striped defect in a part of it."""
    rows, columns = np.indices(picture.shape[:2])
    painted = picture.copy()
    painted[part] = np.where((rows + columns)[part][..., None] % period < period / 2, 255, 0)
    painted.flags.writeable = False
    return painted


INSIDE = slice(4, 60), slice(4, 60)  # of 160 x 160; the mask ends at 80
OUTSIDE = slice(100, 150), slice(100, 150)


def _student(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return randomised(detector.Student("efficientnet_lite0"), seed)


@pytest.fixture(scope="module")
def pictures(good_cells: list[Path]) -> list[Pixels]:
    return [images.prepare(images.read(path), SIZE) for path in good_cells[:3]]


@pytest.fixture(scope="module")
def plain(lite0: teacher.Teacher) -> Engine:
    engine = Engine(lite0, device="cpu")
    for product, tile in (("whole", None), ("tiled", TILE)):
        engine.add(product, _student(1), SIZE, tile=tile, mask=_mask(SIZE))
    return engine


ENGINES = [
    ("torch", "float32", 1e-6),
    ("torch", "bfloat16", 2e-2),
    ("torch", "int8", 0.1),
    ("openvino", "float32", 1e-4),
    ("openvino", "int8", 0.1),
]


@pytest.mark.parametrize("product", ["whole", "tiled"])
@pytest.mark.parametrize(("runtime", "precision", "close"), ENGINES)
def test_what_lies_in_a_mask_changes_no_score_on_any_engine_and_what_lies_beside_it_does(
    plain: Engine,
    lite0: teacher.Teacher,
    pictures: list[Pixels],
    runtime: str,
    precision: str,
    close: float,
    product: str,
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: NOT TESTED")
    if not backend.computes(precision):
        pytest.skip(f"no {precision} here: NOT TESTED")
    engine = Engine(lite0, device="cpu", precision=precision, runtime=runtime)
    ranges = plain.observe(product, pictures) if engine.needs_ranges else None
    tile = TILE if product == "tiled" else None
    engine.add(product, _student(1), SIZE, tile=tile, ranges=ranges, mask=_mask(SIZE))
    clean = pictures[0]
    batch = [clean, _painted(clean, INSIDE), _painted(clean, OUTSIDE)]
    inspection = engine.inspect(batch, [product] * 3)
    np.testing.assert_allclose(inspection.scores[1], inspection.scores[0], rtol=3e-6)
    np.testing.assert_array_equal(inspection.map(1)[_mask(SIZE).masked], 0)
    assert abs(inspection.scores[2] / inspection.scores[0] - 1) > 1e-3
    np.testing.assert_allclose(inspection.scores, plain.inspect(batch, [product] * 3).scores, rtol=close)
    scales = engine.scale_maps(clean, product)
    np.testing.assert_allclose(scales.sum(0), inspection.map(0), rtol=1e-4, atol=1e-6)


def test_the_highest_share_is_a_share_of_what_is_inspected(lite0: teacher.Teacher, pictures: list[Pixels]) -> None:
    engine = Engine(lite0, device="cpu")
    mask = _mask(SIZE)
    engine.add("part", _student(1), SIZE, detector.Scoring(top_share=1.0), mask=mask)
    inspection = engine.inspect(pictures[:1], ["part"])
    np.testing.assert_allclose(inspection.scores[0], inspection.map(0)[mask.inspected].mean(), rtol=1e-5)


def test_the_loss_ignores_what_is_not_inspected() -> None:
    generator = torch.Generator().manual_seed(0)
    taught = [torch.rand(2, 8, side, side, generator=generator) for side in (16, 8, 4)]
    weights = [torch.ones(2, 1, side, side) for side in (16, 8, 4)]
    for weight in weights:
        weight[..., : weight.shape[-1] // 2] = 0
    rebuilt = [feature_map.clone() for feature_map in taught]
    for feature_map in rebuilt:
        feature_map[..., : feature_map.shape[-1] // 2] += 5
        feature_map.requires_grad_()
    assert loss.flattened_cosine(taught, rebuilt).item() > 0.1
    hooked = [loss.mask_easy(*pair, 0.5, 0.1, weight) for *pair, weight in zip(taught, rebuilt, weights, strict=True)]
    distance = loss.flattened_cosine(taught, hooked, weights)
    assert distance.item() == pytest.approx(0, abs=1e-5)
    distance.backward()
    assert rebuilt[0].grad is not None
    assert not rebuilt[0].grad[..., :8].any()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mask") / "mask.yaml"
    path.write_text(json.dumps({"polygons": CORNER}))
    return path


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, good_folder: Path, lite0: teacher.Teacher, drawn: Path) -> Bundle:
    output = tmp_path_factory.mktemp("bundles") / "masked"
    job = train.Job(good=good_folder, product="cell", output=output, recipe=RECIPE, mask=drawn)
    return train.train(job, lite0, device="cpu")


def test_a_defect_in_the_mask_of_a_bundle_is_no_reject_and_beside_it_is_one(
    masked: Bundle, lite0: teacher.Teacher, good_cells: list[Path]
) -> None:
    engine = Engine(lite0, device="cpu")
    bundle.load(masked.path, engine)
    threshold = masked.calibration(engine.identity).threshold
    cells = [images.read(path) for path in good_cells[40:50]]
    scores = engine.inspect([images.prepare(cell, masked.size) for cell in cells], ["cell"] * 10).scores
    cell = cells[int(scores.argmin())]
    assert cell.shape[:2] == (300, 300)
    inside, outside = (slice(5, 95), slice(5, 145)), (slice(150, 240), slice(150, 290))
    shown = [
        images.prepare(picture, masked.size)
        for picture in (cell, _painted(cell, inside, 40), _painted(cell, outside, 40))
    ]
    inspection = engine.inspect(shown, ["cell"] * 3)
    np.testing.assert_allclose(inspection.scores[1], inspection.scores[0], rtol=1e-5)
    assert inspection.scores[1] <= threshold < inspection.scores[2]
    engine.add("unmasked", bundle.student(masked), masked.size)
    assert engine.inspect(shown[1:2], ["unmasked"]).scores[0] > threshold, "the mask alone keeps it from a reject"
    assert not (inspection.map(1)[:20, :46] > 0).any()


def test_a_bundle_keeps_its_mask_among_the_files_it_is_hashed_with(masked: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(masked.path, tmp_path / "copy"))
    read = bundle.read(copy)
    assert masked.mask is not None
    assert read.mask is not None
    assert (read.mask.digest, read.mask.fill) == (masked.mask.digest, masked.mask.fill)
    assert 0.16 < read.mask.share < 0.19, "50 % of the width, 33 % of the height, and what they touch"
    other = np.zeros((64, 96, 3), np.uint8)
    other[:5] = 255
    Image.fromarray(other).save(copy / "mask.png")
    with pytest.raises(BundleError, match=r"mask\.png"):
        bundle.read(copy)


def test_the_scratch_of_golden_pictures_lies_where_parts_are_inspected(masked: Bundle) -> None:
    scores = {vector.file: vector.score for vector in masked.golden}
    assert scores["golden/scratch-0.png"] > 1.05 * scores["golden/good-0.png"]


def test_recalibration_keeps_the_mask(
    masked: Bundle, lite0: teacher.Teacher, good_cells: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(masked.path, tmp_path / "copy"))
    folder = tmp_path / "more"
    folder.mkdir()
    for path in good_cells[30:40]:
        cell = _painted(images.read(path), (slice(5, 95), slice(5, 145)), 40)  # only in the mask
        Image.fromarray(cell).save(folder / f"{path.stem}.png")
    engine = Engine(lite0, device="cpu")
    request = recalibrate.RecalibrationRequest(good=folder, false_reject_rate=0.2)
    done = recalibrate.recalibrate(copy, request, engine, engine)
    assert done.bundle.mask is not None
    assert not done.bundle.calibration(engine.identity).unconfirmed
    before, after = (found.calibration(engine.identity) for found in (masked, done.bundle))
    assert after.scores.max() < 2 * before.scores.max()


def test_an_exported_model_masks_what_the_engine_masks(
    masked: Bundle, lite0: teacher.Teacher, good_cells: list[Path]
) -> None:
    engine = Engine(lite0, device="cpu")
    bundle.load(masked.path, engine)
    shown = [images.prepare(images.read(path), masked.size) for path in good_cells[40:42]]
    shown.append(_painted(shown[0], (slice(2, 18), slice(2, 44))))
    session = onnxruntime.InferenceSession(export.model(masked, lite0), providers=["CPUExecutionProvider"])
    maps, scores = session.run([export.MAP, export.SCORE], {export.PIXELS: np.stack(shown)})
    inspection = engine.inspect(shown, ["cell"] * 3)
    np.testing.assert_allclose(scores, inspection.scores, rtol=1e-4)
    np.testing.assert_allclose(maps[2], inspection.map(2), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-4)


def test_the_report_and_overlays_hatch_what_is_not_inspected(
    run: Run, masked: Bundle, good_cells: list[Path], tmp_path: Path
) -> None:
    status, out, _ = run("show", masked.path)
    assert (status, "of the picture is not inspected" in out) == (0, True)
    status, _, err = run("predict", masked.path, good_cells[40], "--heatmaps", tmp_path, "--engine", "cpu")
    assert status == 0, err
    overlay, cell = images.read(tmp_path / f"{good_cells[40].stem}.png"), images.read(good_cells[40])
    assert (overlay[:90, :140] == 160).all(2).mean() > 0.2
    assert not (overlay[120:, 170:] == 160).all(2).mean() > 0.1
    assert cell.shape == overlay.shape
    status, _, err = run("report", masked.path, "--output", tmp_path / "report.html", "--engine", "cpu")
    assert status == 0, err
    assert "hatched in heat maps" in (tmp_path / "report.html").read_text()


def test_the_digest_of_a_mask_tells_other_pixels_and_another_colour(masked: Bundle) -> None:
    other = InspectionMask(~_mask((64, 96)).masked, (1, 2, 3))
    assert masked.mask is not None
    assert other.digest != masked.mask.digest
    assert InspectionMask(masked.mask.masked, (1, 2, 3)).digest != masked.mask.digest


def test_polygons_and_a_picture_of_them_make_the_same_mask(good_folder: Path, drawn: Path, tmp_path: Path) -> None:
    looks = survey.survey(images.pictures_in(good_folder), PLAIN)
    levels = np.zeros((300, 300), np.uint8)
    levels[:100, :150] = 1
    Image.fromarray(levels).save(tmp_path / "mask.png")
    one, other = (inspection_mask.read(path, looks) for path in (drawn, tmp_path / "mask.png"))
    np.testing.assert_array_equal(one.masked[:99, :149], True)
    assert (one.masked != other.masked).mean() < 0.01


def test_a_picture_may_mask_all_around_a_part(good_folder: Path, tmp_path: Path) -> None:
    levels = np.full((300, 300), 255, np.uint8)
    levels[100:200, 100:200] = 0
    Image.fromarray(levels).save(tmp_path / "around.png")
    looks = survey.survey(images.pictures_in(good_folder), PLAIN)
    assert inspection_mask.read(tmp_path / "around.png", looks).masked.mean() == pytest.approx(8 / 9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "holds no polygons"),
        ("polygons: [[[0, 0], [1, 1]]]", "polygon 1 is no list of three corners"),
        ("[[[0, 0], [1, .nan], [2, 2]]]", "polygon 1 has a corner"),
        ("{polygon: [[[0, 0], [1, 2], [2, 2]]]}", "unknown entry 'polygon'"),
        ("{size: [100, -1], polygons: [[[0, 0], [1, 2], [2, 2]]]}", "`size` is not"),
        ("{size: [600, 300], polygons: [[[0, 0], [9, 0], [9, 9]]]}", "the mask is for pictures of 600x300 pixels"),
        ("{unclosed: [", "cannot be parsed"),
    ],
)
def test_a_wrong_file_of_polygons_is_refused_with_the_reason(
    good_folder: Path, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "mask.yaml").write_text(text)
    looks = survey.survey(images.pictures_in(good_folder), PLAIN)
    with pytest.raises(DataError, match=told.replace("[", r"\[")):
        inspection_mask.read(tmp_path / "mask.yaml", looks)


def test_a_photograph_is_no_mask_and_a_mask_of_everything_is_refused(
    good_folder: Path, good_cells: list[Path], tmp_path: Path
) -> None:
    looks = survey.survey(images.pictures_in(good_folder), PLAIN)
    with pytest.raises(ImageError, match="looks like a picture"):
        inspection_mask.read(good_cells[0], looks)
    (tmp_path / "all.json").write_text(json.dumps([[[0, 0], [300, 0], [300, 300], [0, 300]]]))
    with pytest.raises(DataError, match="everything is masked"):
        inspection_mask.read(tmp_path / "all.json", looks).at((64, 96), "stretch", [])


def test_a_missing_mask_is_told_before_anything_is_trained(run: Run, good_folder: Path, tmp_path: Path) -> None:
    status, _, err = run(
        "train", "--good", good_folder, "--product", "cell", "--output", tmp_path / "out", "--teacher",
        "efficientnet_lite0", "--mask", tmp_path / "none.yaml",
    )  # fmt: skip
    assert (status, "none.yaml" in err) == (2, True)
    assert not list(tmp_path.iterdir())
