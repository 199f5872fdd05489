"""revdist.data.tiles: a picture in tiles is judged as a whole, by every engine, from training to export."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import randomised
from PIL import Image

from revdist.bundle import bundle
from revdist.data import images
from revdist.data.images import Pixels
from revdist.data.tiles import OVERLAP, Tiles
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.engines.openvino import compiled
from revdist.engines.processor import packed
from revdist.errors import RecipeError
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.scoring import detector

Run = Callable[..., tuple[int, str, str]]
CUTS = [
    ((256, 256), (256, 256)), ((256, 256), (128, 128)), ((160, 224), (64, 96)), ((192, 96), (64, 96)),
    ((96, 480), (96, 64)), ((2048, 3072), (512, 256)), ((288, 288), (256, 256)), ((1024, 64), (992, 64)),
]  # fmt: skip
SIZE, TILE = (128, 160), (64, 96)  # six tiles


@pytest.mark.parametrize(("size", "tile"), CUTS)
def test_what_is_cut_and_joined_is_the_picture_again(size: tuple[int, int], tile: tuple[int, int]) -> None:
    tiles = Tiles.of(size, tile)
    numbers = np.arange(size[0] * size[1]).reshape(size)  # each place has its own
    pictures = np.stack([numbers, -numbers])
    for stride in detector.STRIDES:
        cut = np.stack([part for picture in pictures for part in tiles.cut(picture)])
        assert cut.shape == (2 * tiles.count, *tile)
        maps = torch.from_numpy(cut[:, ::stride, ::stride].copy())  # as if each were a scale's distances
        assert np.array_equal(tiles.join(maps).numpy(), pictures[:, ::stride, ::stride])


@pytest.mark.parametrize(("size", "tile"), CUTS)
def test_tiles_overlap_and_there_are_no_more_than_needed(size: tuple[int, int], tile: tuple[int, int]) -> None:
    for whole, part, spans in zip(size, tile, Tiles.of(size, tile).spans, strict=True):
        assert (spans[0].start, spans[-1].start + part) == (0, whole)
        for before, after in pairwise(spans):
            assert before.start + part - after.start >= OVERLAP
            assert min(before.start + part - before.end, after.first - after.start) >= OVERLAP // 2
        fewer = len(spans) - 1
        assert fewer == 0 or fewer * part - (fewer - 1) * OVERLAP < whole


def test_a_tile_is_a_view_of_its_picture() -> None:
    picture = np.zeros((*SIZE, 3), np.uint8)
    assert all(part.base is picture for part in Tiles.of(SIZE, TILE).cut(picture))


@pytest.mark.parametrize("tile", [(64, 100), (32, 96), (160, 96), (128, 192), (0, 96), (64,), (64.0, 96), "64"])
def test_tiles_that_do_not_fit_are_refused(tile: object) -> None:
    with pytest.raises(RecipeError, match="recipe: tile is"):
        Recipe(size=SIZE, tile=tile)  # type: ignore[arg-type]


def _student(seed: int) -> detector.Student:
    torch.manual_seed(seed)
    return randomised(detector.Student("efficientnet_lite0"), seed)


@torch.no_grad()
def _expected(known: teacher.Teacher, student: detector.Student, picture: Pixels) -> np.ndarray:
    """The map from the plain parts, place by place: of each the tile counts in which it lies deepest."""
    tiles, joined = Tiles.of(SIZE, TILE), []
    by_tile = []
    for part in tiles.cut(picture):
        taught = known(detector.normalise(torch.from_numpy(part[None].copy()), known.mean, known.std).contiguous())
        by_tile.append(detector.distances(taught, student(taught)))
    places = [(row.start, column.start) for row in tiles.spans[0] for column in tiles.spans[1]]
    for scale, stride in enumerate(detector.STRIDES):
        whole = torch.zeros(1, SIZE[0] // stride, SIZE[1] // stride)
        for y in range(whole.shape[1]):
            for x in range(whole.shape[2]):
                depths = [
                    min(_depth(y * stride, top, TILE[0], SIZE[0]), _depth(x * stride, left, TILE[1], SIZE[1]))
                    for top, left in places
                ]
                best = int(np.argmax(depths))
                top, left = places[best]
                whole[0, y, x] = by_tile[best][scale][0, y - top // stride, x - left // stride]
        joined.append(whole)
    scales = [
        torch.nn.functional.interpolate(each[:, None], SIZE, mode="bilinear", align_corners=True)[:, 0]
        for each in joined
    ]
    return detector.smooth(torch.stack(scales).sum(0))[0].numpy()


def _depth(at: int, start: int, side: int, total: int) -> float:
    """How far a place of 16 pixels is from the nearer end of a tile, where the picture goes on behind that end."""
    at = at // 16 * 16
    before = at - start if start > 0 else 1e9
    behind = start + side - 16 - at if start + side < total else 1e9
    return min(before, behind) if start <= at < start + side else -1


@pytest.fixture(scope="module")
def pictures(good_cells: list[Path]) -> list[Pixels]:
    return [images.prepare(images.read(path), SIZE) for path in good_cells[:3]]


def _loaded(lite0: teacher.Teacher, precision: str = "float32", runtime: str = "torch") -> Engine:
    """Two products in tiles, and one of the same size without."""
    engine = Engine(lite0, device="cpu", precision=precision, runtime=runtime)
    for seed, product in enumerate(("bolt", "nut"), 1):
        engine.add(product, _student(seed), SIZE, tile=TILE)
    engine.add("plate", _student(3), SIZE)
    return engine


@pytest.fixture(scope="module")
def plain(lite0: teacher.Teacher) -> Engine:
    return _loaded(lite0)


def test_the_engine_computes_what_the_plain_parts_compute_tile_by_tile(
    plain: Engine, lite0: teacher.Teacher, pictures: list[Pixels]
) -> None:
    found = plain.inspect(pictures[:1], ["bolt"])
    np.testing.assert_allclose(found.map(0), _expected(lite0, _student(1), pictures[0]), rtol=1e-4, atol=1e-5)
    assert found.map(0).max() == found.scores[0]
    scales = plain.scale_maps(pictures[0], "bolt")
    np.testing.assert_allclose(scales.sum(0), found.map(0), rtol=1e-5, atol=1e-6)


def _mixed(pictures: Sequence[Pixels]) -> tuple[list[Pixels], list[str]]:
    products = ["bolt", "plate", "nut", "bolt", "plate", "bolt"]
    return [pictures[row % len(pictures)] for row in range(len(products))], products


ENGINES = [("torch", "float32", 1e-6), ("torch", "bfloat16", 2e-2), ("openvino", "float32", 1e-4)]


@pytest.mark.parametrize(("runtime", "precision", "close"), ENGINES)
def test_a_score_is_the_same_alone_and_in_any_batch_and_near_on_each_engine(
    plain: Engine, lite0: teacher.Teacher, pictures: list[Pixels], runtime: str, precision: str, close: float
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: NOT TESTED")
    elif not backend.computes(precision):
        pytest.skip(f"no {precision} here: NOT TESTED")
    engine, batch = _loaded(lite0, precision, runtime), _mixed(pictures)
    together = engine.inspect(*batch)
    for row, (picture, product) in enumerate(zip(*batch, strict=True)):
        alone = engine.inspect([picture], [product])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4 if precision != "float32" else 3e-6)
        expected = plain.inspect([picture], [product])
        np.testing.assert_allclose(alone.scores, expected.scores, rtol=close)
        np.testing.assert_allclose(together.map(row), expected.map(0), rtol=close, atol=close)


@pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
@pytest.mark.parametrize("runtime", backend.RUNTIMES)
def test_int8_takes_the_ranges_of_tiles(
    plain: Engine, lite0: teacher.Teacher, pictures: list[Pixels], runtime: str
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: NOT TESTED")
    engine = Engine(lite0, device="cpu", precision="int8", runtime=runtime)
    engine.add("bolt", _student(1), SIZE, tile=TILE, ranges=plain.observe("bolt", pictures))
    found, expected = (each.inspect(pictures, ["bolt"] * 3) for each in (engine, plain))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0.1)


@pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")
def test_after_warming_nothing_is_packed_or_compiled(
    lite0: teacher.Teacher, pictures: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [_loaded(lite0)]
    if importlib.util.find_spec("openvino"):
        engines.append(_loaded(lite0, runtime="openvino"))
    for engine in engines:
        engine.warm([1, 3])

    def forbidden(*_: object) -> None:
        raise AssertionError("made for a shape that was not foreseen")

    monkeypatch.setattr(packed.Convolution, "_order", forbidden)
    monkeypatch.setattr(compiled.Program, "_compile", forbidden)
    for engine in engines:
        for rows in ([0], [0, 1], [2], list(range(6))):
            batch, products = _mixed(pictures)
            engine.inspect([batch[row] for row in rows], [products[row] for row in rows])


def test_a_bundle_in_tiles_from_training_to_its_verdicts(
    run: Run, good_folder: Path, broken_cells: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "cell"
    command = ("train", "--good", good_folder, "--product", "cell", "--output", path, "--teacher", "efficientnet_lite0")
    short = ("--size", "128x160", "--tile", "64x96", "--steps", 3, "--batch", 4, "--false-reject-rate", 0.2)
    status, _, err = run(*command, *short, "--device", "cpu")
    assert status == 0, err
    found = bundle.read(path)
    assert (found.size, found.recipe.tile) == (SIZE, TILE)
    assert "input        128x160 pixels (height x width), in 6 tiles of 64x96\n" in run("show", path)[1]
    status, out, _ = run("predict", path, broken_cells[0], "--maps", tmp_path / "maps")
    line = json.loads(out)
    found_map = np.load(tmp_path / "maps" / f"{broken_cells[0].stem}.npy")
    assert (status, found_map.shape) == (0, SIZE)
    assert found_map.max() == pytest.approx(line["score"])
    status, out, err = run("bench", path, "--engine", "cpu", "--against", "rd4ad", "--batches", "1", "--seconds", "1")
    assert status == 2
    assert err == "revdist: rd4ad takes no part: it sees a picture as a whole, not in tiles; use openvino\n"
    assert "torch-cpu-float32" in out


def test_tiles_larger_than_the_picture_are_told_before_training(run: Run, good_folder: Path, tmp_path: Path) -> None:
    command = ("train", "--good", good_folder, "--product", "cell", "--output", tmp_path / "cell")
    status, _, err = run(*command, "--teacher", "efficientnet_lite0", "--tile", 256)
    assert status == 2
    assert err.startswith("revdist: recipe: tile is (256, 256), must be (height, width), each a multiple of 32 from 64")
    assert not (tmp_path / "cell").exists()


@pytest.mark.long
def test_a_small_defect_in_a_large_picture_is_found_where_it_is(
    run: Run, good_cells: list[Path], tmp_path: Path
) -> None:
    """Modules of 2x3 real cells, seen in tiles at their own resolution; a scratch of 2 pixels on one of them."""
    cells = [images.read(path)[:288, :288] for path in good_cells[:72]]
    modules = [np.vstack([np.hstack(cells[at : at + 3]), np.hstack(cells[at + 3 : at + 6])]) for at in range(0, 72, 6)]
    folder = tmp_path / "good"
    folder.mkdir()
    for row, module in enumerate(modules):
        Image.fromarray(module).save(folder / f"{row:02}.png")
    path = tmp_path / "module"
    command = ("train", "--good", folder, "--product", "module", "--output", path, "--teacher", "efficientnet_lite0")
    short = ("--size", "288x416", "--tile", "160x160", "--steps", 60, "--batch", 8, "--false-reject-rate", 0.3)
    status, _, err = run(*command, *short, "--device", "cpu")
    assert status == 0, err
    scratched = modules[0].copy()
    for step in range(60):
        scratched[400 + step : 404 + step, 700 + step : 704 + step] = 255
    Image.fromarray(scratched).save(tmp_path / "scratched.png")
    lines = run("predict", path, folder / "00.png", tmp_path / "scratched.png", "--maps", tmp_path)[1].splitlines()
    clean, bad = (json.loads(line) for line in lines)
    assert bad["score"] > 1.2 * clean["score"]
    change = np.load(tmp_path / "scratched.npy") - np.load(tmp_path / "00.npy")
    y, x = np.unravel_index(change.argmax(), change.shape)
    assert 400 - 40 < y * 2 < 464 + 40
    assert 700 - 40 < x * 864 / 416 < 764 + 40
