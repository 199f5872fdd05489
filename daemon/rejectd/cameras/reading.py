"""Reads and decodes picture files in a thread that can be given up, since a disk or a share may never answer."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from rejectd.cameras.depth import Depth
from rejectd.contract.messages import PictureError, Pixels
from rejectd.contract.settings import FolderCamera
from revdist.data import pictures
from revdist.files import trouble

READING_S = 5.0  # longest wait for a picture of a replay, which has no deadline yet
STUCK_MOST = 3  # threads that are still waiting for a file; each may hold a picture in memory
IDLE_S = 60.0  # after which the thread ends; the next picture gets a new one

_Answer: TypeAlias = Pixels | Exception


class Reader:
    """Reads the picture files of one camera, in a thread of its own. One picture at a time is asked for."""

    def __init__(
        self, settings: FolderCamera, *, read: Callable[[Path, pictures.Limits], Pixels] | None = None
    ) -> None:
        self._limits = pictures.Limits(
            max_file_mb=settings.max_file_mb,
            max_megapixels=settings.max_megapixels,
            bits=settings.bits,
            larger_file="`max_file_mb` of the camera allows more",
            larger_picture="`max_megapixels` of the camera allows more",
        )
        self._read = read or functools.partial(read_picture, depth=Depth())
        self._worker: _Worker | None = None
        self._stuck: list[_Worker] = []

    def load(self, path: Path, timeout_s: float) -> Pixels:
        """uint8 (H, W, 3) RGB of a picture file. Raises PictureError, also when it takes longer than `timeout_s`.

        A thread that does not answer in time is left to itself and ends when it can. Once STUCK_MOST are left, pictures
        are refused at once until one of them comes back.
        """
        self._stuck = [worker for worker in self._stuck if worker.is_alive()]
        if len(self._stuck) >= STUCK_MOST:
            raise PictureError(
                f"{path.name}: not read: {len(self._stuck)} pictures before it are still being read",
                hint="is the disk or the share still there?",
            )
        if self._worker is None or not self._worker.ask(path):
            self._worker = _Worker(self._read, self._limits)
            self._worker.ask(path)
            self._worker.start()
        worker = self._worker
        try:
            answer = worker.answers.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            worker.leave()
            self._stuck.append(worker)
            self._worker = None
            raise PictureError(
                f"{path.name}: reading took longer than {max(timeout_s, 0.0):.2g} s",
                hint="is the disk or the share slow, or the picture too large for the deadline?",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Worker(threading.Thread):
    """A thread that reads what it is asked for, until it is left or idle. A daemon: it never holds up a stop."""

    def __init__(self, read: Callable[[Path, pictures.Limits], Pixels], limits: pictures.Limits) -> None:
        super().__init__(name=f"{threading.current_thread().name}:reader", daemon=True)
        self.answers: queue.Queue[_Answer] = queue.Queue(maxsize=1)
        self._read = read
        self._limits = limits
        self._changed = threading.Condition()  # guards what follows
        self._wanted: Path | None = None
        self._ends = False

    def ask(self, path: Path) -> bool:
        """Ask for a picture. Returns whether it will be read: an idle thread may have ended by itself."""
        with self._changed:
            if not self._ends:
                self._wanted = path
                self._changed.notify()
            return not self._ends

    def leave(self) -> None:
        """Let the thread end as soon as it can."""
        with self._changed:
            self._ends = True
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None or self._ends, IDLE_S)
                path, self._wanted = self._wanted, None
                self._ends = self._ends or path is None
            if path is None:
                return
            try:
                answer: _Answer = self._read(path, self._limits)
            except Exception as error:  # a thread's runner: raised again where the picture was asked for
                answer = error
            self.answers.put_nowait(answer)
            del answer  # or a picture stays in memory until the next one comes


def read_picture(path: Path, limits: pictures.Limits, depth: Depth) -> Pixels:
    """Read and decode a file of a camera whose `depth` is checked. Raises PictureError."""
    try:
        stored = pictures.values(pictures.content(path, limits), limits)
        depth.check(stored, limits.bits)
        return pictures.to_rgb8_of(stored, limits.bits)
    except pictures.ImageError as error:
        raise PictureError(f"{path.name}: {error.message}", hint=error.hint) from error
    except trouble.FILE_ERRORS as error:
        why = trouble.explain(error, path)
        raise PictureError(f"{path.name}: cannot be read: {why.cause}", hint=why.hint) from error
