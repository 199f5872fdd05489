"""Reads the defect events that must be sent from the journal's file, while the record thread writes to it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from rejectd.storage import database
from rejectd.storage.outbox import OutboxError


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it goes out."""

    event_seq: int
    topic: str
    payload: bytes


class DamagedError(OutboxError):
    """The file seems to be damaged."""


class OutboxReader:
    """Reads with a connection of its own, in one thread.

    The reader creates no file. When another file takes the place of the one that it reads, it opens that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None
        self._identity = (0, 0)

    def waiting(self, limit: int, *, busy: Collection[int] = (), held: Collection[str] = ()) -> list[Event]:
        """The next events to send, in order: first new events, then events that somebody asked for once more.

        Args:
            limit: how many events at most.
            busy: numbers of events that are under way.
            held: topics whose events must wait.

        Raises:
            OutboxError: if the file cannot be read.
        """
        numbers = json.dumps(list(busy))
        try:
            db = self._connection()
            rows: list[tuple[int, str, bytes]] = []
            for (topic,) in db.execute(_WAITING_TOPICS).fetchall():
                if topic not in held:
                    rows += db.execute(_WAITING, (topic, numbers, limit)).fetchall()
            if not rows:
                rows = db.execute(_REPLAYED, (numbers, json.dumps(list(held)), limit)).fetchall()
        except (FileNotFoundError, database.EmptyError):
            return []  # the record thread has not made the file yet
        except (sqlite3.Error, OSError) as error:
            self.close()
            if isinstance(error, sqlite3.Error) and database.is_damage(error):
                raise DamagedError(f"the outbox cannot be read: {error}", hint="it is examined now") from error
            raise OutboxError(f"the outbox cannot be read: {error}", hint="see the journal's errors") from error
        return [Event(event_seq=seq, topic=topic, payload=payload) for seq, topic, payload in sorted(rows)[:limit]]

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._open:
            self._open.close()
        self._open = None

    def _connection(self) -> sqlite3.Connection:
        status = self._path.stat()
        if self._open and self._identity != (status.st_dev, status.st_ino):
            self.close()
        if self._open is None:
            self._open = database.connect_if_there(self._path)
            self._identity = status.st_dev, status.st_ino
        return self._open


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
