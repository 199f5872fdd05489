"""rejectd.page.gallery: parts from a real journal, their pictures, regions and labels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from journal_rows import journal_with, verdict_row

from rejectd.page.gallery import ON_A_PAGE, EvidenceGoneError, Filter, Gallery
from rejectd.page.journal import Journal
from rejectd.page.shift import Window
from rejectd.page.store import Store

SIX = datetime(2026, 11, 25, 6, tzinfo=UTC)
DAY = Window(since=SIX - timedelta(hours=1), until=SIX + timedelta(hours=8))
LARGE = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)


def minute(number: int) -> datetime:
    return SIX + timedelta(minutes=number)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "page")
    yield opened
    opened.close()


@pytest.fixture
def gallery(tmp_path: Path, store: Store) -> Gallery:
    rows = [
        verdict_row("left", 1, minute(1), "reject", score=0.75),
        verdict_row("left", 2, minute(2), "pass", score=0.25),
        verdict_row("right", 3, minute(3), "unjudged", cause="late"),
        verdict_row("right", 4, minute(4), "reject", score=0.8, product="wafer"),
        verdict_row("golden", 5, minute(5), "reject", score=0.8),
    ]
    folder = tmp_path / "evidence" / "2026-11-25"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "run-left-1.png"), LARGE)
    cv2.imwrite(str(folder / "run-left-1-heat.jpg"), LARGE[:600, :800])
    events = {"run-left-1": {"regions": [[10, 20, 30, 40]]}}
    return Gallery(Journal(journal_with(tmp_path, rows, events)), tmp_path / "evidence", store)


def found(gallery: Gallery, **wanted: Any) -> list[str]:
    return [part.event_id for part in gallery.parts(Filter(window=DAY, **wanted))]


def test_rejected_and_unjudged_parts_are_shown_the_latest_first(gallery: Gallery) -> None:
    assert found(gallery) == ["run-right-4", "run-right-3", "run-left-1"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"camera": "left"}, ["run-left-1"]),
        ({"product": "wafer"}, ["run-right-4"]),
        ({"decision": "pass"}, ["run-left-2"]),
        ({"decision": "unjudged"}, ["run-right-3"]),
        ({"camera": "x' OR 1=1 --"}, []),
    ],
)
def test_a_filter_leaves_what_fits_it(gallery: Gallery, wanted: dict[str, str], expected: list[str]) -> None:
    assert found(gallery, **wanted) == expected


def test_labels_can_be_searched_for_on_passes_too(gallery: Gallery, store: Store) -> None:
    store.label("run-left-2", "escape", "scratch", "anna")
    store.label("run-left-1", "right", "", "anna")
    assert found(gallery, label="any") == ["run-left-2", "run-left-1"]
    assert found(gallery, label="escape") == ["run-left-2"]
    assert found(gallery, label="none") == ["run-right-4", "run-right-3"]
    part = gallery.part("run-left-2")
    assert part
    assert part.label
    assert (part.label["kind"], part.label["remark"], part.label["who"]) == ("escape", "scratch", "anna")


def test_a_part_has_its_picture_regions_and_neighbours(gallery: Gallery) -> None:
    part = gallery.part("run-right-3")
    assert part
    assert not part.has_picture
    assert gallery.neighbours(part) == ("run-left-1", "run-right-4")
    first = gallery.part("run-left-1")
    assert first
    assert (first.has_picture, first.has_heat) == (True, True)
    assert gallery.regions("run-left-1") == [[10, 20, 30, 40]]
    assert gallery.regions("run-right-3") == []
    picture = cv2.imdecode(np.frombuffer(gallery.file(first, "picture"), np.uint8), cv2.IMREAD_COLOR)
    assert (picture == LARGE).all()


def test_a_small_picture_is_small(gallery: Gallery) -> None:
    part = gallery.part("run-left-1")
    assert part
    small = cv2.imdecode(np.frombuffer(gallery.file(part, "small"), np.uint8), cv2.IMREAD_COLOR)
    assert max(small.shape) <= 480


def test_a_picture_that_is_gone_or_broken_is_told_so(gallery: Gallery, tmp_path: Path) -> None:
    part = gallery.part("run-right-3")
    assert part
    for kind in ("picture", "heat", "small"):
        with pytest.raises(EvidenceGoneError):
            gallery.file(part, kind)
    (tmp_path / "evidence" / "2026-11-25" / "run-right-3.png").write_bytes(b"no picture")
    with pytest.raises(EvidenceGoneError):
        gallery.file(part, "small")


def test_more_parts_than_fit_on_a_page_are_reached_from_the_last_one(tmp_path: Path, store: Store) -> None:
    (tmp_path / "many").mkdir()
    rows = [verdict_row("left", number, minute(number), "reject", score=0.7) for number in range(1, ON_A_PAGE + 6)]
    gallery = Gallery(Journal(journal_with(tmp_path / "many", rows)), None, store)
    first = gallery.parts(Filter(window=DAY))
    rest = gallery.parts(Filter(window=DAY), (first[-1].captured_unix_ns, first[-1].event_id))
    assert len(first) == ON_A_PAGE
    assert [part.event_id for part in rest] == [f"run-left-{number}" for number in range(5, 0, -1)]


def test_parts_of_one_exposure_are_all_reached(tmp_path: Path, store: Store) -> None:
    (tmp_path / "regions").mkdir()
    rows = [verdict_row("left", 100 + number, minute(1), "reject", score=0.7) for number in range(ON_A_PAGE + 6)]
    gallery = Gallery(Journal(journal_with(tmp_path / "regions", rows)), None, store)
    first = gallery.parts(Filter(window=DAY))
    rest = gallery.parts(Filter(window=DAY), (first[-1].captured_unix_ns, first[-1].event_id))
    walked = [first[0].event_id]
    while earlier := gallery.neighbours(gallery.part(walked[-1]) or first[0])[0]:
        walked.append(earlier)
    assert walked == [part.event_id for part in [*first, *rest]]
    assert len(walked) == len(rows)
    assert gallery.neighbours(first[1])[1] == first[0].event_id


def test_the_last_scores_of_a_product_come_from_judged_parts(gallery: Gallery) -> None:
    assert gallery.last_scores("cell") == [0.25, 0.75]
    assert gallery.last_scores("cell", most=1) == [0.25]
