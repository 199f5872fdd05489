"""rejectd.cli.account: what a shift adds up to, and what its times mean when the clock is changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rejectd.cli.account import AccountError, Camera, account, good, instant, remarks, set_aside, table
from rejectd.contract.messages import iso
from rejectd.storage.outbox import Delivery, Entries, Outbox

NOON = 1_700_000_000 * 10**9
SECOND = 10**9


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in Berlin: the clock goes forward on 2026-03-29 at 02:00, and back on 2026-10-25 at 03:00."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> int:
    """Unix ns of a time with its offset."""
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("now", "text", "expected"),
    [
        ("2026-03-29T08:00+02:00", "06:00", "2026-03-29T06:00+02:00"),
        ("2026-03-29T08:00+02:00", "01:30", "2026-03-29T01:30+01:00"),
        ("2026-03-29T01:30+01:00", "22:00", "2026-03-28T22:00+01:00"),
        ("2026-03-30T01:30+02:00", "22:00", "2026-03-29T22:00+02:00"),
        ("2026-03-29T08:00+02:00", "22:00", "2026-03-28T22:00+01:00"),
        ("2026-03-29T08:00+02:00", "02:30", "2026-03-29T03:30+02:00"),
        ("2026-10-25T08:00+01:00", "06:00", "2026-10-25T06:00+01:00"),
        ("2026-10-25T08:00+01:00", "01:30", "2026-10-25T01:30+02:00"),
        ("2026-10-25T08:00+01:00", "22:00", "2026-10-24T22:00+02:00"),
        ("2026-10-25T08:00+01:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-10-25T02:45+02:00", "02:30", "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:15+01:00", "02:30", "2026-10-25T02:30+02:00"),
        ("2026-10-26T01:00+01:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-03-29T08:00+02:00", "8h", "2026-03-28T23:00+01:00"),
        ("2026-10-25T08:00+01:00", "8h", "2026-10-25T01:00+02:00"),
        ("2026-10-25T08:00+01:00", "2026-10-25T01:00", "2026-10-25T01:00+02:00"),
        ("2026-12-01T08:00+01:00", "2026-07-01T06:00", "2026-07-01T06:00+02:00"),
        ("2026-12-01T08:00+01:00", "2026-07-01T06:00Z", "2026-07-01T06:00+00:00"),
        ("2026-07-01T08:00+02:00", "08:00", "2026-07-01T08:00+02:00"),
    ],
)
def test_no_time_is_off_by_an_hour_around_a_clock_change(now: str, text: str, expected: str) -> None:
    assert iso(instant(text, datetime.fromisoformat(now))) == iso(at(expected))


@pytest.mark.parametrize("text", ["yesterday", "25:00", "06:61", "", "8", "2026-02-30", "99999d" * 2])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(AccountError, match="is not a time; give 2026-11-25T06:00, 06:00, or a time ago such as 90m"):
        instant(text, datetime.now(UTC))


# a journal


def a_body(seq: int, decision: str = "pass", cause: str | None = None, *, camera: str = "left") -> dict[str, Any]:
    captured = NOON + seq * SECOND
    return {
        "event_id": f"run-{camera}-{seq}",
        "camera": camera,
        "product": "cell",
        "seq": seq,
        "trigger": seq,
        "views": None,
        "captured_at": iso(captured),
        "valid_until": iso(captured + SECOND // 2),
        "decision": decision,
        "cause": cause,
        "action": "pass",
        "latency_ms": 10.0,
        **dict.fromkeys(("score", "threshold", "p_value", "bundle", "engine_ms", "source")),
    }


def accounted(path: Path, bodies: list[dict[str, Any]], acknowledged_ms: dict[int, float]) -> dict[str, Camera]:
    with contextlib.closing(Outbox(path, keep_ns=10**18, max_bytes=10**9, wall_clock=lambda: NOON)) as outbox:
        deliveries = [
            Delivery(event_id=body["event_id"], acknowledged_ms=acknowledged_ms.get(body["seq"], 20.0))
            for body in bodies
            if acknowledged_ms.get(body["seq"], 20.0) > 0
        ]
        outbox.write(Entries(verdicts=bodies, deliveries=deliveries))
    return account(path, NOON, NOON + 10**6 * SECOND, travel_ns=0)


def test_a_shift_in_which_all_is_well_needs_no_remark(tmp_path: Path) -> None:
    cameras = accounted(tmp_path / "j.sqlite", [a_body(seq) for seq in range(1, 6)], {})
    assert good(cameras)
    assert list(remarks(cameras)) == []
    assert (cameras["left"].captured, cameras["left"].acknowledged) == (5, 5)


def test_parts_that_were_not_inspected_are_told_in_figures_with_the_commonest_cause(tmp_path: Path) -> None:
    late = [a_body(seq, "unjudged", "late") for seq in range(1, 121)]
    others = [a_body(seq, "unjudged", "overload") for seq in range(121, 134)]
    cameras = accounted(tmp_path / "j.sqlite", [*late, *others, *(a_body(seq) for seq in range(134, 246))], {})
    assert not good(cameras)
    assert list(remarks(cameras)) == ["133 of 245 parts were not inspected, mostly late (120)"]
    assert "left: unjudged: 120 late, 13 overload" in list(table(cameras))


def test_a_verdict_is_in_time_overdue_or_undelivered_and_late_is_a_cause_alone(tmp_path: Path) -> None:
    cameras = accounted(tmp_path / "j.sqlite", [a_body(seq) for seq in range(1, 5)], {2: 501.0, 3: 0, 4: 500.0})
    left = cameras["left"]
    assert (left.acknowledged, left.overdue, left.undelivered) == (2, 1, 1)
    assert not good(cameras)
    assert list(remarks(cameras)) == [
        "left: 1 verdicts reached the broker after their deadline",
        "left: 1 verdicts that the broker did not acknowledge: was it or the disk away?",
    ]
    assert "late" not in "\n".join(table(cameras))


def test_a_verdict_whose_acknowledgement_may_still_come_is_not_called_undelivered(tmp_path: Path) -> None:
    accounted(tmp_path / "j.sqlite", [a_body(1)], {1: 0})
    (camera,) = account(tmp_path / "j.sqlite", NOON, NOON + 3 * SECOND, travel_ns=0).values()
    assert (camera.captured, camera.undelivered) == (1, 0)


def test_views_of_a_station_are_not_counted_as_parts(tmp_path: Path) -> None:
    views = [a_body(seq, "unjudged", "late", camera=name) for name in ("left", "right") for seq in (1, 2)]
    parts = [a_body(1, "unjudged", "late", camera="gate"), a_body(2, camera="gate")]
    cameras = accounted(tmp_path / "j.sqlite", [*views, *parts], {})
    assert list(remarks(cameras, views={"left", "right"})) == [
        "1 of 2 parts were not inspected, all late",
        "left: 2 of 2 pictures were not judged",
        "right: 2 of 2 pictures were not judged",
    ]


def test_a_frame_without_an_entry_is_something_to_look_at(tmp_path: Path) -> None:
    cameras = accounted(tmp_path / "j.sqlite", [a_body(1), a_body(3)], {})
    assert list(remarks(cameras)) == ["left: 1 frames have no entry in the journal: was the disk full?"]
    assert not good(cameras)


def test_a_time_without_parts_is_not_called_good(tmp_path: Path) -> None:
    accounted(tmp_path / "j.sqlite", [a_body(1)], {})
    cameras = account(tmp_path / "j.sqlite", 0, 1, travel_ns=0)
    assert not good(cameras)
    assert list(remarks(cameras)) == ["no part was captured in this time"]


def test_a_journal_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    with pytest.raises(AccountError, match=r"state/journal\.sqlite: there is no journal"):
        account(path, 0, 1, travel_ns=0)
    assert not path.parent.exists()


def test_a_journal_that_was_set_aside_in_this_time_is_named_since_its_frames_are_not_in_the_account(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "journal.sqlite"
    for stamp in ("20231114T060000Z", "20231114T230000Z", "20231115T010000Z-2"):
        journal.with_name(f"journal.sqlite.damaged-{stamp}").touch()
        journal.with_name(f"journal.sqlite.damaged-{stamp}-wal").touch()
    said = list(set_aside(journal, NOON))
    assert [text.split("damaged-")[1][:18] for text in said] == ["20231114T230000Z h", "20231115T010000Z-2"]
    assert said[0].startswith("a journal was damaged and set aside: what ")


def test_a_damaged_journal_is_told_from_one_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"?" * 9000)
    with pytest.raises(AccountError, match="it is damaged: the service sets it aside and begins a new one"):
        account(tmp_path / "journal.sqlite", 0, 1, travel_ns=0)
