"""What a killed service leaves behind: each frame that is in flight, or whose verdict is not in the journal yet.

A file of slots in memory (tmpfs), one slot for each such frame. From the moment the ledger opens a frame its slot holds
the verdict that the frame has if nothing more happens, `unjudged` (stopping), and once it is closed the verdict that it
got. The kernel keeps what a killed process wrote; no write waits for a disk, and none can: a page fault in a file on a
disk that stands still would hold the interpreter's lock, and the whole service with it. The next start puts what it
finds into the journal. A power failure costs these frames their entries: those in flight, and those whose verdicts the
disk had not taken yet, which is some milliseconds of them while the disk answers.

A slot has two places for a verdict; which of them counts is said by one byte, written last. So a process that is killed
while it writes leaves the older verdict, never a half one. A checksum tells what is usable.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rejectd.contract.messages import Cause, Frame, RejectdError
from rejectd.contract.payloads import encode, verdict_payload
from rejectd.decision import unjudged
from rejectd.storage import state_folders

log = logging.getLogger(__name__)

NAME = "in-flight.bin"
_MAGIC = b"rejectd1"
_SLOT = 4096
_PLACE = 2032
_HEADER = struct.Struct("<IH")  # CRC-32 and length of a verdict, before it
_FREE = 0  # the first byte of a slot; else 1 or 2, the place that counts
_RETRY_S = 5.0
SLOTS = 8192


class InFlightError(RejectdError):
    """Another service uses the in-flight file."""


class Slots:
    """The slots themselves, wherever they are. Safe for any number of threads."""

    def __init__(self, memory: mmap.mmap | bytearray, line: str) -> None:
        """Read what an earlier run left; its slots are taken until they are cleared."""
        self._memory = memory
        self._line = line
        self._lock = threading.Lock()
        self._slot_of: dict[str, int] = {}
        self._free: list[int] = []
        self.missed = 0  # frames that found no free slot
        self.left: list[dict[str, Any]] = []  # verdicts that an earlier run left, in no order
        for slot in range(len(memory) // _SLOT - 1, 0, -1):  # slot 0 is the file's own
            body = self._read(slot)
            if body is None or body["event_id"] in self._slot_of:
                self._mark(slot, _FREE)
                self._free.append(slot)
            else:
                self.left.append(body)
                self._slot_of[body["event_id"]] = slot

    def open(self, frame: Frame) -> None:
        """A frame is in flight."""
        with self._lock:
            if not self._free:
                self.missed += 1
                return
            slot = self._slot_of[frame.event_id] = self._free.pop()
        body = verdict_payload(self._line, unjudged(frame, Cause.STOPPING, time.monotonic_ns()))
        self._write(slot, 1, encode(body))

    def end(self, event_id: str, body: bytes) -> None:
        """A frame has got its verdict."""
        slot = self._slot_of.get(event_id)
        if slot is not None:
            self._write(slot, 2, body)

    def clear(self, event_ids: Iterable[str]) -> None:
        """These verdicts are in the journal."""
        with self._lock:
            for event_id in event_ids:
                slot = self._slot_of.pop(event_id, None)
                if slot is not None:
                    self._mark(slot, _FREE)
                    self._free.append(slot)

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it for the next start."""
        return not self._slot_of

    def _write(self, slot: int, place: int, body: bytes) -> None:
        if len(body) > _PLACE - _HEADER.size:
            body = _shortened(body)
        start = slot * _SLOT + 16 + (place - 1) * _PLACE
        self._memory[start : start + _HEADER.size] = _HEADER.pack(zlib.crc32(body), len(body))
        self._memory[start + _HEADER.size : start + _HEADER.size + len(body)] = body
        self._mark(slot, place)

    def _mark(self, slot: int, place: int) -> None:
        self._memory[slot * _SLOT] = place

    def _read(self, slot: int) -> dict[str, Any] | None:
        """The verdict in a slot; None if it holds none that is whole."""
        place = self._memory[slot * _SLOT]
        if place not in (1, 2):
            return None
        start = slot * _SLOT + 16 + (place - 1) * _PLACE
        checksum, length = _HEADER.unpack(self._memory[start : start + _HEADER.size])
        body = bytes(self._memory[start + _HEADER.size : start + _HEADER.size + min(length, _PLACE)])
        if not body or zlib.crc32(body) != checksum:
            return None
        try:
            verdict = json.loads(body)
        except ValueError:
            return None
        return verdict if isinstance(verdict, dict) and isinstance(verdict.get("event_id"), str) else None


class InFlightFile(Slots):
    """The slots in a file in memory, which belongs to one process as long as that lives."""

    def __init__(self, path: Path, *, line: str, slots: int = SLOTS) -> None:
        """Open the file, or make it with room for `slots` frames. A damaged one is set aside.

        Raises:
            InFlightError: if another process has it.
            OSError: if it cannot be made, for example because there is not so much memory.
        """
        self._path = path
        self._file = _opened(path)
        try:
            try:
                self._map = _mapped(self._file, slots)
            except ValueError:
                os.close(self._file)
                log.error("%s: not an in-flight file; set aside as %s", path, state_folders.set_aside(path).name)
                self._file = _opened(path)
                self._map = _mapped(self._file, slots)
        except OSError:
            os.close(self._file)
            raise
        super().__init__(self._map, line)

    def close(self) -> None:
        """Let go of the file; what is in it stays for the next start, and if that is nothing its memory is freed."""
        if self.empty:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._map.close()
        os.close(self._file)


class WrittenFile(Slots):
    """The slots where no file can lie in memory: a file on the disk, written by a thread that may wait for it.

    A kill costs the journal entries of what that thread had not written yet; while the disk answers, some milliseconds.
    """

    def __init__(self, path: Path, *, line: str, slots: int = SLOTS) -> None:
        """Read what an earlier run left; nothing is written yet."""
        self._path = path
        self._changed = threading.Condition()
        self._dirty: set[int] = set()
        self._ended = False
        size = (slots + 1) * _SLOT
        super().__init__(bytearray(_content(path, size)), line)
        self._memory[: len(_MAGIC)] = _MAGIC
        self._dirty.update(range(len(self._memory) // _SLOT))

    def run(self) -> None:
        """The life of the in-flight thread: write what has changed, until `close`."""
        file = None
        trouble = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._ended, timeout=1.0)
                slots, self._dirty = self._dirty, set()
                ended = self._ended
            try:
                if slots and file is None:
                    state_folders.make(self._path.parent)
                    file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
                for slot in sorted(slots):
                    start = slot * _SLOT
                    os.pwrite(file or 0, bytes(self._memory[start : start + _SLOT]), start)
            except OSError as error:
                trouble = self._say(trouble, str(error))
                with self._changed:
                    self._dirty |= slots
                    self._changed.wait_for(lambda: self._ended, timeout=_RETRY_S)
            if ended:
                break
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Let `run` end after what has changed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _mark(self, slot: int, place: int) -> None:
        super()._mark(slot, place)
        with self._changed:
            self._dirty.add(slot)
            self._changed.notify_all()

    def _say(self, before: str, trouble: str) -> str:
        if trouble != before:
            log.error("%s: cannot be written: %s; a kill would cost journal entries", self._path, trouble)
        return trouble


def in_flight_file(directory: Path, *, line: str, slots: int = SLOTS) -> InFlightFile | WrittenFile:
    """The in-flight file of a state directory: in memory, or where there is no such place on the disk.

    Raises:
        InFlightError: if another process has it.
    """
    memory = state_folders.in_memory(directory)
    try:
        if memory:
            return InFlightFile(memory / NAME, line=line, slots=slots)
        trouble = "there is no private folder in memory"
    except OSError as error:
        trouble = f"{memory}: {error.strerror}"
    log.warning("%s: frames in flight are noted on the disk, and a kill may cost the journal its last entries", trouble)
    return WrittenFile(directory / NAME, line=line, slots=slots)


def _opened(path: Path) -> int:
    """The file, which no other process has."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        hint = "stop it, or give this line a state_directory of its own"
        raise InFlightError(f"{path}: another rejectd uses this state directory", hint=hint) from None
    return file


def _mapped(file: int, slots: int) -> mmap.mmap:
    """The whole file; ValueError if it is of another kind."""
    size = os.fstat(file).st_size
    if size and (os.pread(file, len(_MAGIC), 0) not in (_MAGIC, bytes(len(_MAGIC))) or size % _SLOT):
        raise ValueError("not an in-flight file")
    size = max(size, (slots + 1) * _SLOT)
    os.posix_fallocate(file, 0, size)  # too little memory is an error now, not a crash later
    os.pwrite(file, _MAGIC, 0)
    return mmap.mmap(file, size)


def _content(path: Path, size: int) -> bytes:
    """What a file holds, at least so many bytes; a damaged file is set aside."""
    try:
        content = path.read_bytes()
        if content and (content[: len(_MAGIC)] != _MAGIC or len(content) % _SLOT):
            log.error("%s: not an in-flight file; set aside as %s", path, state_folders.set_aside(path).name)
            content = b""
    except FileNotFoundError:
        content = b""
    except OSError as error:
        log.error("%s: cannot be read: %s", path, error.strerror)
        content = b""
    return content.ljust(size, b"\0")


def _shortened(body: bytes) -> bytes:
    """A verdict whose texts are cut so that it fits."""
    verdict = json.loads(body)
    for longest in (80, 20, 0):  # a letter can take twelve bytes
        for name in ("detail", "source"):
            verdict[name] = (verdict[name] or "")[:longest] or None
        verdict["views"] = (verdict["views"] or [])[: longest // 16] or None
        if len(shortened := encode(verdict)) <= _PLACE - _HEADER.size:
            break
    return shortened
