"""The journal of verdicts and the outbox of defect events, in one SQLite file.

An event is committed first, published then, and marked as acknowledged last. A crash between two steps loses no event,
and at most repeats one with the same `event_id`. Acknowledged events stay for days. When the file reaches its largest
size, acknowledged events are deleted first, the oldest before the others. If that is not enough, the oldest journal
entries are deleted, and last of all unacknowledged events, which are counted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rejectd.contract.payloads import encode
from rejectd.storage import database
from rejectd.storage.journal_file import JournalFile
from rejectd.storage.journal_file import OutboxError as OutboxError  # raised here too

Body = Mapping[str, Any]  # of a verdict message


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """A defect event to keep until the broker has it. The outbox adds its number, `event_seq`, to the payload."""

    event_id: str
    topic: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The broker's acknowledgement of a verdict."""

    event_id: str
    acknowledged_ms: float  # since the exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How many parts a PLC has rejected so far, as the PLC says."""

    camera: str
    at_unix_ns: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that somebody made while the line ran."""

    at_unix_ns: int
    what: str  # product, bundle, threshold or pause
    of: str  # the camera or product
    before: str | None
    after: str | None
    why: str | None
    by: str  # the command, or `settings`
    request_id: str | None = None
    answer_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """The entries that one transaction writes."""

    verdicts: Sequence[Body] = ()
    events: Sequence[NewEvent] = ()
    acknowledged: Sequence[int] = ()  # numbers of events
    deliveries: Sequence[Delivery] = ()
    readings: Sequence[Reading] = ()
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Which acknowledged events to send once more: all within these bounds."""

    from_seq: int = 0
    to_seq: int = 2**63 - 1
    since_unix_ns: int = 0
    until_unix_ns: int = 2**63 - 1


class Outbox:
    """The journal and the outbox. Owned by the thread that writes; `OutboxReader` reads events to be sent."""

    def __init__(
        self,
        path: Path,
        *,
        keep_ns: int,
        max_bytes: int,
        claim: Callable[[], None] = lambda: None,
        wall_clock: Callable[[], int] = time.time_ns,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Nothing is opened yet. `claim()` is called before the file is opened: it makes and claims the folder."""
        self._file = JournalFile(path, claim)
        self._keep_ns = keep_ns
        self._max_bytes = max_bytes
        self._wall_clock, self._clock = wall_clock, clock
        self._seen = wall_clock(), clock()
        self._numbered: sqlite3.Connection | None = None
        self._last_seq = 0  # number of the last event
        self._put_forward_ns = 0  # by how much the wall clock was put forward while the service ran

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        return self._file.path

    @property
    def aside(self) -> str:
        """The name that the last damaged file got; empty if none was damaged."""
        return self._file.aside

    def open(self) -> None:
        """Open or create the file, unless it is open.

        Raises:
            OutboxError: if it cannot be opened, or comes from a newer version, which is left as it is.
        """
        self._db()

    def _db(self) -> sqlite3.Connection:
        """The open file. In a new file, event numbers continue those of the file before, even if that was set aside.

        Events of the file before may be under way, and a receiver that looks for gaps must not get a number twice.
        """
        db = self._file.connection()
        if db is not self._numbered:
            try:
                self._last_seq = _go_on_after(db, self._last_seq or self._file.last_number_aside())
            except sqlite3.Error as error:
                raise self._file.failed("written", error) from error
            self._numbered = db
        return db

    def examine(self) -> None:
        """Check the file on the disk, and set it aside if it is damaged.

        Raises:
            OutboxError: if it is damaged.
        """
        self._db()
        try:
            complaint = database.complaint(self.path)
        except sqlite3.Error as error:
            raise self._file.failed("read", error) from error
        if complaint:
            raise self._file.damaged(complaint)

    def write(self, entries: Entries) -> None:
        """Write entries in one durable transaction.

        Raises:
            OutboxError: nothing was written, for example because the disk is full.
        """
        now = self._now()
        db = self._db()
        try:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_INSERT_VERDICT, map(_row, entries.verdicts))
            for event in entries.events:
                self._last_seq = max(self._last_seq, _insert(db, event, now))
            db.executemany(
                "UPDATE event SET acknowledged_unix_ns = ?, replay = 0 WHERE event_seq = ?",
                [(now, seq) for seq in entries.acknowledged],
            )
            db.executemany(
                "UPDATE verdict SET acknowledged_ms = ? WHERE event_id = ?",
                [(delivery.acknowledged_ms, delivery.event_id) for delivery in entries.deliveries],
            )
            db.executemany(
                "INSERT OR REPLACE INTO actuator VALUES (?, ?, ?)",
                [(reading.camera, reading.at_unix_ns, reading.rejected) for reading in entries.readings],
            )
            db.executemany(_INSERT_CHANGE, map(astuple, entries.changes))
            db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            raise self._file.failed("written", error) from error

    def replay(self, which: Replay) -> tuple[int, int | None, int | None]:
        """Mark acknowledged events to be sent once more. Returns how many, and the first and last number.

        Raises:
            OutboxError: if the file cannot be written.
        """
        bounds = (which.from_seq, which.to_seq, which.since_unix_ns, which.until_unix_ns)
        try:
            rows = (
                self._db()
                .execute(
                    "UPDATE event SET replay = 1 WHERE acknowledged_unix_ns IS NOT NULL AND event_seq BETWEEN ? AND ?"
                    " AND created_unix_ns BETWEEN ? AND ? RETURNING event_seq",
                    bounds,
                )
                .fetchall()
            )
        except sqlite3.Error as error:
            raise self._file.failed("written", error) from error
        numbers = [seq for (seq,) in rows]
        return len(numbers), min(numbers, default=None), max(numbers, default=None)

    def prune(self) -> int:
        """Delete entries that are too old, or too many for the file's size.

        Returns:
            How many unacknowledged events had to be deleted.

        Raises:
            OutboxError: if the file cannot be written.
        """
        try:
            return self._prune(self._db(), self._now() - self._put_forward_ns - self._keep_ns)
        except sqlite3.Error as error:
            raise self._file.failed("pruned", error) from error

    def _now(self) -> int:
        """The wall clock in ns. Also notes by how much it was put forward: entries are younger than they seem then."""
        wall, running = self._wall_clock(), self._clock()
        self._put_forward_ns += max(0, (wall - self._seen[0]) - (running - self._seen[1]))
        self._seen = wall, running
        return wall

    def _prune(self, db: sqlite3.Connection, old: int) -> int:
        lost = 0
        db.execute("DELETE FROM event WHERE acknowledged_unix_ns < ? AND replay = 0", (old,))
        db.execute("DELETE FROM verdict WHERE captured_unix_ns < ?", (old,))
        db.execute("DELETE FROM actuator WHERE at_unix_ns < ?", (old,))
        db.execute("DELETE FROM change WHERE at_unix_ns < ?", (old,))
        while _used_bytes(db) > self._max_bytes:
            for statement in _SHRINK:
                deleted = db.execute(statement).rowcount
                if deleted:
                    lost += deleted if statement is _SHRINK[-1] else 0
                    break
            else:
                break
        db.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page
        return lost

    def waiting(self) -> int:
        """How many events the broker has not acknowledged.

        Raises:
            OutboxError: if the file cannot be read.
        """
        try:
            (count,) = self._db().execute("SELECT count(*) FROM event WHERE acknowledged_unix_ns IS NULL").fetchone()
        except sqlite3.Error as error:
            raise self._file.failed("read", error) from error
        return int(count)

    def close(self) -> None:
        """Close the file, if it is open."""
        self._file.close()


_INSERT_CHANGE = "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SHRINK = (  # deletions in order when the file is full: a thousand rows at a time, unacknowledged events 5 at a time
    """DELETE FROM event WHERE event_seq IN
    (SELECT event_seq FROM event WHERE acknowledged_unix_ns IS NOT NULL ORDER BY event_seq LIMIT 1000)""",
    "DELETE FROM verdict WHERE event_id IN (SELECT event_id FROM verdict ORDER BY captured_unix_ns LIMIT 1000)",
    "DELETE FROM change WHERE rowid IN (SELECT rowid FROM change ORDER BY at_unix_ns LIMIT 1000)",
    "DELETE FROM event WHERE event_seq IN (SELECT event_seq FROM event ORDER BY event_seq LIMIT 5)",
)
_AS_IN_BODY = (
    *("decision", "cause", "action", "score", "threshold", "p_value", "bundle"),
    *("engine_ms", "latency_ms", "source"),
)
_INSERT_VERDICT = """INSERT OR IGNORE INTO verdict (event_id, run, camera, product, frame_seq, trigger_number, views,
    captured_unix_ns, deadline_ms, decision, cause, action, score, threshold, p_value, bundle, engine_ms, latency_ms,
    source) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def _insert(db: sqlite3.Connection, event: NewEvent, now: int) -> int:
    row = db.execute(
        "INSERT INTO event (event_id, topic, payload, created_unix_ns) SELECT ?, ?, ?, ?"
        " WHERE NOT EXISTS (SELECT 1 FROM event WHERE event_id = ?)",  # IGNORE would leave a gap in the numbers
        (event.event_id, event.topic, b"", now, event.event_id),
    )
    if not row.rowcount:
        return 0
    number = row.lastrowid or 0
    db.execute(
        "UPDATE event SET payload = ? WHERE event_seq = ?", (encode({**event.payload, "event_seq": number}), number)
    )
    return number


def _go_on_after(db: sqlite3.Connection, last: int) -> int:
    """Make the next event's number higher than `last`, and than any in the file. Returns the highest number so far."""
    (in_file,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'").fetchone()
    if in_file < last:
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'event'")
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?)", (last,))
    return max(int(in_file), last)


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def captured_unix_ns(body: Body) -> int | None:
    """When the frame of a verdict was captured; None if another version of rejectd wrote an unknown body."""
    return _unix_ns(body["captured_at"]) if is_usable(body) else None


def is_usable(body: Body) -> bool:
    """Whether the body of a verdict, perhaps written by another version of rejectd, can be stored."""
    try:
        _row(body)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return True


def _row(body: Body) -> tuple[object, ...]:
    captured, valid_until = _unix_ns(body["captured_at"]), _unix_ns(body["valid_until"])
    run = body["event_id"].removesuffix(f"-{body['camera']}-{body['seq']}")
    views = " ".join(body["views"]) if body["views"] else None
    return (
        *(body["event_id"], run, body["camera"], body["product"], body["seq"], body["trigger"], views),
        *(captured, (valid_until - captured) / 1e6),
        *(body[name] for name in _AS_IN_BODY),
    )


def _unix_ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6) * 1000
