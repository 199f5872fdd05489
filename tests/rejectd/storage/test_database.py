"""rejectd.storage.database: the file of a line, and how one that an older version wrote is brought up to date."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejectd.storage import database
from rejectd.storage.outbox import Entries, NewEvent, Outbox, OutboxError, Replay
from rejectd.storage.outbox_reader import OutboxReader

RUN = "20261120T060000-abcdef"
VERSION_1 = """
PRAGMA auto_vacuum=INCREMENTAL;
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS verdict (
    event_id TEXT PRIMARY KEY, camera TEXT NOT NULL, product TEXT NOT NULL, frame_seq INTEGER NOT NULL,
    captured_unix_ns INTEGER NOT NULL, decision TEXT NOT NULL, cause TEXT, action TEXT NOT NULL,
    score REAL, threshold REAL, p_value REAL, bundle TEXT, latency_ms REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS verdict_by_time ON verdict (captured_unix_ns);
CREATE TABLE IF NOT EXISTS event (
    event_seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, topic TEXT NOT NULL,
    payload BLOB NOT NULL, created_unix_ns INTEGER NOT NULL, acknowledged_unix_ns INTEGER
);
CREATE INDEX IF NOT EXISTS event_waiting ON event (event_seq) WHERE acknowledged_unix_ns IS NULL;
PRAGMA user_version=1;
"""  # as rejectd 0.1.0 made it


def of_version_1(path: Path, verdicts: int = 30, events: int = 20, acknowledged: int = 12) -> Path:
    """A file as the first version left it; the last number of an event was given to one that is gone."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(VERSION_1)
        db.execute("BEGIN")
        db.executemany(
            "INSERT OR IGNORE INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    f"{RUN}-left-2-{n}",
                    "left-2",
                    "cell",
                    n,
                    10**18 + n,
                    "reject",
                    None,
                    "reject",
                    2.0,
                    1.0,
                    0.1,
                    "b",
                    1.5,
                )
                for n in range(1, verdicts + 1)
            ],
        )
        db.executemany(
            "INSERT INTO event VALUES (NULL, ?, ?, ?, ?, ?)",
            [
                (f"{RUN}-a-{n}", "t", json.dumps({"event_seq": n}).encode(), n, n if n <= acknowledged else None)
                for n in range(1, events + 2)
            ],
        )
        db.execute("DELETE FROM event WHERE event_seq = ?", (events + 1,))
        db.execute("COMMIT")
    return path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def schema(path: Path) -> set[tuple[object, ...]]:
    found = rows(path, "SELECT type, name, tbl_name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    columns = rows(path, "SELECT m.name, p.name, p.type, p.pk FROM sqlite_master m, pragma_table_info(m.name) p")
    return {*found, *(row for row in columns if not str(row[0]).startswith("sqlite_"))}


def opened(path: Path) -> Outbox:
    outbox = Outbox(path, keep_ns=10**18, max_bytes=10**12)
    outbox.open()
    return outbox


def test_a_new_file_has_the_version_of_this_program(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    database.open_to_write(path).close()
    assert rows(path, "PRAGMA user_version") == [(database.VERSION,)]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert rows(path, "PRAGMA auto_vacuum") == [(2,)], "incremental: pruning gives space back"


def test_what_a_connection_commits_is_on_the_disk(tmp_path: Path) -> None:
    with contextlib.closing(database.open_to_write(tmp_path / "journal.sqlite")) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,), "full"


def test_a_file_of_version_1_becomes_the_same_as_a_new_one_and_loses_nothing(tmp_path: Path) -> None:
    path = of_version_1(tmp_path / "old.sqlite")
    with contextlib.closing(opened(path)) as outbox:
        assert outbox.waiting() == 8
    database.open_to_write(tmp_path / "new.sqlite").close()
    assert schema(path) == schema(tmp_path / "new.sqlite")
    assert rows(path, "PRAGMA user_version") == [(2,)]
    (count, product, decision, latency), = rows(
        path, "SELECT count(*), min(product), max(decision), sum(latency_ms) FROM verdict"
    )  # fmt: skip
    assert (count, product, decision, latency) == (30, "cell", "reject", 45.0)
    query = "SELECT run, camera, frame_seq, captured_unix_ns, score, acknowledged_ms FROM verdict WHERE frame_seq = 10"
    assert rows(path, query) == [(RUN, "left-2", 10, 10**18 + 10, 2.0, None)]
    assert rows(path, "SELECT DISTINCT run FROM verdict") == [(RUN,)], "whatever the camera's name and the number are"


def test_the_outbox_of_a_file_of_version_1_goes_on_where_it_was(tmp_path: Path) -> None:
    path = of_version_1(tmp_path / "old.sqlite")
    with contextlib.closing(opened(path)) as outbox, contextlib.closing(OutboxReader(path)) as reader:
        assert [event.event_seq for event in reader.waiting(100)] == list(range(13, 21))
        outbox.write(Entries(events=[NewEvent(event_id="new", topic="t", payload={})], acknowledged=range(13, 21)))
        assert [event.event_seq for event in reader.waiting(100)] == [22], "a number is never given twice"
        outbox.write(Entries(acknowledged=[22]))
        assert outbox.replay(Replay(from_seq=11, to_seq=13)) == (3, 11, 13)
        assert [json.loads(event.payload)["event_seq"] for event in reader.waiting(100)] == [11, 12, 13]


def test_a_file_is_brought_up_to_date_once(tmp_path: Path) -> None:
    path = of_version_1(tmp_path / "old.sqlite")
    for _ in range(3):
        opened(path).close()
    assert rows(path, "SELECT count(*) FROM verdict") == [(30,)]


def test_a_start_that_is_killed_while_it_brings_a_file_up_to_date_leaves_the_old_or_the_new_one(
    tmp_path: Path,
) -> None:
    original = of_version_1(tmp_path / "original.sqlite", verdicts=4000, events=2000, acknowledged=1000)
    chance = random.Random(3)
    found = []
    for number in range(14):
        path = shutil.copy(original, tmp_path / f"{number}.sqlite")
        child = os.fork()
        if child == 0:
            try:
                database.open_to_write(path)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.06))  # the instant of a kill is nobody's choice
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found += rows(path, "PRAGMA user_version")
        assert rows(path, "SELECT count(*) FROM verdict") == [(4000,)]
        with contextlib.closing(opened(path)) as outbox:
            assert outbox.waiting() == 1000
        assert rows(path, "SELECT count(*), count(run), max(frame_seq) FROM verdict") == [(4000, 4000, 4000)]
    assert set(found) <= {(1,), (2,)}


@contextlib.contextmanager
def no_file_may_grow() -> Iterator[None]:
    """What a full disk is to SQLite, also where a test may not mount one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_while_a_file_is_brought_up_to_date_is_told_and_changes_nothing(tmp_path: Path) -> None:
    path = of_version_1(tmp_path / "old.sqlite")
    with no_file_may_grow(), pytest.raises(OutboxError, match=r"old\.sqlite: .* cannot be opened: .*free disk space"):
        opened(path)
    assert rows(path, "PRAGMA user_version") == [(1,)]
    assert rows(path, "SELECT count(*) FROM verdict") == [(30,)]
    opened(path).close()
    assert rows(path, "SELECT count(*), count(run) FROM verdict") == [(30, 30)]


def test_a_newer_file_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    database.open_to_write(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=3")
    with pytest.raises(database.NewerError):
        database.open_to_write(path)


def test_who_reads_cannot_write_and_sees_what_the_service_commits(tmp_path: Path) -> None:
    path = tmp_path / "a folder with #?% in its name" / "journal.sqlite"
    with contextlib.closing(opened(path)) as outbox, contextlib.closing(database.open_to_read(path)) as db:
        outbox.write(Entries(events=[NewEvent(event_id="e", topic="t", payload={})]))
        assert [row["event_id"] for row in db.execute("SELECT event_id FROM event")] == ["e"]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM event")


def test_who_reads_never_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        database.open_to_read(tmp_path / "absent.sqlite")
    assert list(tmp_path.iterdir()) == []
