"""`revdist look`: revdist.report.folder, folder_page and spreads, as a user runs it"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist.report import spreads
from revdist.report.document import POLICY

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, good_cells: list[Path]) -> Path:
    """An MVTec layout with a copy, a file that is no picture, one that belongs elsewhere, and a nasty name."""
    root = tmp_path_factory.mktemp("mixed")
    for row, path in enumerate(good_cells[:30]):
        folder = root / ("train/good" if row < 20 else "test/<b>bad")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)
    good = root / "train" / "good"
    picture = np.asarray(Image.open(good_cells[0]).convert("L"))
    Image.fromarray(picture).save(good / "the same.bmp")
    (good / "broken.png").write_bytes(b"no picture")
    brighter = np.clip(np.asarray(Image.open(good_cells[21]).convert("L")) * 1.02, 0, 255).round().astype(np.uint8)
    Image.fromarray(brighter).save(good / "nearly.png")
    board = (np.indices((120, 200)).sum(0) // 10 % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(good / "board.png")
    (root / "ground_truth" / "<b>bad").mkdir(parents=True)
    Image.fromarray(board).save(root / "ground_truth" / "<b>bad" / "mask.png")
    return root


def test_a_folder_is_told_as_a_table_and_as_a_page(
    run: Run, mixed: Path, good_cells: list[Path], tmp_path: Path
) -> None:
    status, out, _ = run("look", mixed, "--output", tmp_path / "look.html")
    assert status == 0
    assert re.search(r"^test/<b>bad +10 +300x300 +8 bit +\d+\.\.\d+ +\d+ +\d+ +0\.\d\d$", out, re.MULTILINE)
    assert re.search(r"^train/good +23 +300x300, 200x120 +8 bit +0\.\.255 ", out, re.MULTILINE)
    assert f"NOT READABLE  {mixed}/train/good/broken.png: " in out
    assert f"the same picture: train/good/{good_cells[0].name}, train/good/the same.bmp" in out
    assert f"nearly the same picture: train/good/nearly.png, test/<b>bad/{good_cells[21].name}" in out
    assert out.count("nearly the same picture") == 1, "equal ones are not named again"
    assert re.search(
        r"^unlike all others \(\d+\.\d robust standard deviations\): train/good/board\.png$", out, re.MULTILINE
    )
    assert out.count("unlike all others") == 1
    page = (tmp_path / "look.html").read_text()
    assert "ground_truth" not in page
    assert "mask.png" not in page
    assert "<b>bad" not in page, "names are escaped"
    assert "test/&lt;b&gt;bad" in page
    assert page.count("<img ") == 33 + len(re.findall(r"<strong>\d+\.\d</strong>", page)), (
        "all on the sheet, and the odd"
    )
    assert POLICY.replace("'", "&#x27;") in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "it fetches nothing"
    assert "<script" not in page


def test_a_plain_folder_is_shown_beside_itself(run: Run, good_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good_folder, tmp_path / "cells"))
    status, out, _ = run("look", folder)
    assert status == 0
    assert "(the folder itself)        24" in out
    assert out.rstrip().endswith(str(tmp_path / "cells-look.html"))
    page = (tmp_path / "cells-look.html").read_text()
    assert "No picture is there twice." in page
    assert "No two pictures are nearly the same." in page


def test_without_a_teacher_it_is_said_that_nobody_looked_for_near_copies(run: Run, mixed: Path, tmp_path: Path) -> None:
    status, out, _ = run("look", mixed, "--output", tmp_path / "look.html", "--no-teacher")
    assert status == 0
    assert "near copies and odd ones were not looked for: that takes a teacher" in out
    assert "nearly the same" not in out
    assert "the same picture: " in out, "copies need none"
    assert (tmp_path / "look.html").read_text().count("were not looked for") == 2


def test_a_folder_without_a_readable_picture_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    status, _, err = run("look", tmp_path / "bad", "--output", tmp_path / "p.html")
    assert status == 2
    assert "none of its 1 pictures can be read" in err
    assert not (tmp_path / "p.html").exists()


def test_values_that_are_all_the_same_can_be_drawn() -> None:
    drawn = spreads.spreads({"a": np.zeros(3), "b": np.zeros(1)}, "plain")
    assert drawn.count("<rect") == 2
    drawn = spreads.spreads({"a": np.full(3, 255.0)}, "plain")
    assert drawn.count("<rect") == 1
