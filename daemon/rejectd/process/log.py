"""Writes the log in a thread of its own: stderr may be a file on a disk that stands still, and no part waits for it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import TextIO

_WAITING = 10_000  # lines; what comes beyond is counted
_LAST_S = 2.0  # how long the end waits for what is still to be written


class BackgroundHandler(logging.Handler):
    """`emit` never blocks; a thread writes."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_WAITING)
        self._lost = 0
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        try:
            self._lines.put_nowait(self.format(record) + "\n")
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        """Wait until all is written, as far as the disk takes it in time."""
        until = time.monotonic() + _LAST_S
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.001)

    def close(self) -> None:
        """Let the thread end after what is to be written."""
        self.flush()
        self._ended.set()
        super().close()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                continue
            lost, self._lost = self._lost, 0
            if lost:
                line = f"{lost} lines of the log were lost: stderr did not take them\n{line}"
            with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more: there is nobody to tell
                self._stream.write(line)
                self._stream.flush()
            self._lines.task_done()
