"""What a killed service leaves behind: each frame that is in flight, or whose verdict is not in the journal yet.

A mapped file of slots, one for each such frame. From the moment the ledger opens a frame its slot holds the verdict
that the frame has if nothing more happens, `unjudged` (stopping), and once it is closed the verdict that it got. The
kernel keeps what a killed process wrote; no write waits for a disk. The next start puts what it finds into the journal.

A slot has two places for a verdict; which of them counts is said by one byte, written last. So a process that is killed
while it writes leaves the older verdict, never a half one. After a power failure a checksum tells what is usable.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rejectd.decision import unjudged
from rejectd.messages import Cause, Frame, RejectdError
from rejectd.payloads import encode, verdict_payload

_MAGIC = b"rejectd1"
_SLOT = 4096
_PLACE = 2032
_HEADER = struct.Struct("<IH")  # CRC-32 and length of a verdict, before it
_FREE = 0  # the first byte of a slot; else 1 or 2, the place that counts
SLOTS = 8192


class LogbookError(RejectdError):
    """The logbook cannot be opened, or another service uses it."""


class Logbook:
    """Safe for any number of threads. The file belongs to one process, as long as that lives."""

    def __init__(self, path: Path, *, line: str, slots: int = SLOTS) -> None:
        """Open the file, or make it with room for `slots` frames, and read what an earlier run left.

        Raises:
            LogbookError: if another process has it, or it cannot be used.
        """
        self._line = line
        self.missed = 0  # frames that found no free slot
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise LogbookError(f"{path}: cannot be opened: {error.strerror}", hint=_HINT) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._map = self._mapped(slots)
        except BlockingIOError:
            os.close(self._file)
            hint = "stop it, or give this line a state_directory of its own"
            raise LogbookError(f"{path}: another rejectd uses this state directory", hint=hint) from None
        except (OSError, ValueError) as error:
            os.close(self._file)
            raise LogbookError(f"{path}: cannot be used: {error}", hint=_HINT) from error
        self._slots = len(self._map) // _SLOT - 1  # slot 0 is the file's own
        self.left = self._read()
        self._lock = threading.Lock()
        self._slot_of: dict[str, int] = {}
        self._free: list[int] = []

    def begin(self) -> None:
        """Forget what an earlier run left: it is in the journal now."""
        for slot in range(1, self._slots + 1):
            self._map[slot * _SLOT] = _FREE
        self._free = list(range(self._slots, 0, -1))
        self.left = []

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
                    self._map[slot * _SLOT] = _FREE
                    self._free.append(slot)

    def close(self) -> None:
        """Let go of the file; what is in it stays for the next start."""
        self._map.close()
        os.close(self._file)

    def _write(self, slot: int, place: int, body: bytes) -> None:
        if len(body) > _PLACE - _HEADER.size:
            body = _shortened(body)
        start = slot * _SLOT + 16 + (place - 1) * _PLACE
        self._map[start : start + _HEADER.size] = _HEADER.pack(zlib.crc32(body), len(body))
        self._map[start + _HEADER.size : start + _HEADER.size + len(body)] = body
        self._map[slot * _SLOT] = place

    def _mapped(self, slots: int) -> mmap.mmap:
        size = os.fstat(self._file).st_size
        if size and (os.pread(self._file, len(_MAGIC), 0) not in (_MAGIC, bytes(len(_MAGIC))) or size % _SLOT):
            raise ValueError("not a logbook")
        size = max(size, (slots + 1) * _SLOT)
        os.posix_fallocate(self._file, 0, size)  # a full disk is an error now, not a crash later
        os.pwrite(self._file, _MAGIC, 0)
        return mmap.mmap(self._file, size)

    def _read(self) -> list[dict[str, Any]]:
        """The verdicts in all slots, in no order."""
        found = []
        for slot in range(1, self._slots + 1):
            place = self._map[slot * _SLOT]
            if place in (1, 2):
                start = slot * _SLOT + 16 + (place - 1) * _PLACE
                checksum, length = _HEADER.unpack(self._map[start : start + _HEADER.size])
                body = self._map[start + _HEADER.size : start + _HEADER.size + min(length, _PLACE)]
                if body and zlib.crc32(body) == checksum:
                    found.append(json.loads(body))
        return found


_HINT = "let the service's user write there, free disk space, or move a damaged file away"


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
