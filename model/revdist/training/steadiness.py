"""Keep a run the same whenever it is stopped: deterministic algorithms, and only whole steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import torch


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step is never cut; a second signal acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[signal.Signals, object] = {}

    def request(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for signal_number in before:
            signal.signal(signal_number, signal.default_int_handler)

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        before[signal_number] = signal.signal(signal_number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
