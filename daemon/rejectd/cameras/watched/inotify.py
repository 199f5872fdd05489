"""Reads the kernel's events about a folder (inotify(7)).

There is no thread of its own for that, so that the reader knows when the kernel's queue was last empty: every event
that is read later happened after that instant, however long the process stood still in between.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from typing import NamedTuple

_CREATE, _MODIFY, _CLOSE_WRITE = 0x100, 0x2, 0x8
_MOVED_FROM, _MOVED_TO, _DELETE = 0x40, 0x80, 0x200
_DELETE_SELF, _MOVE_SELF, _ONLY_FOLDERS = 0x400, 0x800, 0x01000000
_IS_FOLDER, _OVERFLOW, _IGNORED = 0x40000000, 0x4000, 0x8000
_WANTED = _CREATE | _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _DELETE | _DELETE_SELF | _MOVE_SELF
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_AT_ONCE = 64 * 1024  # bytes

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """One event of the kernel about one name in a folder."""

    folder: str  # as it was given to `watch`; empty if the queue overflowed
    name: str
    mask: int
    cookie: int  # the same for both halves of a rename

    @property
    def created(self) -> bool:
        """A file is about to be written, or was linked in whole."""
        return bool(self.mask & _CREATE)

    @property
    def modified(self) -> bool:
        """A file is being written."""
        return bool(self.mask & _MODIFY)

    @property
    def closed(self) -> bool:
        """A file that was open for writing was closed."""
        return bool(self.mask & _CLOSE_WRITE)

    @property
    def moved_in(self) -> bool:
        """A name came by a rename."""
        return bool(self.mask & _MOVED_TO)

    @property
    def moved_away(self) -> bool:
        """A name went by a rename."""
        return bool(self.mask & _MOVED_FROM)

    @property
    def deleted(self) -> bool:
        """A name was deleted."""
        return bool(self.mask & _DELETE)

    @property
    def is_folder(self) -> bool:
        """Whether the name is a folder's."""
        return bool(self.mask & _IS_FOLDER)

    @property
    def lost_some(self) -> bool:
        """Whether events were lost: the queue was full, or a folder went away. Only a listing shows what happened."""
        return bool(self.mask & (_OVERFLOW | _IGNORED | _DELETE_SELF | _MOVE_SELF))


class Inotify:
    """Watches folders. One thread may wait while another reads; the caller makes sure that only one reads at a time."""

    def __init__(self) -> None:
        """Raises OSError if the system allows no further inotify instance."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._folders: dict[int, str] = {}
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def watch(self, path: Path, folder: str) -> None:
        """Watch a folder, called `folder` in its events. Raises OSError."""
        number = _libc.inotify_add_watch(self._fd, os.fsencode(path), _WANTED | _ONLY_FOLDERS)
        self._folders[_checked(number)] = folder

    def renamed(self, old: str, new: str) -> None:
        """A watched folder, or one above it, has got another name."""
        for number, folder in self._folders.items():
            if folder == old or folder.startswith(f"{old}/"):
                self._folders[number] = new + folder.removeprefix(old)

    def wait(self, timeout_s: float) -> None:
        """Wait for an event."""
        self._poll.poll(max(0.0, timeout_s * 1000))

    def read(self) -> list[Event]:
        """The events since the last call; empty if there are none."""
        try:
            data = os.read(self._fd, _AT_ONCE)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            number, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            if mask & _OVERFLOW or number in self._folders:
                events.append(Event(self._folders.get(number, ""), name, mask, cookie))
            if mask & _IGNORED:
                self._folders.pop(number, None)
        return events

    @property
    def folders(self) -> frozenset[str]:
        """The names of the watched folders."""
        return frozenset(self._folders.values())

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
