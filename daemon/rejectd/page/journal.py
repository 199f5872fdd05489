"""Reads the journal of the line for the page. Each question has a time limit, and opens the file anew."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rejectd.contract.messages import RejectdError
from rejectd.storage import database

_PATIENCE_S = 8.0
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock


class JournalError(RejectdError):
    """The journal cannot be read now."""


class Journal:
    """Reads the journal."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query; none where there is no journal yet.

        Raises:
            JournalError: if the journal cannot be read, or the answer takes too long.
        """
        if not self._path.is_file():
            return []
        try:
            with self._opened() as db:
                return db.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as error:
            slow = "interrupted" in str(error)
            hint = "ask for a shorter time" if slow else "may the page's user read it? see systemd/README.md"
            raise JournalError(f"the journal cannot be read: {error}", hint=hint) from error

    def waiting_events(self) -> int | None:
        """How many defect events the broker has not acknowledged; None if that is not known."""
        try:
            rows = self.rows("SELECT count(*) FROM event WHERE acknowledged_unix_ns IS NULL")
        except JournalError:
            return None
        return int(rows[0][0]) if rows else None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        until = time.monotonic() + _PATIENCE_S
        with closing(database.open_to_read(self._path)) as db:
            db.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
            yield db
