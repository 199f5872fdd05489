"""The journal of verdicts and the outbox of defect events, in one SQLite file.

Commit first, publish then, mark as acknowledged last: a crash between any two steps loses nothing and at most repeats
an event with the same `event_id`. Acknowledged records stay for days. When the file reaches its bound, acknowledged
records go first, the oldest first; if that is not enough, the oldest journal entries go, and unacknowledged events
last of all, counted.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rejectd import database
from rejectd.messages import RejectdError
from rejectd.payloads import encode

Body = Mapping[str, Any]  # of a verdict message


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The broker has a verdict."""

    event_id: str
    acknowledged_ms: float  # since the exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How many parts a PLC says to have rejected so far."""

    camera: str
    at_unix_ns: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody has changed while the line ran."""

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
    """What one transaction writes."""

    verdicts: Sequence[Body] = ()
    events: Sequence[NewEvent] = ()
    acknowledged: Sequence[int] = ()  # numbers of events
    deliveries: Sequence[Delivery] = ()
    readings: Sequence[Reading] = ()
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Which acknowledged events to send once more: all that lie in the given bounds."""

    from_seq: int = 0
    to_seq: int = 2**63 - 1
    since_unix_ns: int = 0
    until_unix_ns: int = 2**63 - 1


class Outbox:
    """Owned by the thread that writes; `Reader` serves the one that publishes."""

    def __init__(
        self,
        path: Path,
        *,
        keep_ns: int,
        max_bytes: int,
        wall_clock: Callable[[], int] = time.time_ns,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Open or create the file.

        Raises:
            OutboxError: if it cannot be opened, is damaged, or comes from a newer version.
        """
        self.path = path
        self._keep_ns = keep_ns
        self._max_bytes = max_bytes
        self._wall_clock, self._clock = wall_clock, clock
        self._seen = wall_clock(), clock()
        self._put_forward_ns = 0  # by how much the time of day was put forward while we ran
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = database.open_to_write(path)
        except (OSError, sqlite3.Error) as error:
            hint = "let the service's user write there, free disk space, or move a damaged file away"
            raise OutboxError(f"{path}: the journal cannot be opened: {error}", hint=hint) from error
        except database.NewerError as error:
            raise OutboxError(f"{path} was written by a newer rejectd", hint="install that version again") from error

    def write(self, entries: Entries) -> None:
        """One durable transaction.

        Raises:
            OutboxError: nothing was written, for example because the disk is full.
        """
        now = self._now()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_INSERT_VERDICT, map(_row, entries.verdicts))
            for event in entries.events:
                self._insert(event, now)
            self._db.executemany(
                "UPDATE event SET acknowledged_unix_ns = ?, replay = 0 WHERE event_seq = ?",
                [(now, seq) for seq in entries.acknowledged],
            )
            self._db.executemany(
                "UPDATE verdict SET acknowledged_ms = ? WHERE event_id = ?",
                [(each.acknowledged_ms, each.event_id) for each in entries.deliveries],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO actuator VALUES (?, ?, ?)",
                [(each.camera, each.at_unix_ns, each.rejected) for each in entries.readings],
            )
            self._db.executemany(_INSERT_CHANGE, map(astuple, entries.changes))
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            raise OutboxError(f"{self.path}: the journal cannot be written: {error}", hint="free disk space") from error

    def replay(self, which: Replay) -> tuple[int, int | None, int | None]:
        """Mark acknowledged events to be sent once more. Returns how many, and the first and last number.

        Raises:
            OutboxError: if the file cannot be written.
        """
        bounds = (which.from_seq, which.to_seq, which.since_unix_ns, which.until_unix_ns)
        try:
            rows = self._db.execute(
                "UPDATE event SET replay = 1 WHERE acknowledged_unix_ns IS NOT NULL AND event_seq BETWEEN ? AND ?"
                " AND created_unix_ns BETWEEN ? AND ? RETURNING event_seq",
                bounds,
            ).fetchall()
        except sqlite3.Error as error:
            raise OutboxError(f"{self.path}: the journal cannot be written: {error}", hint="free disk space") from error
        numbers = [seq for (seq,) in rows]
        return len(numbers), min(numbers, default=None), max(numbers, default=None)

    def prune(self) -> int:
        """Keep to the bounds of age and size. Returns how many unacknowledged events had to go.

        Raises:
            OutboxError: if the file cannot be written.
        """
        try:
            return self._prune(self._now() - self._put_forward_ns - self._keep_ns)
        except sqlite3.Error as error:
            raise OutboxError(f"{self.path}: the journal cannot be pruned: {error}", hint="free disk space") from error

    def _now(self) -> int:
        """The time of day. When it was put forward while we ran, nothing is as old as it seems."""
        wall, running = self._wall_clock(), self._clock()
        self._put_forward_ns += max(0, (wall - self._seen[0]) - (running - self._seen[1]))
        self._seen = wall, running
        return wall

    def _prune(self, old: int) -> int:
        lost = 0
        self._db.execute("DELETE FROM event WHERE acknowledged_unix_ns < ? AND replay = 0", (old,))
        self._db.execute("DELETE FROM verdict WHERE captured_unix_ns < ?", (old,))
        self._db.execute("DELETE FROM actuator WHERE at_unix_ns < ?", (old,))
        self._db.execute("DELETE FROM change WHERE at_unix_ns < ?", (old,))
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
    """Reads what is to be sent, on a connection of its own. Opened and used by one thread."""

    def __init__(self, path: Path) -> None:
        self._db = database.connect(path)

    def waiting(self, limit: int, *, busy: Collection[int] = (), held: Collection[str] = ()) -> list[Event]:
        """The next events to send, in order: those that the broker never had, then those asked for again.

        Args:
            limit: how many at most.
            busy: numbers of events that are under way.
            held: topics whose events must wait.

        Raises:
            OutboxError: if the file cannot be read.
        """
        numbers = json.dumps(list(busy))
        try:
            rows: list[tuple[int, str, bytes]] = []
            for (topic,) in self._db.execute(_WAITING_TOPICS).fetchall():
                if topic not in held:
                    rows += self._db.execute(_WAITING, (topic, numbers, limit)).fetchall()
            if not rows:
                rows = self._db.execute(_REPLAYED, (numbers, json.dumps(list(held)), limit)).fetchall()
        except sqlite3.Error as error:
            raise OutboxError(f"the outbox cannot be read: {error}", hint="see the journal's errors") from error
        return [Event(event_seq=seq, topic=topic, payload=payload) for seq, topic, payload in sorted(rows)[:limit]]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_INSERT_CHANGE = "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SHRINK = (  # what goes first when the file is full: a thousand at a time, of unacknowledged events no more than must
    """DELETE FROM event WHERE event_seq IN
    (SELECT event_seq FROM event WHERE acknowledged_unix_ns IS NOT NULL ORDER BY event_seq LIMIT 1000)""",
    "DELETE FROM verdict WHERE event_id IN (SELECT event_id FROM verdict ORDER BY captured_unix_ns LIMIT 1000)",
    "DELETE FROM change WHERE rowid IN (SELECT rowid FROM change ORDER BY at_unix_ns LIMIT 1000)",
    "DELETE FROM event WHERE event_seq IN (SELECT event_seq FROM event ORDER BY event_seq LIMIT 5)",
)
_WAITING_TOPICS = """WITH RECURSIVE waiting (topic) AS (
    SELECT min(topic) FROM event WHERE acknowledged_unix_ns IS NULL
    UNION ALL
    SELECT (SELECT min(topic) FROM event WHERE acknowledged_unix_ns IS NULL AND topic > waiting.topic)
    FROM waiting WHERE waiting.topic IS NOT NULL
) SELECT topic FROM waiting WHERE topic IS NOT NULL"""  # steps from topic to topic, however many events wait
_WAITING = """SELECT event_seq, topic, payload FROM event WHERE acknowledged_unix_ns IS NULL AND topic = ?
    AND event_seq NOT IN (SELECT value FROM json_each(?)) ORDER BY event_seq LIMIT ?"""
_REPLAYED = """SELECT event_seq, topic, payload FROM event WHERE replay = 1
    AND event_seq NOT IN (SELECT value FROM json_each(?)) AND topic NOT IN (SELECT value FROM json_each(?))
    ORDER BY event_seq LIMIT ?"""
_AS_IN_BODY = (
    *("decision", "cause", "action", "score", "threshold", "p_value", "bundle"),
    *("engine_ms", "latency_ms", "source"),
)
_INSERT_VERDICT = """INSERT OR IGNORE INTO verdict (event_id, run, camera, product, frame_seq, trigger_number, views,
    captured_unix_ns, deadline_ms, decision, cause, action, score, threshold, p_value, bundle, engine_ms, latency_ms,
    source) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


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
