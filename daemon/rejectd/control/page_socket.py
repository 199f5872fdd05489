"""Answers the operator's page over a local socket, in one thread that no verdict waits for.

One connection after the other is served. A client that is slow to ask or to take its answer is dropped. After each
answer the thread rests for several times as long as the answer took, whatever clients ask for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rejectd.contract import local_socket
from rejectd.contract.local_socket import Answer
from rejectd.contract.messages import RejectdError

log = logging.getLogger(__name__)

_BACKLOG = 8  # connections that wait
_REQUEST_S = 0.5  # until a request must be there
_ANSWER_S = 2.0  # until an answer must have been taken
_TICK_S = 0.25
_AGAIN_S = 5.0  # between two attempts to make the socket
_REST = 4.0  # times as long as an answer took


class PageSocket:
    """Serves requests in one thread, `run`, until `close`."""

    def __init__(
        self,
        path: Path,
        answer: Callable[[Mapping[str, Any]], Answer],
        *,
        user: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`user`: who may connect, beside root and the service's own user. Nothing is opened yet."""
        self._path = path
        self._answer = answer
        self._user = user
        self._clock = clock
        self._stop = threading.Event()
        self._complaint = ""

    def run(self) -> None:
        """Make the socket, again and again until the disk takes it, and serve."""
        while not self._stop.is_set():
            try:
                listening = self._listen()
            except OSError as error:
                self._complain(f"{self._path}: the page cannot be served: {error.strerror}")
                self._stop.wait(_AGAIN_S)
                continue
            self._complaint = ""
            with listening:
                self._serve_all(listening)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def close(self) -> None:
        """Let `run` end soon."""
        self._stop.set()

    def _listen(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of a killed run; the state directory is claimed by this one
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with local_socket.address(self._path) as address:
                listening.bind(address)
                self._path.chmod(0o660)  # who has no business here is sent away by `_may`
                listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        listening.settimeout(_TICK_S)
        return listening

    def _serve_all(self, listening: socket.socket) -> None:
        looked_at = self._clock()
        while not self._stop.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                if self._clock() - looked_at > _AGAIN_S:
                    looked_at = self._clock()
                    if not self._path.exists():
                        return  # somebody has moved the state directory away
                continue
            with connection:
                took_s = self._serve(connection)
            self._stop.wait(min(1.0, took_s * _REST))

    def _serve(self, connection: socket.socket) -> float:
        """Serve one client. Returns how long the answer took to make, in seconds."""
        took_s = 0.0
        try:
            if not self._may(connection):
                return 0.0
            line = local_socket.receive(
                connection, local_socket.REQUEST_BYTES, self._clock() + _REQUEST_S, self._clock, b"\n"
            )
            started = self._clock()
            answer = self._answer_to(line)
            took_s = self._clock() - started
            local_socket.send(connection, answer.encoded(), self._clock() + _ANSWER_S, self._clock)
            self._complaint = ""
        except OSError as error:
            self._complain(f"a client of the page's socket is dropped: {error}")
        return took_s

    def _answer_to(self, line: bytes) -> Answer:
        try:
            return self._answer(local_socket.request(line))
        except (ValueError, RecursionError) as error:
            return Answer(error=f"not a request: {str(error)[:100]}")
        except RejectdError as error:
            return Answer(error=str(error))
        except Exception as mistake:  # the line goes on whatever the page asks for
            log.critical("a request of the page failed", exc_info=True)
            return Answer(error=f"failed: {mistake!r}; see the service's log")

    def _may(self, connection: socket.socket) -> bool:
        """Whether the user at the other end may ask: root, our own user, or the page's."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid in (0, os.geteuid()):
            return True
        try:
            return bool(uid == pwd.getpwnam(self._user).pw_uid)
        except KeyError:
            return False

    def _complain(self, complaint: str) -> None:
        """Log a complaint once, until it is over."""
        if complaint != self._complaint:
            log.warning("%s", complaint)
        self._complaint = complaint
