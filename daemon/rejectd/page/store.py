"""What the page keeps in a file of its own: its users, what people did, and their labels on evidence."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rejectd.contract.messages import RejectdError
from rejectd.page.access import NOBODY, AccessError, Role, User, fits, hashed

_VERSION = 1
_AUDIT_MOST = 100_000  # rows; the oldest go first
_SCHEMA = """
CREATE TABLE IF NOT EXISTS user (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL, one_time INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_unix_ns INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    detail TEXT NOT NULL, ok INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS label (
    number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, kind TEXT, remark TEXT NOT NULL,
    who TEXT NOT NULL, at_unix_ns INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS label_by_event ON label (event_id, number);
"""


class StoreError(RejectdError):
    """The page's own file cannot be used."""


class Store:
    """The page's own file. Safe for any number of threads: one at a time."""

    def __init__(self, directory: Path) -> None:
        """Open or create the file.

        Raises:
            StoreError: if the file cannot be used, or a newer rejectd wrote it.
        """
        self.directory = directory
        self._lock = threading.Lock()
        path = directory / "page.sqlite"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise StoreError(f"{path} was written by a newer rejectd", hint="install that version again")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except (OSError, sqlite3.Error) as error:
            hint = "let the page's user write there, or set page.state_directory"
            raise StoreError(f"{path}: cannot be used: {error}", hint=hint) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def users(self) -> list[User]:
        """All users by name."""
        return [_user(row) for row in self._rows("SELECT * FROM user ORDER BY name")]

    def add_user(self, name: str, role: Role, password: str) -> None:
        """Add a user, or give an existing one another role and password, which holds once."""
        row = (name, role.label, hashed(password), True)
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO user (name, role, password, one_time) VALUES (?, ?, ?, ?)", row)

    def change_password(self, name: str, password: str) -> User:
        """Give a user a password of the user's own. Raises AccessError if the user is gone."""
        row = (hashed(password), name)
        with self._changing() as db:
            db.execute("UPDATE user SET password = ?, one_time = 0 WHERE name = ?", row)
        rows = self._rows("SELECT * FROM user WHERE name = ?", (name,))
        if not rows:
            raise AccessError(f"there is no user {name} any more", hint="ask an engineer")
        return _user(rows[0])

    def remove_user(self, name: str) -> None:
        """Remove a user.

        Raises:
            AccessError: if nobody would be left who can add users.
        """
        engineers = [user.name for user in self.users() if user.role is Role.ENGINEER]
        if engineers == [name]:
            raise AccessError("the last engineer cannot be removed", hint="add another one first")
        with self._changing() as db:
            db.execute("DELETE FROM user WHERE name = ?", (name,))

    def log_in(self, name: str, password: str) -> User | None:
        """The user of a name and password; None if they do not fit."""
        rows = self._rows("SELECT * FROM user WHERE name = ?", (name,))
        right = fits(password, rows[0]["password"] if rows else NOBODY)
        return _user(rows[0]) if rows and right else None

    def audit(self, who: str, what: str, detail: str = "", *, ok: bool = True) -> None:
        """Note what somebody did or tried."""
        with self._changing() as db:
            db.execute(
                "INSERT INTO audit (at_unix_ns, who, what, detail, ok) VALUES (?, ?, ?, ?, ?)",
                (time.time_ns(), who, what, detail[:2000], ok),
            )
            db.execute("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?", (_AUDIT_MOST,))

    def audited(self, most: int = 200) -> list[dict[str, Any]]:
        """What people did, the latest first."""
        return [dict(row) for row in self._rows("SELECT * FROM audit ORDER BY number DESC LIMIT ?", (most,))]

    def label(self, event_id: str, kind: str | None, remark: str, who: str) -> None:
        """Label a part; `kind` None takes the label back. Earlier labels stay in the file."""
        row = (event_id, kind, remark[:500], who, time.time_ns())
        with self._changing() as db:
            db.execute("INSERT INTO label (event_id, kind, remark, who, at_unix_ns) VALUES (?, ?, ?, ?, ?)", row)

    def labels(self, event_ids: Iterable[str]) -> Mapping[str, dict[str, Any]]:
        """The label in force of each of these parts that has one."""
        wanted = list(event_ids)
        marks = ",".join("?" * len(wanted))
        query = f"SELECT * FROM label WHERE event_id IN ({marks}) ORDER BY number"  # noqa: S608 - question marks alone
        latest = {row["event_id"]: dict(row) for row in self._rows(query, wanted)}
        return {event_id: row for event_id, row in latest.items() if row["kind"] is not None}

    def labelled(self, kind: str | None, most: int) -> list[str]:
        """The parts that have a label, or one of this kind, the latest label first."""
        rows = self._rows(
            "SELECT event_id FROM label WHERE number IN (SELECT max(number) FROM label GROUP BY event_id)"
            " AND kind IS NOT NULL AND (? IS NULL OR kind = ?) ORDER BY number DESC LIMIT ?",
            (kind, kind, most),
        )
        return [row["event_id"] for row in rows]

    def _rows(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(query, tuple(values)).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"the page's own file cannot be read: {error}", hint="look at its disk") from error

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(f"the page's own file takes nothing: {error}", hint="free disk space") from error


def _user(row: sqlite3.Row) -> User:
    role = Role.named(row["role"])
    return User(name=row["name"], role=role, password=row["password"], one_time=bool(row["one_time"]))


def write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone can read. Raises OSError."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, text.encode() + b"\n")
    finally:
        os.close(file)
