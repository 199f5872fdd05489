"""Wakes the publish thread from any other thread while it waits for its socket."""

from __future__ import annotations

import contextlib
import socket


class Wake:
    """A pair of sockets: one end is written to wake, the other is waited for together with the broker's socket."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """Wake the thread that waits. Without effect once `close` was called."""
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until somebody wakes this thread, at most so long."""
        self.reader.settimeout(seconds)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            self.reader.recv(4096)
        self.reader.setblocking(False)

    def forget(self) -> None:
        """Forget that somebody has woken this thread, which is awake."""
        with contextlib.suppress(BlockingIOError):
            self.reader.recv(4096)

    def close(self) -> None:
        self.reader.close()
        self._writer.close()
