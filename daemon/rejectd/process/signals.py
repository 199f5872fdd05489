"""Signals of the process, caught from the first moment on: before torch is imported and a model is loaded."""

from __future__ import annotations

import queue
import signal
from types import FrameType, TracebackType
from typing import Self

_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedError(BaseException):
    """A stop was wanted before the service was ready. Like KeyboardInterrupt, nothing on the way catches it."""


class Signals:
    """Handlers only queue. Until `ready` there is nothing to drain: a stop ends the start at once by StoppedError."""

    def __init__(self) -> None:
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ready = False
        self._before = {number: signal.signal(number, self._catch) for number in _CAUGHT}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self._numbers.put(number)
        if number != signal.SIGHUP and not self._ready:
            raise StoppedError(signal.Signals(number).name)

    def ready(self) -> None:
        """From now on a stop is queued as well; whoever serves looks at the queue."""
        self._ready = True

    def get(self, timeout_s: float) -> int:
        """The next signal, also one that came during the start; 0 if there is none in time."""
        try:
            return self._numbers.get(timeout=timeout_s)
        except queue.Empty:
            return 0
