"""Frames of a video stay on one side of a split; different parts that look alike are no copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist.data import images, lots
from revdist.data.reading import PLAIN
from revdist.engines.engine import Engine
from revdist.evaluation import near_copies


def test_a_picture_in_another_light_is_nearly_the_same_and_other_cells_are_not(
    engine: Engine, good_cells: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    brighter = np.clip(images.read(good_cells[0]).astype(float) * 1.02, 0, 255).round().astype(np.uint8)
    Image.fromarray(brighter).save(tmp_path / "brighter.png")
    alike = near_copies.groups_told(engine, [*good_cells[:8], tmp_path / "brighter.png"], PLAIN, "count")
    assert alike == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert "2 pictures are nearly the same as others, in 1 groups" in caplog.text
    assert "brighter.png" in caplog.text


def test_groups_join_the_blocks_that_hold_them() -> None:
    assert lots.joined((), [0, 1, 2]) == []
    assert lots.joined(("a", "a", "b"), [0, 1, 2]) == ["a", "a", "b"]
    assert lots.joined((), [0, 1, 0]) == ["000000000", "000000001", "000000000"]
    assert lots.joined(("a", "a", "b", "c", "c"), [0, 1, 0, 3, 4]) == ["a", "a", "a", "c", "c"]
    assert lots.joined(("a", "b"), [0, 0]) == ["a", "b"], "all in one block would leave nothing to hold out"


def test_the_promise_of_near_copies_is_that_of_one_of_each_group(caplog: pytest.LogCaptureFixture) -> None:
    assert near_copies.promise([0, 1, 2], 0.01, "average") == []
    assert not caplog.records
    (sentence,) = near_copies.promise([row // 2 for row in range(40)], 0.01, "average")
    told = "40 held-out pictures are 20 distinct ones, which prove 4.76 % false rejects on average"
    assert sentence.startswith(told), "one of 21"
    assert told in caplog.text
