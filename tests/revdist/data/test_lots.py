"""revdist.data.lots"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revdist.data import lots
from revdist.errors import DataError


@pytest.mark.parametrize("pattern", ["", "folders", r"lot(\d+)_", "(?:a|b)(c)"])
def test_patterns_with_one_group_are_usable(pattern: str) -> None:
    assert lots.usable(pattern)


@pytest.mark.parametrize("pattern", ["lot", "(a)(b)", "lot(", "(?:a)"])
def test_others_are_not(pattern: str) -> None:
    assert not lots.usable(pattern)


def test_the_group_or_the_folder_names_the_block() -> None:
    files = [PurePath("lot1_a.png"), PurePath("lot22_b.png"), PurePath("lot1_c.png")]
    assert lots.names(r"lot(\d+)_", files) == ["1", "22", "1"]
    assert lots.names("folders", [PurePath("mon/a.png"), PurePath("tue/a.png")]) == ["mon", "tue"]


@pytest.mark.parametrize(
    ("pattern", "file"), [("folders", "c.png"), (r"lot(\d+)_", "c.png"), (r"lot(\d*)_", "lot_.png")]
)
def test_a_file_without_a_block_is_named(pattern: str, file: str) -> None:
    with pytest.raises(DataError, match=rf"^{file}: --blocks .* finds no block in its name"):
        lots.names(pattern, [PurePath(file)])


def test_one_block_alone_cannot_be_split() -> None:
    with pytest.raises(DataError, match="all 2 pictures are in block 7"):
        lots.names(r"lot(\d)", [PurePath("lot7_a.png"), PurePath("lot7_b.png")])


@given(sizes=st.lists(st.integers(1, 60), min_size=2, max_size=9), share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_whole_blocks_are_held_out_never_none_and_never_all(sizes: list[int], share: float, seed: int) -> None:
    named = [str(block) for block, size in enumerate(sizes) for _ in range(size)]
    count = round(share * len(named))
    held = lots.hold_out(named, count, np.random.default_rng(seed))
    assert held == lots.hold_out(named, count, np.random.default_rng(seed))
    assert 1 <= len(held) < len(sizes)
    assert held <= set(named)


@pytest.mark.parametrize("seed", range(8))
def test_about_as_many_pictures_are_held_out_as_asked(seed: int) -> None:
    named = [str(row % 10) for row in range(200)]
    held = lots.hold_out(named, 40, np.random.default_rng(seed))
    assert Counter(each in held for each in named)[True] == 40
    assert lots.hold_out(["big"] * 90 + ["small"] * 10, 20, np.random.default_rng(seed)) == {"small"}
    assert lots.hold_out(["big"] * 90 + ["less"] * 80, 5, np.random.default_rng(seed)) == {"less"}
