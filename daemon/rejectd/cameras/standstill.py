"""Notices that the whole process stood still: stopped by a signal, frozen with its machine, or without a processor."""

from __future__ import annotations

import threading
import time
from collections import deque

_TICK_S = 0.1
_GAP_S = 0.3  # ticks that are further apart were held up
_KEPT = 32  # standstills


class Standstill:
    """A thread that does nothing but tick, until `end`."""

    def __init__(self) -> None:
        self._tick_s = time.monotonic()
        self._gaps: deque[tuple[float, float]] = deque(maxlen=_KEPT)  # begin, end
        self._ending = threading.Event()
        name = f"{threading.current_thread().name}:tick"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def began_s(self, when_s: float) -> float | None:
        """When the process first stood still after an instant of the monotonic clock; None if it did not."""
        # the tick is read first: a tick that comes in between has written its gap down before
        tick_s, now_s = self._tick_s, time.monotonic()
        gaps = [*self._gaps, (tick_s, now_s)] if now_s - tick_s > _GAP_S else list(self._gaps)
        return next((max(begin_s, when_s) for begin_s, end_s in gaps if end_s > when_s), None)

    def end(self) -> None:
        """End the thread. May be called twice."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(_TICK_S):
            now_s = time.monotonic()
            if now_s - self._tick_s > _GAP_S:
                self._gaps.append((self._tick_s, now_s))
            self._tick_s = now_s
