"""rejectd.page.shift: what became of the parts of a shift, from a real journal."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journal_rows import journal_with, verdict_row

from rejectd.contract.settings import FolderCamera, Product, Settings, Station
from rejectd.page import shift
from rejectd.page.journal import Journal, JournalError
from rejectd.page.shift import BUCKETS, TimeError, Window

SIX = datetime(2026, 11, 25, 6, tzinfo=UTC)
MORNING = Window(since=SIX, until=SIX + timedelta(hours=8))


def settings(**more: Any) -> Settings:
    camera = FolderCamera(product="cell", path=Path("x"))
    return Settings(
        line="l",
        cameras=dict.fromkeys(("left", "right", "top"), camera),
        products={"cell": Product(bundle=Path("cell"))},
        **more,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    rows = [
        *(verdict_row("left", number, SIX + timedelta(minutes=number), "pass", score=0.25) for number in range(6)),
        verdict_row("left", 6, SIX + timedelta(hours=7), "reject", score=0.75),
        verdict_row("left", 7, SIX + timedelta(hours=7), "unjudged", cause="late"),
        verdict_row("right", 1, SIX + timedelta(hours=1), "unjudged", cause="paused"),
        verdict_row("left", 9, SIX - timedelta(hours=1), "reject", score=0.9),
        verdict_row("left", 8, SIX + timedelta(hours=8), "reject", score=0.9),
        verdict_row("golden", 1, SIX + timedelta(hours=1), "reject", score=0.9),
    ]
    return Journal(journal_with(tmp_path, rows))


def test_parts_are_counted_by_camera_and_how_they_ended(journal: Journal) -> None:
    left, right = shift.counts(journal, settings(), MORNING)
    assert (left.camera, left.product) == ("left", "cell")
    assert (left.captured, left.passed, left.rejected, left.unjudged) == (8, 6, 1, 1)
    assert dict(left.causes) == {"late": 1}
    assert left.good_share == 6 / 8
    assert (right.captured, dict(right.causes)) == (1, {"paused": 1})
    assert shift.total([left, right]).captured == 9


def test_the_shift_before_ends_where_this_one_begins(journal: Journal) -> None:
    (before,) = shift.counts(journal, settings(), MORNING.before)
    assert (before.captured, before.rejected) == (1, 1)


def test_the_frames_of_a_station_s_cameras_are_no_parts(journal: Journal) -> None:
    station = Station(cameras=("left", "top"), tolerance_ms=10, pitch_ms=100)
    counts = shift.counts(journal, settings(stations={"end": station}), MORNING)
    assert [count.camera for count in counts] == ["right"]


def test_the_trend_shows_when_parts_were_rejected_and_how_high_they_scored(journal: Journal) -> None:
    left, _ = shift.counts(journal, settings(), MORNING)
    assert len(left.trend) == BUCKETS
    assert left.trend[0].ratio == 0.5
    assert left.trend[21].reject_share == 0.5
    assert left.trend[21].ratio == 1.5
    assert left.trend[10].reject_share is None
    bars = list(shift.bars(left, MORNING))
    assert [bar.height for bar in bars if bar.height] == [30.0]
    assert shift.line(left) == "5,45.0 215,15.0"


def test_the_table_for_spreadsheets_has_the_same_numbers(journal: Journal) -> None:
    rows = list(csv.DictReader(io.StringIO(shift.as_csv(MORNING, shift.counts(journal, settings(), MORNING)))))
    assert [(row["camera"], row["captured"], row["pass"], row["late"], row["paused"]) for row in rows] == [
        ("left", "8", "6", "1", "0"),
        ("right", "1", "0", "0", "1"),
    ]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-11-25T08:00", "2026-11-25T06:00"),
        ("yesterday", ""),
        ("2026-01-01", "2026-11-25"),
        ("0001-01-01", "0001-01-02"),
        ("9999-12-30", "9999-12-31"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(since: str, until: str) -> None:
    with pytest.raises(TimeError):
        shift.window(since, until, SIX)


def test_without_a_time_it_is_the_last_eight_hours() -> None:
    assert shift.window("", "", SIX) == Window(since=SIX - timedelta(hours=8), until=SIX)


def test_without_a_journal_there_are_no_parts(tmp_path: Path) -> None:
    assert shift.counts(Journal(tmp_path / "journal.sqlite"), settings(), MORNING) == []


def test_a_file_that_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(JournalError, match="cannot be read"):
        shift.counts(Journal(tmp_path / "journal.sqlite"), settings(), MORNING)
