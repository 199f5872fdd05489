"""Notes each frame that is in flight, or whose verdict is not in the journal yet, so that a killed service loses none.

The notes are slots in a file in memory (tmpfs), one slot for each such frame. When the ledger opens a frame, its slot
gets the verdict that the frame has if nothing more happens: `unjudged` (stopping). When the frame is closed, the slot
gets its final verdict. The next start puts the verdicts that it finds into the journal.

The kernel keeps what a killed process wrote. No write waits for a disk, and none must: a page fault in a file on a disk
that stands still would hold the interpreter's lock, and with it the whole service. A power failure costs the noted
frames their journal entries: the frames in flight, and the frames whose verdicts the disk had not taken yet, which are
those of some milliseconds while the disk answers.

A slot has two places for a verdict. One byte, written last, says which of them counts. So a process that is killed
while it writes leaves the older verdict, never half a verdict. A checksum tells which verdicts are whole.
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
_SLOT = 4096  # bytes
_PLACE = 2032  # bytes
_HEADER = struct.Struct("<IH")  # CRC-32 and length of a verdict, in front of it
_FREE = 0  # the first byte of a slot; else 1 or 2, the place that counts
_RETRY_S = 5.0
SLOTS = 8192


class InFlightError(RejectdError):
    """Another service uses the in-flight file."""


class Slots:
    """The slots, in whatever memory they lie. Safe for any number of threads."""

    def __init__(self, memory: mmap.mmap | bytearray, line: str) -> None:
        """Read the verdicts that an earlier run left; their slots are occupied until they are cleared."""
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
        """Note that a frame is in flight."""
        with self._lock:
            if not self._free:
                self.missed += 1
                return
            slot = self._slot_of[frame.event_id] = self._free.pop()
        body = verdict_payload(self._line, unjudged(frame, Cause.STOPPING, time.monotonic_ns()))
        self._write(slot, 1, encode(body))

    def end(self, event_id: str, body: bytes) -> None:
        """Note the final verdict of a frame."""
        slot = self._slot_of.get(event_id)
        if slot is not None:
            self._write(slot, 2, body)

    def clear(self, event_ids: Iterable[str]) -> None:
        """Free the slots of these frames, for example because their verdicts are in the journal."""
        with self._lock:
            for event_id in event_ids:
                slot = self._slot_of.pop(event_id, None)
                if slot is not None:
                    self._mark(slot, _FREE)
                    self._free.append(slot)

    @property
    def empty(self) -> bool:
        """Whether no slot holds a verdict for the next start."""
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
        """The verdict in a slot; None if the slot holds no whole verdict."""
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
    """The slots in a file in memory. One process holds the file for as long as it lives."""

    def __init__(self, path: Path, *, line: str, slots: int = SLOTS) -> None:
        """Open the file, or make it with room for `slots` frames. A damaged file is set aside.

        Raises:
            InFlightError: if another process holds the file.
            OSError: if the file cannot be made, for example for want of memory.
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
        """Close the file. Its verdicts stay for the next start; an empty file is deleted, to free its memory."""
        if self.empty:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._map.close()
        os.close(self._file)


class WrittenFile(Slots):
    """The slots in a file on the disk, for machines without a folder in memory. A thread writes it, and may wait.

    A kill costs the journal entries that this thread had not written yet: some milliseconds while the disk answers.
    """

    def __init__(self, path: Path, *, line: str, slots: int = SLOTS) -> None:
        """Read the verdicts that an earlier run left; nothing is written yet."""
        self._path = path
        self._changed = threading.Condition()
        self._dirty: set[int] = set()
        self._ended = False
        size = (slots + 1) * _SLOT
        super().__init__(bytearray(_content(path, size)), line)
        self._memory[: len(_MAGIC)] = _MAGIC
        self._dirty.update(range(len(self._memory) // _SLOT))

    def run(self) -> None:
        """Run the in-flight thread: write slots that have changed, until `close`."""
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
        """Let `run` end once all changed slots are written."""
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
    """Open the in-flight file of a state directory: in memory, or on the disk if there is no folder in memory.

    Raises:
        InFlightError: if another process holds the file.
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
    """Open or create a file and lock it. Raises InFlightError if another process holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        hint = "stop it, or give this line a state_directory of its own"
        raise InFlightError(f"{path}: another rejectd uses this state directory", hint=hint) from None
    return file


def _mapped(file: int, slots: int) -> mmap.mmap:
    """Map the whole file into memory. Raises ValueError if it is no in-flight file."""
    size = os.fstat(file).st_size
    if size and (os.pread(file, len(_MAGIC), 0) not in (_MAGIC, bytes(len(_MAGIC))) or size % _SLOT):
        raise ValueError("not an in-flight file")
    size = max(size, (slots + 1) * _SLOT)
    os.posix_fallocate(file, 0, size)  # too little memory is an error now, not a crash later
    os.pwrite(file, _MAGIC, 0)
    return mmap.mmap(file, size)


def _content(path: Path, size: int) -> bytes:
    """The content of a file, padded to at least `size` bytes. A damaged file is set aside."""
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
    """A verdict with its texts cut so that it fits into its place."""
    verdict = json.loads(body)
    for longest in (80, 20, 0):  # a letter can take twelve bytes
        for name in ("detail", "source"):
            verdict[name] = (verdict[name] or "")[:longest] or None
        verdict["views"] = (verdict["views"] or [])[: longest // 16] or None
        if len(shortened := encode(verdict)) <= _PLACE - _HEADER.size:
            break
    return shortened
