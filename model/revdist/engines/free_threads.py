"""Choose how many threads torch computes with: as many as other programs leave processors free.

A team of threads that shares the work of each operation waits at its end for the slowest thread. Where other programs
use the processors, a team with a thread for every processor waits most of the time: a training step took eight times as
long as with one thread. So the team is as large as the number of processors that other programs leave free.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("revdist")

SHORTEST_S = 0.5  # /proc/stat counts in hundredths of a second: a shorter time is not measured
_TOLERATED = 0.3  # of a processor: where other programs use no more, its thread is worth waiting for
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How long processors were used up to a moment, in seconds."""

    at_s: float
    by_all_s: float  # by all programs, on the processors that this process may use; with time that a hypervisor took
    by_us_s: float  # by the threads of this process


def processors() -> set[int]:
    """Return the processors that this process may use."""
    return os.sched_getaffinity(0)


def look() -> Use | None:
    """Measure the use up to now; None where the system does not tell."""
    try:
        text = _STAT.read_text()
    except OSError:
        return None
    ours = {f"cpu{number}" for number in processors()}
    lines = [line.split() for line in text.splitlines()]
    busy = sum(_busy_ticks(line) for line in lines if line and line[0] in ours)
    return Use(at_s=time.monotonic(), by_all_s=busy / _TICKS_PER_S, by_us_s=time.process_time())


def _busy_ticks(line: list[str]) -> int:
    """Read a line of /proc/stat: name, user, nice, system, idle, iowait, irq, softirq, steal; guests are in user."""
    counts = [int(count) for count in line[1:9]]
    return sum(counts) - sum(counts[3:5])


def free(before: Use, now: Use, count: int) -> int:
    """Return how many of `count` processors other programs left free between two looks; at least one."""
    others_s = (now.by_all_s - before.by_all_s) - (now.by_us_s - before.by_us_s)
    used = max(0.0, others_s) / (now.at_s - before.at_s)
    return max(1, min(count, int(count - used + _TOLERATED)))


class FreeThreads:
    """Decides how many threads torch computes with. Owned by the thread that computes."""

    def __init__(
        self, *, fixed: int = 0, look: Callable[[], Use | None] = look, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`fixed`: number of threads, whatever else runs; 0: as many as are free. The first look is taken here."""
        self._fixed, self._look, self._clock = fixed, look, clock
        self._before = None if fixed else look()

    @contextlib.contextmanager
    def deciding(self, current: Callable[[], int], change: Callable[[int], None]) -> Iterator[None]:
        """Let torch compute with as many threads as this decides, now and with `adapt`; afterwards with all again.

        `current` and `change`: torch.get_num_threads and set_num_threads; torch is imported after the first look.
        """
        global _decides  # noqa: PLW0603 - torch's number of threads is the process's as well
        self._current, self._change, self._all = current, change, current()
        if self._fixed:
            change(self._fixed)
        self.adapt()
        before, _decides = _decides, self
        try:
            yield
        finally:
            _decides = before
            change(self._all)

    def adapt(self) -> None:
        """Set the threads by what was free since the last decision, unless that is a moment ago."""
        if self._before is None or self._clock() - self._before.at_s < SHORTEST_S or (now := self._look()) is None:
            return
        threads = free(self._before, now, self._all)
        if threads != self._current():
            log.info("computing with %d of %d threads: so many processors are free", threads, self._all)
            self._change(threads)
        self._before = now


_decides: FreeThreads | None = None


def adapt() -> None:
    """Adapt the threads to the free processors between two steps of a computation, if a command asked for that."""
    if _decides is not None:
        _decides.adapt()
