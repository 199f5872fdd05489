"""The one thread that computes, whoever asks.

OpenMP gives each thread that computes a team of its own, and as soon as there are more threads in teams than processors
it lets all of them sleep after every operation, in the place of spinning for a moment. A service whose models were
loaded by one thread and run by another took 20 ms for four pictures of efficientnet_lite0 in int8, in the place of 15.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


class DeviceThread:
    """Runs calls one after the other. Each caller waits for its own, so that no more wait than there are threads."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # a daemon: a device that hangs must not keep the process from ending
        threading.Thread(target=self._run, name="device", daemon=True).start()

    def call(
        self, function: Callable[Arguments, Found], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Found:
        """What the function returns, or raises."""
        done: Future[Found] = Future()

        def run() -> None:
            try:
                done.set_result(function(*arguments, **named))
            except BaseException as error:  # raised again where it was called
                done.set_exception(error)

        self._calls.put(run)
        return done.result()

    def close(self) -> None:
        """End after the calls that are under way; none may follow."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # or its pictures would stay until the next one
