"""What a watched folder holds and does not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejectd.cameras.driver import Remark
from rejectd.cameras.watched.remarks import Remarks

FOLDER = Path("/hot")


def taken(remarks: Remarks) -> list[Remark]:
    collected = []
    while remark := remarks.take():
        collected.append(remark)
    return collected


def test_each_file_that_is_written_again_is_counted_and_the_log_is_not_flooded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    remarks = Remarks(FOLDER)
    for _ in range(150):
        remarks.shown()
        remarks.rewritten("part.png", 1.0)
    collected = taken(remarks)
    assert sum(remark.rewritten for remark in collected) == 150
    assert not any(remark.unseen for remark in collected), "each came with a part that was shown"
    assert len(caplog.records) == 3  # the 1st, the 10th and the 100th


def test_a_name_that_is_written_again_much_later_is_that_of_a_part_which_nobody_sees() -> None:
    remarks = Remarks(FOLDER)
    for after_s in (1.0, 59.0, 61.0, 86_400.0):
        remarks.shown()  # so that no two of them follow each other
        remarks.rewritten("part.png", after_s)
    assert [remark.unseen for remark in taken(remarks)] == [False, False, True, True]


def test_three_in_a_row_mean_that_names_are_used_again_until_a_picture_is_shown() -> None:
    remarks = Remarks(FOLDER)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        remarks.rewritten(name, 1.0)
    remarks.shown()
    remarks.rewritten("e.png", 1.0)
    assert [remark.unseen for remark in taken(remarks)] == [False, False, True, True, False]


def test_kinds_that_are_not_shown_are_said_once_each_and_loudly_while_nothing_is_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    remarks = Remarks(FOLDER)
    for name in ("1.gif", "2.gif", "3.heic", "image", "4.dat"):
        remarks.other(name)
    assert [remark.unseen for remark in taken(remarks)] == [True, True, True, True, False]
    assert len(caplog.records) == 4
    remarks.shown()
    remarks.other("5.gif")
    remarks.other("6.raw")
    assert [(remark.unseen, ".raw" in remark.text) for remark in taken(remarks)] == [(False, True)]


def test_pictures_that_were_judged_before_are_not_missed() -> None:
    old = [(10**18 + 5, "a.png"), (10**18 + 10**9, "c.png"), (10**18 - 7, "b.png")]
    remarks = Remarks(FOLDER)
    remarks.at_start(old, 10**18)
    remarks.at_start([(5, "z.png")], 10**18)
    (remark,) = taken(remarks)
    assert remark.missed == 1
    assert remark.text.endswith("c.png")
    assert not remark.unseen


def test_what_nobody_takes_is_bounded() -> None:
    remarks = Remarks(FOLDER)
    for number in range(5000):
        remarks.rewritten(f"{number}.png", 1.0)
        remarks.other(f"{number}.suffix{number}")
    assert len(taken(remarks)) <= 1000
