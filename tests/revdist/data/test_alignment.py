"""revdist.data.alignment: real parts, shifted and turned by known amounts, come back to the reference position."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import alignment, images, painted_defects
from revdist.data.alignment import Alignment
from revdist.data.images import Pixels
from revdist.data.reading import Reading
from revdist.engines.engine import Engine
from revdist.errors import BundleError, DataError, ImageError
from revdist.evaluation import evaluate, measures
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.training import recalibrate, train
from revdist.training.aligning import Align

Run = Callable[..., tuple[int, str, str]]
SIDE = 420
AREA = (50, 50, 320, 320)  # of a cell in the middle, with some ground around it
RECIPE = Recipe(
    teacher="efficientnet_lite0", student="slim", size=(96, 96), steps=60, batch=4, seed=3, false_reject_rate=0.2
)


def _placed(cell: Pixels, x: float = 0.0, y: float = 0.0, angle_deg: float = 0.0, scale: float = 1.0) -> Pixels:
    """A cell on a dark ground, its middle shifted by (x, y), turned clockwise."""
    matrix = cv2.getRotationMatrix2D((149.5, 149.5), -angle_deg, scale)
    matrix[:, 2] += (SIDE - 300) / 2 + np.array([x, y])
    ground = (30, 30, 30)
    placed = cv2.warpAffine(cell, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=ground)
    return np.asarray(placed, np.uint8)


@pytest.fixture(scope="module")
def cells(good_cells: list[Path]) -> list[Pixels]:
    return [images.read(path) for path in good_cells[:60]]


@pytest.fixture(scope="module")
def aligned(cells: list[Pixels]) -> Alignment:
    return alignment.prepare(_placed(cells[0]), AREA, shift_px=40, angle_deg=10, scale=0.0)


def test_a_part_is_found_to_a_tenth_of_a_pixel_and_of_a_degree(aligned: Alignment, cells: list[Pixels]) -> None:
    generator = np.random.default_rng(0)
    for cell in cells[1:13]:
        x, y = generator.uniform(-30, 30, 2)
        angle = generator.uniform(-8, 8)
        # cells were cut from modules by hand, so each has a place of its own, which turns with it
        own, moved = aligned.locate(_placed(cell)), aligned.locate(_placed(cell, x, y, angle))
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        left, down = own.shift_px
        assert moved.shift_px[0] == pytest.approx(x + cosine * left - sine * down, abs=0.1)
        assert moved.shift_px[1] == pytest.approx(y + sine * left + cosine * down, abs=0.1)
        assert moved.angle_deg == pytest.approx(angle + own.angle_deg, abs=0.1)


def test_pictures_of_one_part_look_alike_once_they_are_brought(aligned: Alignment, cells: list[Pixels]) -> None:
    for cell, (x, y, angle) in zip(cells[1:4], [(25, -13, 7), (-30, 5, -6), (11, 28, 0)], strict=True):
        brought, still = aligned.bring(_placed(cell, x, y, angle)), aligned.bring(_placed(cell))
        inside = slice(80, 340), slice(80, 340)
        assert np.abs(brought[inside].astype(int) - still[inside]).mean() < 1
        assert np.abs(_placed(cell, x, y, angle)[inside].astype(int) - still[inside]).mean() > 4
        assert not brought.flags.writeable


def test_a_part_of_another_size_is_found_where_that_is_allowed(cells: list[Pixels]) -> None:
    scaled = alignment.prepare(_placed(cells[0]), AREA, shift_px=40, angle_deg=10, scale=0.1)
    placement = scaled.checked(_placed(cells[0], 12, -7, 4, scale=1.06))
    assert placement.scale == pytest.approx(1.06, abs=0.003)
    assert placement.shift_px == pytest.approx((12, -7), abs=0.3)


NOWHERE: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "no part": (lambda cell: np.full((SIDE, SIDE, 3), 30, np.uint8), "part not found"),
    "too far": (lambda cell: _placed(cell, 70, 0), "pixels off, 40 is the most|like the reference"),
    "turned": (lambda cell: _placed(cell, 0, 0, 28), "turned by|like the reference"),
    "noise": (
        lambda cell: np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8),
        "like the reference",
    ),
    "another size": (lambda cell: cell, "the picture has 300x300 pixels, the reference 420x420"),
}


@pytest.mark.parametrize("what", NOWHERE)
def test_what_cannot_be_found_is_told_with_what_is_off(aligned: Alignment, cells: list[Pixels], what: str) -> None:
    spoil, told = NOWHERE[what]
    with pytest.raises(ImageError, match=f"^part not found: .*(?:{told})|{told}"):
        aligned.bring(spoil(cells[2]))


@pytest.mark.parametrize(
    ("area", "limits"),
    [
        ((400, 0, 100, 100), (20, 5, 0)),
        ((0, 0, 5, 5), (20, 5, 0)),
        (AREA, (0, 5, 0)),
        (AREA, (20, 200, 0)),
        (AREA, (20, 5, 0.5)),
    ],
)
def test_an_area_or_limits_that_make_no_sense_are_refused(
    cells: list[Pixels], area: tuple[int, int, int, int], limits: tuple[float, float, float]
) -> None:
    shift, angle, scale = limits
    with pytest.raises(DataError):
        alignment.prepare(_placed(cells[0]), area, shift_px=shift, angle_deg=angle, scale=scale)


def _write(folder: Path, cells: list[Pixels], seed: int) -> list[Path]:
    """Cells that lie shifted by up to 30 pixels and turned by up to 8 degrees."""
    generator = np.random.default_rng(seed)
    folder.mkdir()
    for number, cell in enumerate(cells):
        x, y = generator.uniform(-30, 30, 2)
        (folder / f"{number:03}.png").write_bytes(images.encode_png(_placed(cell, x, y, generator.uniform(-8, 8))))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory, cells: list[Pixels]) -> Path:
    folder = tmp_path_factory.mktemp("shifted")
    (folder / "reference.png").write_bytes(images.encode_png(_placed(cells[0])))
    _write(folder / "good", cells[:24], 1)
    return folder


@pytest.fixture(scope="module")
def bundle_aligned(shifted: Path, lite0: teacher.Teacher) -> Bundle:
    align = Align(reference=shifted / "reference.png", area=AREA, shift_px=50, angle_deg=12)
    job = train.Job(good=shifted / "good", product="cell", output=shifted / "aligned", recipe=RECIPE, align=align)
    return train.train(job, lite0, device="cpu")


def test_an_aligned_product_tells_defects_that_are_lost_without_alignment(
    bundle_aligned: Bundle, shifted: Path, lite0: teacher.Teacher, cells: list[Pixels], tmp_path: Path
) -> None:
    plain = train.train(
        train.Job(good=shifted / "good", product="plain", output=tmp_path / "plain", recipe=RECIPE), lite0, device="cpu"
    )
    good = cells[30:50]
    bad = [
        painted_defects.paint("spot", cell, size_px=16, contrast=0.3, generator=np.random.default_rng(row))
        for row, cell in enumerate(good)
    ]
    paths = [*_write(tmp_path / "good", good, 2), *_write(tmp_path / "bad", bad, 3)]
    defective = np.array([False] * 20 + [True] * 20)
    engine = Engine(lite0, device="cpu")
    aurocs = []
    for trained in (bundle_aligned, plain):
        bundle.load(trained.path, engine)
        aurocs.append(
            measures.auroc(defective, evaluate.scores(engine, trained.product, paths, trained.recipe.reading))
        )
    print(f"image AUROC {aurocs[0]:.3f} aligned, {aurocs[1]:.3f} not")
    assert aurocs[0] > aurocs[1] + 0.05


def _marked(x: float = 0.0, y: float = 0.0, angle_deg: float = 0.0) -> Pixels:
    """A mask of a bar on the cell, which lies as the cell does."""
    cell = np.zeros((300, 300, 3), np.uint8)
    cell[60:90, 100:220] = 255
    return np.where(_placed(cell, x, y, angle_deg)[..., :1] > 127, 255, 0).astype(np.uint8)[..., 0]


def test_the_mask_of_a_labelled_defect_is_moved_as_its_picture_is(
    bundle_aligned: Bundle, lite0: teacher.Teacher, cells: list[Pixels], tmp_path: Path
) -> None:
    for folder in ("test/bar", "ground_truth/bar"):
        (tmp_path / folder).mkdir(parents=True)
    _write(tmp_path / "test" / "good", cells[20:22], 4)
    places = [(0.0, 0.0, 0.0), (25.0, -20.0, 7.0), (-28.0, 14.0, -6.0)]
    for number, place in enumerate(places):
        (tmp_path / "test" / "bar" / f"{number}.png").write_bytes(images.encode_png(_placed(cells[22], *place)))
        mask = cv2.resize(_marked(*place), (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_NEAREST)  # drawn smaller
        assert cv2.imwrite(str(tmp_path / "ground_truth" / "bar" / f"{number}_mask.png"), mask)
    engine = Engine(lite0, device="cpu")
    bundle.load(bundle_aligned.path, engine)

    def overlaps(how: Reading) -> list[float]:
        inspected = evaluate.inspect_labelled(engine, "cell", tmp_path, how)
        assert inspected.pixelwise is not None
        still, *moved = inspected.pixelwise.masks[inspected.defective]
        return [float((still & one).sum() / (still | one).sum()) for one in moved]

    reading = bundle_aligned.recipe.reading
    assert min(overlaps(reading)) > 0.85
    assert max(overlaps(replace(reading, alignment=None))) < 0.5


def test_a_bundle_keeps_its_alignment_and_older_programs_refuse_it(
    bundle_aligned: Bundle, cells: list[Pixels], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle_aligned.path, tmp_path / "copy"))
    kept, made = bundle.read(copy).recipe.alignment, bundle_aligned.recipe.alignment
    assert kept is not None
    assert made is not None
    assert kept.digest == made.digest
    assert 0.3 <= kept.quality < 0.9
    moved = _placed(cells[40], 20, 10, 5)
    np.testing.assert_array_equal(kept.bring(moved), made.bring(moved))
    assert '"schema": 7' in (copy / "bundle.json").read_text()
    (copy / "reference.png").write_bytes(images.encode_png(_placed(cells[1])))
    with pytest.raises(BundleError, match=r"reference\.png"):
        bundle.read(copy)


def test_recalibration_aligns_too_and_names_what_it_does_not_find(
    bundle_aligned: Bundle, lite0: teacher.Teacher, cells: list[Pixels], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle_aligned.path, tmp_path / "copy"))
    _write(tmp_path / "more", cells[30:40], 7)
    engine = Engine(lite0, device="cpu")
    request = recalibrate.RecalibrationRequest(good=tmp_path / "more", false_reject_rate=0.2)
    done = recalibrate.recalibrate(copy, request, engine, engine)
    assert done.added == 10
    assert done.bundle.recipe.alignment is not None
    (tmp_path / "more" / "far.png").write_bytes(images.encode_png(_placed(cells[41], 100, 0)))
    with pytest.raises(ImageError, match=r"far\.png: part not found"):
        recalibrate.recalibrate(copy, request, engine, engine)


def test_commands_align_and_say_so(run: Run, bundle_aligned: Bundle, shifted: Path, tmp_path: Path) -> None:
    status, out, _ = run("show", bundle_aligned.path)
    assert (status, "alignment    up to 50 pixels and 12 degrees" in out) == (0, True)
    picture = shifted / "good" / "000.png"
    status, out, err = run("predict", bundle_aligned.path, picture, "--engine", "cpu", "--heatmaps", tmp_path)
    assert status == 0, err
    status, _, err = run("report", bundle_aligned.path, "--output", tmp_path / "r.html", "--engine", "cpu")
    assert status == 0, err
    status, _, err = run("train", "--good", shifted / "good", "--product", "x", "--output", tmp_path / "x",
                         "--teacher", "efficientnet_lite0", "--align-area", "0,0,9,9")  # fmt: skip
    assert (status, "need a reference" in err) == (2, True)
