"""Until when the line was inspected before this start."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from rejectd.storage import last_run
from rejectd.storage.last_run import last_capture_unix_ns


def journal(path: Path, *captured_unix_ns: int) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE verdict (captured_unix_ns INTEGER NOT NULL)")
        db.executemany("INSERT INTO verdict VALUES (?)", [(at,) for at in captured_unix_ns])
    return path


def test_it_is_the_time_of_the_last_frame_in_the_journal(tmp_path: Path) -> None:
    assert last_capture_unix_ns(journal(tmp_path / "what? 100% journal.sqlite", 5, 9, 7)) == 9


def test_without_a_journal_or_with_an_empty_or_damaged_one_nobody_knows(tmp_path: Path) -> None:
    assert last_capture_unix_ns(tmp_path / "absent") is None
    assert not (tmp_path / "absent").exists()
    assert last_capture_unix_ns(journal(tmp_path / "empty")) is None
    (tmp_path / "damaged").write_bytes(b"no journal" * 1000)
    assert last_capture_unix_ns(tmp_path / "damaged") is None


def test_a_disk_that_does_not_answer_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = threading.Event()
    monkeypatch.setattr(last_run, "_WAIT_S", 0.05)
    monkeypatch.setattr(last_run, "_ask", lambda path: frozen.wait(10))
    assert last_capture_unix_ns(tmp_path) is None
    frozen.set()
