"""revdist.training.holdout and revdist.training.suspects"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.errors import CalibrationError, DataError, ImageError, RevdistError
from revdist.evaluation import evaluate
from revdist.training import holdout, suspects


@pytest.fixture
def loaded(tiny: Bundle, engine: Engine) -> Iterator[Bundle]:
    yield bundle.load(tiny.path, engine)
    engine.remove("cell")


@pytest.fixture
def lots(tmp_path: Path, good_cells: list[Path]) -> Path:
    """Three lots of unseen cells: the third one has stripes, which even a student of six steps notices."""
    root = tmp_path / "lots"
    for name, cells in (("mon", good_cells[50:58]), ("tue", good_cells[58:66]), ("wed", good_cells[66:70])):
        (root / name).mkdir(parents=True)
        for path in cells:
            pixels = images.read(path)
            if name == "wed":
                pixels = pixels.copy()
                pixels[::16] = 255 - pixels[::16]
            Image.fromarray(pixels).save(root / name / path.name)
    return root


def test_pictures_are_gathered_from_a_folder_and_from_lots(lots: Path) -> None:
    plain = holdout.gather(lots / "mon", "", ())
    assert (len(plain.used), plain.blocks, plain.excluded) == (8, (), ())
    good = holdout.gather(lots, "folders", ())
    assert [good.name(path) for path in good.used] == sorted(
        f"{path.parent.name}/{path.name}" for path in lots.rglob("*.png")
    )
    assert good.blocks == ("mon",) * 8 + ("tue",) * 8 + ("wed",) * 4
    with pytest.raises(DataError, match="mon: a folder among the pictures"):
        holdout.gather(lots, "", ())


def test_a_lot_that_holds_something_else_is_refused(lots: Path) -> None:
    (lots / "mon" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes.txt: not a picture"):
        holdout.gather(lots, "folders", ())
    (lots / "mon" / "notes.txt").rename(lots / "notes.txt")
    with pytest.raises(DataError, match=r"notes.txt: not a picture"):
        holdout.gather(lots, "folders", ())


def test_pictures_are_excluded_by_content_and_named_by_path_or_in_the_folder(lots: Path, tmp_path: Path) -> None:
    mon = sorted((lots / "mon").iterdir())
    shutil.copy(mon[0], lots / "tue" / "again.png")
    shutil.copy(mon[1], tmp_path / "elsewhere.png")
    good = holdout.gather(lots, "folders", [Path("mon") / mon[0].name, tmp_path / "elsewhere.png"])
    assert [good.name(path) for path in good.excluded] == [f"mon/{mon[0].name}", f"mon/{mon[1].name}", "tue/again.png"]
    assert len(good.used) == len(good.blocks) == 18
    assert not set(good.used) & set(good.excluded)


def test_an_exclusion_that_means_nothing_is_refused(lots: Path, good_cells: list[Path]) -> None:
    with pytest.raises(ImageError, match=r"nowhere.png: cannot be read: No such file"):
        holdout.gather(lots, "folders", [Path("nowhere.png")])
    with pytest.raises(DataError, match="cannot be excluded, it is none of the pictures"):
        holdout.gather(lots, "folders", [good_cells[0]])
    with pytest.raises(DataError, match="all 8 pictures are excluded"):
        holdout.gather(lots / "mon", "", list((lots / "mon").iterdir()))


def test_a_lot_that_differs_is_seen_in_its_rejects(loaded: Bundle, engine: Engine, lots: Path) -> None:
    good = holdout.gather(lots, "folders", ())
    recipe = dataclasses.replace(loaded.recipe, blocks="folders", false_reject_rate=0.2)
    (made,) = holdout.calibrations_from_pictures([engine], "cell", good, good.used, recipe)
    assert [(each.name, each.pictures) for each in made.blocks] == [("mon", 8), ("tue", 8), ("wed", 4)]
    scores = evaluate.scores(engine, "cell", good.used)
    for block in made.blocks:  # by hand
        own = np.array(good.blocks) == block.name
        others = np.sort(scores[~own])
        k = int(np.ceil((len(others) + 1) * 0.8 - 1e-9))
        assert block.rejected == (scores[own] > others[k - 1]).sum()
    assert made.blocks[2].rejected == 4


def test_one_block_has_nothing_to_be_compared_with(
    loaded: Bundle, engine: Engine, lots: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = holdout.gather(lots, "folders", ())
    (made,) = holdout.calibrations_from_pictures(
        [engine], "cell", good, good.used[:8], dataclasses.replace(loaded.recipe, blocks="folders")
    )
    assert made.blocks == ()
    assert "all held-out pictures are of block mon" in caplog.text


def test_suspects_and_exclusions_are_remembered_with_their_content(loaded: Bundle, engine: Engine, lots: Path) -> None:
    worst = min((lots / "wed").iterdir())
    good = holdout.gather(lots, "folders", [worst])
    (made,) = holdout.calibrations_from_pictures([engine], "cell", good, good.used, loaded.recipe)
    assert len(made.suspects) == 5
    assert made.suspects[0].score == made.scores[-1]
    first = lots / made.suspects[0].file
    assert images.content_hash(first) == made.suspects[0].sha256
    (excluded,) = made.excluded
    assert (excluded.file, excluded.sha256) == (f"wed/{worst.name}", images.content_hash(worst))
    assert excluded.score == pytest.approx(evaluate.scores(engine, "cell", [worst])[0])
    assert len(made.scores) == 19


def test_a_picture_that_cannot_be_read_can_be_excluded(
    loaded: Bundle, engine: Engine, lots: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = lots / "wed" / "broken.png"
    broken.write_bytes(min((lots / "wed").iterdir()).read_bytes()[:5000])
    good = holdout.gather(lots, "folders", [broken])
    (made,) = holdout.calibrations_from_pictures([engine], "cell", good, good.used, loaded.recipe)
    assert made.excluded == ()
    assert "broken.png: the PNG is cut off; excluded without a record" in caplog.text


def test_what_is_odd_about_pictures_is_told_once_for_all_engines(
    loaded: Bundle, engine: Engine, lots: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = lots / "mon" / "broken.png"
    broken.write_bytes(min((lots / "mon").iterdir()).read_bytes()[:5000])
    good = holdout.gather(lots, "folders", [broken])
    recipe = dataclasses.replace(loaded.recipe, blocks="folders")
    one, other = holdout.calibrations_from_pictures([engine, engine], "cell", good, good.used[:8], recipe)
    assert (one.threshold, one.excluded) == (other.threshold, other.excluded)
    assert caplog.text.count("all held-out pictures are of block mon") == 1
    assert caplog.text.count("excluded without a record") == 1


def test_every_picture_that_cannot_be_read_is_named_though_they_are_in_several_batches(
    engine: Engine, loaded: Bundle, lots: Path
) -> None:
    good = holdout.gather(lots, "folders", ())
    for path in (good.used[1], good.used[-1]):
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError) as error:
        evaluate.scores(engine, "cell", good.used)
    assert error.value.message.startswith("2 pictures cannot be read:")


def test_overlays_of_suspects_are_written_in_their_order(
    loaded: Bundle, engine: Engine, lots: Path, tmp_path: Path
) -> None:
    good = holdout.gather(lots, "folders", ())
    (made,) = holdout.calibrations_from_pictures([engine], "cell", good, good.used, loaded.recipe)
    folder = tmp_path / "new" / "overlays"
    suspects.write(folder, engine, "cell", made, lots)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{place}-{Path(each.file).stem}.png" for place, each in enumerate(made.suspects, 1)
    ]
    assert images.read(next(folder.iterdir())).shape == (300, 300, 3)
    with pytest.raises(RevdistError, match="cannot be written: Not a directory"):
        suspects.write(next(folder.iterdir()) / "below", engine, "cell", made, lots)


def test_pictures_that_were_trained_with_are_told_from_unseen_ones(
    tiny: Bundle, good_folder: Path, good_cells: list[Path]
) -> None:
    pictures = images.good_pictures(good_folder)
    assert len(holdout.unseen(tiny, pictures)) == 5
    seen = [path for path in pictures if path not in holdout.unseen(tiny, pictures)]
    assert holdout.unseen(tiny, [*seen, good_cells[60]]) == [good_cells[60]]
    with pytest.raises(CalibrationError, match="trained on all 19 pictures"):
        holdout.unseen(tiny, seen)
