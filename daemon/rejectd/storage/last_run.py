"""Finds out until when the line was inspected before this start."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

_WAIT_S = 2.0  # for a disk that may not answer


def last_capture_unix_ns(journal: Path) -> int | None:
    """When the last frame in the journal was captured; None if there is none, or the disk does not answer in time."""
    answers: list[int | None] = []
    reader = threading.Thread(target=lambda: answers.append(_ask(journal)), name="last-run", daemon=True)
    reader.start()
    reader.join(_WAIT_S)
    return answers[0] if answers else None


def _ask(journal: Path) -> int | None:
    try:
        if not journal.is_file():
            return None
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT captured_unix_ns FROM verdict ORDER BY captured_unix_ns DESC LIMIT 1").fetchone()
    except (sqlite3.Error, OSError):
        return None  # whoever writes to the journal says what is wrong with it
    return int(row[0]) if row else None
