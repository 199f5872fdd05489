"""Lanes: threads that compute side by side, each on one processor with pictures of its own.

A team of threads shares the work of each operation and waits at the end of each for its slowest thread. When another
program needs a processor for a moment, the whole team waits; and a network has hundreds of operations. Lanes do not
wait for one another: the first lane that has done its part of a batch can begin the next batch. On two idle processors,
batches of four, one after the other, went through efficientnet_lite0 1.2 times as fast (bfloat16, int8) and through a
WideResNet50-2 1.03 (bfloat16) to 1.08 times (int8); with a tenth of the processors' time taken by other programs, 1.4
and 1.15 times.

OpenMP gives each computing thread a team of its own. As soon as all teams together have more threads than there are
processors, OpenMP lets the threads sleep after every operation instead of spinning. A thread that computes alone has no
team.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

import torch

_APART = 0.2  # share of a batch's time that the lanes' starts may be apart; beyond it, wait for all lanes

Arguments = ParamSpec("Arguments")
Given = TypeVar("Given")
Found = TypeVar("Found")
Made = TypeVar("Made")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let torch compute in this thread alone, without a team of threads, while the context lasts.

    A team would spin for a moment after each operation, on processors that other threads need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_here = threading.local()


def in_lane() -> bool:
    """Whether this thread is a lane."""
    return getattr(_here, "in_lane", False)


class Worker:
    """A thread that runs calls, one after the other."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._closing, self._closed = threading.Lock(), False
        # a daemon: a device that hangs must not keep the process from ending
        threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()

    def start(
        self, function: Callable[Arguments, Found], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Future[Found]:
        """Queue a call behind those that were started before. Raises RuntimeError once the worker is closed."""
        done: Future[Found] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the thread that computes has ended")
            self._calls.put((done, functools.partial(function, *arguments, **named)))
        return done

    def call(
        self, function: Callable[Arguments, Found], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Found:
        """Run the function and return its result, or raise its error. A caller waits, so it queues one call only."""
        return self.start(function, *arguments, **named).result()

    def close(self) -> None:
        """End after the calls that were started."""
        with self._closing:
            self._closed = True
            self._calls.put(None)


def _work(calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    """The life of a worker. It keeps no reference to a call or its result: tensors freed at exit abort the process."""
    while (item := calls.get()) is not None:
        done, call = item
        del item
        try:
            result = call()
        except BaseException as error:  # raised again where the result is asked for
            del call
            done.set_exception(error)
        else:
            del call
            done.set_result(result)
            del result
        del done


@dataclass(frozen=True, slots=True)
class Later(Generic[Found]):
    """A result that is there already, or still computed."""

    result: Callable[[], Found]  # waits for the result, or raises the error of the computation; call it once
    ended_ns: Callable[[], int]  # when the computation ended, by time.perf_counter_ns; ask after `result`
    wait_for_room: Callable[[], bool] | None = None  # waits for a free lane; whether others still compute

    @classmethod
    def known(cls, found: Found) -> Later[Found]:
        """Return a Later whose result is there already."""
        now = time.perf_counter_ns()
        return cls(lambda: found, lambda: now)

    def then(self, function: Callable[[Found], Made]) -> Later[Made]:
        """Apply the function to the result: at once if it is there, else in the thread that asks for it."""
        if self.wait_for_room is None:
            return Later.known(function(self.result()))
        return Later(lambda: function(self.result()), self.ended_ns, self.wait_for_room)


class Lanes:
    """Lanes: worker threads that end when this object is freed."""

    def __init__(self, count: int) -> None:
        self._workers = [Worker(f"lane{number}") for number in range(count)]
        self._started: list[Future[None]] = []  # the calls of the last batch
        helper = Worker("helper")
        usual = helper.call(torch.get_num_threads)
        for worker in self._workers:
            worker.call(_enter_lane)
            weakref.finalize(self, worker.close).atexit = False  # lanes end with the process anyway
        # new threads take the number that torch was told last: restore the usual one for them
        helper.call(torch.set_num_threads, usual)
        helper.close()

    def begin(self, function: Callable[[Given], Found], every: Sequence[Given]) -> Later[list[Found]]:
        """Call the function for each item, in lanes; a lane takes the next item as soon as it is free.

        The result is a list in the order of the items; an error of a call is raised when the result is asked for.
        `wait_for_room` returns when a new batch may start: when one lane is idle. If lanes started far apart, it waits
        until all are idle, because the next batch would be held up as long.
        """
        results: dict[int, Found] = {}
        pending, taking, room = iter(range(len(every))), threading.Lock(), threading.Event()
        begun: list[float] = []  # s, by each lane
        ended: list[int] = []  # ns

        @torch.inference_mode()
        def work() -> None:
            begun.append(time.monotonic())
            try:
                while True:
                    with taking:
                        place = next(pending, None)
                    if place is None:
                        return
                    results[place] = function(every[place])
            finally:
                ended.append(time.perf_counter_ns())
                room.set()

        started = [worker.start(work) for worker in self._workers[: len(every)]]

        def result() -> list[Found]:
            wait(started)
            for future in started:
                future.result()
            return [results[place] for place in range(len(every))]

        def wait_for_room() -> bool:
            room.wait()
            apart_s, taken_s = max(begun) - min(begun), time.monotonic() - min(begun)
            if len(begun) < len(started) or apart_s > _APART * taken_s:
                wait(started)
            return not all(future.done() for future in started)

        self._started = started
        return Later(result, lambda: max(ended), wait_for_room)

    def wait(self) -> None:
        """Wait until every lane is idle."""
        wait(self._started)


def _enter_lane() -> None:
    _here.in_lane = True
    compute_with(1)


def compute_with(threads: int) -> None:
    """Let torch use `threads` threads for what this thread computes, whatever other threads set."""
    torch.get_num_threads()  # torch keeps a number for this thread only after this call
    torch.set_num_threads(threads)
