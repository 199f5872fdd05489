"""Opens the one SQLite file of a line, which holds verdicts, defect events and counts of actuators, and migrates it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

VERSION = 2
_SMALL_BYTES = 16_000_000  # a file that is smaller can be checked as a whole every few seconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS verdict (
    event_id TEXT PRIMARY KEY, run TEXT NOT NULL, camera TEXT NOT NULL, product TEXT NOT NULL,
    frame_seq INTEGER NOT NULL, trigger_number INTEGER, views TEXT, captured_unix_ns INTEGER NOT NULL, deadline_ms REAL,
    decision TEXT NOT NULL, cause TEXT, action TEXT NOT NULL, score REAL, threshold REAL, p_value REAL, bundle TEXT,
    engine_ms REAL, latency_ms REAL NOT NULL, acknowledged_ms REAL, source TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS verdict_by_time ON verdict (captured_unix_ns);
CREATE TABLE IF NOT EXISTS event (
    event_seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, topic TEXT NOT NULL,
    payload BLOB NOT NULL, created_unix_ns INTEGER NOT NULL, acknowledged_unix_ns INTEGER,
    replay INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS event_waiting_by_topic ON event (topic, event_seq) WHERE acknowledged_unix_ns IS NULL;
CREATE INDEX IF NOT EXISTS event_replay ON event (event_seq) WHERE replay = 1;
CREATE INDEX IF NOT EXISTS event_by_time ON event (created_unix_ns);
CREATE TABLE IF NOT EXISTS actuator (
    camera TEXT NOT NULL, at_unix_ns INTEGER NOT NULL, rejected INTEGER NOT NULL, PRIMARY KEY (camera, at_unix_ns)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change (
    at_unix_ns INTEGER NOT NULL, what TEXT NOT NULL, subject TEXT NOT NULL, before TEXT, after TEXT, why TEXT,
    changed_by TEXT NOT NULL, request_id TEXT, answer_to TEXT
);
"""

_FROM_1 = """
BEGIN IMMEDIATE;
ALTER TABLE verdict RENAME TO verdict_1;
DROP INDEX verdict_by_time;
DROP INDEX event_waiting;
ALTER TABLE event ADD COLUMN replay INTEGER NOT NULL DEFAULT 0;
{schema}
INSERT INTO verdict (event_id, run, camera, product, frame_seq, captured_unix_ns, decision, cause, action, score,
    threshold, p_value, bundle, latency_ms)
SELECT event_id, substr(event_id, 1, length(event_id) - length(camera) - length(frame_seq) - 2), camera, product,
    frame_seq, captured_unix_ns, decision, cause, action, score, threshold, p_value, bundle, latency_ms FROM verdict_1;
DROP TABLE verdict_1;
PRAGMA user_version=2;
COMMIT;
"""


class NewerError(Exception):
    """The file was written by a newer rejectd."""


class EmptyError(Exception):
    """The file exists, but its tables are still being made."""


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open or create the file, and bring its tables up to date.

    Raises:
        sqlite3.Error: if the file cannot be opened or written.
        NewerError: if a newer rejectd wrote it.
    """
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise NewerError  # noqa: TRY301 - the file is closed below, and left as it is
        _set_up(db)
        if version == 1:
            db.executescript(_FROM_1.format(schema=SCHEMA))
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection) -> None:
    """Set up a connection so that everything it commits is on the disk."""
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before the first write, which journal_mode is
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")


def connect_if_there(path: Path) -> sqlite3.Connection:
    """Open a connection for one thread to a file that another thread or process has made.

    Raises:
        EmptyError: if the file has no tables yet.
        sqlite3.Error: if the file cannot be opened.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"  # a reader that cannot write could not share the index of the WAL
    db = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        if db.execute("PRAGMA user_version").fetchone() == (0,):  # which is set when the tables are there
            raise EmptyError  # noqa: TRY301 - the file is closed below
    except BaseException:
        db.close()
        raise
    return db


def complaint(path: Path) -> str:
    """Check the file on the disk. Returns what is wrong with it; empty if nothing is.

    This opens a new connection: the one that writes may go on for long with pages in its cache.
    """
    db = connect_if_there(path)
    try:
        if path.stat().st_size < _SMALL_BYTES:
            (finding,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return "" if finding == "ok" else str(finding)
        for table in ("verdict", "event", "actuator"):
            db.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()  # noqa: S608 - our own names
    except sqlite3.Error as error:
        if is_damage(error):
            return str(error)
        raise
    finally:
        db.close()
    return ""


def is_damage(error: sqlite3.Error, *, opening: bool = False) -> bool:
    """Whether an error means a damaged file or no database; if `opening`, also a database of another program."""
    damage = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    return _code(error) in (damage | {sqlite3.SQLITE_ERROR} if opening else damage)


def is_passing(error: sqlite3.Error) -> bool:
    """Whether the connection can still be used after an error: the disk is full, or the file is locked."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells more of the same


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write; possible also while the service writes."""
    mode = "mode=ro"
    if not path.with_name(f"{path.name}-wal").exists() and not os.access(path.parent, os.W_OK):
        mode += "&immutable=1"  # nobody writes now, and who may not write there cannot make what sharing needs
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=5, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db
