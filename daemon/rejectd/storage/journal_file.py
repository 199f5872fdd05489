"""Opens the journal's file when it is first needed, and again after an error.

A line runs without its journal until the disk works again. A damaged file is set aside under a name with the time, and
a new file begins.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from rejectd.contract.messages import RejectdError
from rejectd.storage import database
from rejectd.storage.state_folders import StateError, make, set_aside

log = logging.getLogger(__name__)

_ASIDE_MOST = 6  # files that are searched for event numbers: those of the last two damaged journals
_CHUNK = 1 << 20
_OVERLAP = 64
_NUMBER = re.compile(rb'"event_seq": ?([0-9]{1,18})[,}]')


class OutboxError(RejectdError):
    """The journal cannot be opened or written."""


class JournalFile:
    """The open file of the journal. Owned by the thread that writes."""

    def __init__(self, path: Path, claim: Callable[[], None]) -> None:
        """Nothing is opened yet. `claim()` is called before the file is opened: it makes and claims the folder."""
        self.path = path
        self.aside = ""  # the name that the last damaged file got
        self._claim = claim
        self._open: sqlite3.Connection | None = None
        self._identity = (0, 0)

    def connection(self) -> sqlite3.Connection:
        """The connection to the file, which is created if it does not exist.

        Raises:
            OutboxError: if the file cannot be opened, or was written by a newer rejectd; it is left as it is then.
        """
        try:
            if self._open is None or self._was_replaced():
                self._open = self._connect()
                status = self.path.stat()
                self._identity = status.st_dev, status.st_ino
        except (OSError, sqlite3.Error) as error:
            hint = "let the service's user write there, or free disk space"
            raise OutboxError(f"{self.path}: the journal cannot be opened: {error}", hint=hint) from error
        except StateError as error:
            raise OutboxError(f"the journal cannot be opened: {error}") from error
        except database.NewerError as error:
            hint = "install that version again"
            raise OutboxError(f"{self.path} was written by a newer rejectd", hint=hint) from error
        return self._open

    def failed(self, what: str, error: sqlite3.Error) -> OutboxError:
        """The error to raise for an SQLite error. The file is opened again next time, or set aside if it is damaged."""
        if database.is_damage(error):
            return self.damaged(str(error))
        if not database.is_passing(error):
            self.close()
        return OutboxError(f"{self.path}: the journal cannot be {what}: {error}", hint="free disk space")

    def damaged(self, complaint: str) -> OutboxError:
        """Set the file aside; the next call of `connection` makes a new one. Returns the error to raise."""
        self.close()
        try:
            self._set_aside(complaint)
        except OSError as error:
            text = f"{self.path}: the journal is damaged and cannot be renamed: {error.strerror}"
            return OutboxError(text, hint="move it away")
        return OutboxError(f"{self.path}: the journal is damaged: {complaint}", hint="a new one begins")

    def last_number_aside(self) -> int:
        """The highest event number in files that were set aside; 0 if none is found."""
        numbers = []
        for aside in sorted(self.path.parent.glob(f"{self.path.name}.damaged-*"), reverse=True)[:_ASIDE_MOST]:
            with contextlib.suppress(OSError):
                numbers += list(_numbers_in(aside))
        return max(numbers, default=0)

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._open:
            with contextlib.suppress(sqlite3.Error):  # what was committed is on the disk
                self._open.close()
        self._open = None

    def _connect(self) -> sqlite3.Connection:
        self._claim()
        make(self.path.parent)
        try:
            return database.open_to_write(self.path)
        except sqlite3.Error as error:
            if not database.is_damage(error, opening=True):
                raise
            self._set_aside(str(error))
        return database.open_to_write(self.path)

    def _was_replaced(self) -> bool:
        """Whether somebody has moved the file away, so that nobody would find new entries. Closes it in that case."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            identity = (0, 0)
        except OSError:
            return False  # the next write says why
        else:
            identity = status.st_dev, status.st_ino
        if identity == self._identity:
            return False
        log.error("%s: somebody has moved the journal away; a new one begins", self.path)
        self.close()
        return True

    def _set_aside(self, complaint: str) -> None:
        aside = set_aside(self.path, ("-wal", "-shm"))
        self.aside = str(aside)
        log.error("%s: the journal is damaged: %s; set aside as %s", self.path, complaint, aside.name)


def _numbers_in(path: Path) -> Iterator[int]:
    """Yield event numbers from a damaged file, by searching the text of the events for them."""
    with path.open("rb") as file:
        before = b""
        while chunk := file.read(_CHUNK):
            yield from (int(number) for number in _NUMBER.findall(before + chunk))
            before = chunk[-_OVERLAP:]
