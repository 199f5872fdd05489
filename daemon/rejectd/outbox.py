"""The journal of verdicts and the outbox of defect events, in one SQLite file.

Commit first, publish then, mark as acknowledged last: a crash between any two steps loses nothing and at most repeats
an event with the same `event_id`. Acknowledged records stay for days. When the file reaches its bound, acknowledged
records go first, the oldest first; if that is not enough, the oldest journal entries go, and unacknowledged events
last of all, counted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rejectd.messages import RejectdError, Verdict, encode

_SCHEMA = """
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
"""
_VERSION = 1


class OutboxError(RejectdError):
    """The journal cannot be opened or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """A defect event to keep until the broker has it. Its number on the line, `event_seq`, is added to the payload."""

    event_id: str
    topic: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it goes out."""

    event_seq: int
    topic: str
    payload: bytes


class Outbox:
    """Owned by the thread that writes; `Reader` serves the one that publishes."""

    def __init__(self, path: Path, *, keep_ns: int, max_bytes: int) -> None:
        """Open or create the file.

        Raises:
            OutboxError: if it cannot be opened, is damaged, or comes from a newer version.
        """
        self.path = path
        self._keep_ns = keep_ns
        self._max_bytes = max_bytes
        hint = "let the service's user write there, free disk space, or move a damaged file away"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise OutboxError(f"{path}: the journal cannot be opened: {error}", hint=hint) from error
        try:
            if self._db.execute("PRAGMA user_version").fetchone()[0] > _VERSION:
                raise OutboxError(f"{path} was written by a newer rejectd", hint="install that version again")  # noqa: TRY301 - closed below
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except OutboxError:
            self._db.close()
            raise
        except sqlite3.Error as error:
            self._db.close()
            raise OutboxError(f"{path}: the journal cannot be opened: {error}", hint=hint) from error

    def write(
        self, verdicts: Sequence[tuple[Verdict, float]], events: Iterable[NewEvent], acknowledged: Iterable[int]
    ) -> None:
        """One durable transaction: verdicts with their latency in ms, new events, and numbers of acknowledged ones.

        Raises:
            OutboxError: nothing was written, for example because the disk is full.
        """
        now = time.time_ns()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR IGNORE INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, verdicts)
            )
            for event in events:
                self._insert(event, now)
            self._db.executemany(
                "UPDATE event SET acknowledged_unix_ns = ? WHERE event_seq = ?", [(now, seq) for seq in acknowledged]
            )
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            raise OutboxError(f"{self.path}: the journal cannot be written: {error}", hint="free disk space") from error

    def prune(self) -> int:
        """Keep to the bounds of age and size. Returns how many unacknowledged events had to go.

        Raises:
            OutboxError: if the file cannot be written.
        """
        try:
            return self._prune(time.time_ns() - self._keep_ns)
        except sqlite3.Error as error:
            raise OutboxError(f"{self.path}: the journal cannot be pruned: {error}", hint="free disk space") from error

    def _prune(self, old: int) -> int:
        lost = 0
        self._db.execute("DELETE FROM event WHERE acknowledged_unix_ns < ?", (old,))
        self._db.execute("DELETE FROM verdict WHERE captured_unix_ns < ?", (old,))
        while self._used_bytes() > self._max_bytes:
            for statement in _SHRINK:
                gone = self._db.execute(statement).rowcount
                if gone:
                    lost += gone if statement is _SHRINK[-1] else 0
                    break
            else:
                break
        self._db.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page
        return lost

    def waiting(self) -> int:
        """Events that the broker has not acknowledged.

        Raises:
            OutboxError: if the file cannot be read.
        """
        try:
            (count,) = self._db.execute("SELECT count(*) FROM event WHERE acknowledged_unix_ns IS NULL").fetchone()
        except sqlite3.Error as error:
            raise OutboxError(f"{self.path}: the journal cannot be read: {error}", hint="move it away") from error
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _insert(self, event: NewEvent, now: int) -> None:
        row = self._db.execute(
            "INSERT INTO event (event_id, topic, payload, created_unix_ns) SELECT ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM event WHERE event_id = ?)",  # IGNORE would leave a gap in the numbers
            (event.event_id, event.topic, b"", now, event.event_id),
        )
        if row.rowcount:
            payload = encode({**event.payload, "event_seq": row.lastrowid})
            self._db.execute("UPDATE event SET payload = ? WHERE event_seq = ?", (payload, row.lastrowid))

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


class Reader:
    """Reads waiting events, on a connection of its own. Opened and used by one thread."""

    def __init__(self, path: Path) -> None:
        self._db = _connect(path)

    def waiting(self, after: int, limit: int) -> list[Event]:
        """The next unacknowledged events with a number above `after`, in order.

        Raises:
            OutboxError: if the file cannot be read.
        """
        try:
            rows = self._db.execute(
                "SELECT event_seq, topic, payload FROM event"
                " WHERE acknowledged_unix_ns IS NULL AND event_seq > ? ORDER BY event_seq LIMIT ?",
                (after, limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise OutboxError(f"the outbox cannot be read: {error}", hint="see the journal's errors") from error
        return [Event(event_seq=seq, topic=topic, payload=payload) for seq, topic, payload in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_SHRINK = (  # what goes first when the file is full: a thousand at a time, of unacknowledged events no more than must
    """DELETE FROM event WHERE event_seq IN
    (SELECT event_seq FROM event WHERE acknowledged_unix_ns IS NOT NULL ORDER BY event_seq LIMIT 1000)""",
    "DELETE FROM verdict WHERE event_id IN (SELECT event_id FROM verdict ORDER BY captured_unix_ns LIMIT 1000)",
    "DELETE FROM event WHERE event_seq IN (SELECT event_seq FROM event ORDER BY event_seq LIMIT 10)",
)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before the first write, which journal_mode is
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    return db


def _row(entry: tuple[Verdict, float]) -> tuple[object, ...]:
    verdict, latency_ms = entry
    result = verdict.result
    return (
        verdict.event_id,
        verdict.camera,
        verdict.product,
        verdict.seq,
        verdict.captured_unix_ns,
        verdict.decision,
        verdict.cause,
        verdict.action,
        result.score if result else None,
        result.threshold if result else None,
        result.p_value if result else None,
        result.bundle if result else None,
        latency_ms,
    )
