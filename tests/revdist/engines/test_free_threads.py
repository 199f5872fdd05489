"""revdist.engines.free_threads: torch computes with as many threads as other programs leave processors free."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from revdist.engines import free_threads
from revdist.engines.free_threads import FreeThreads, Use


class Machine:
    """Processors whose use a test sets, and torch's number of threads."""

    def __init__(self, processors: int) -> None:
        self.threads = processors
        self.now_s = self.others_s = self.ours_s = 0.0

    def look(self) -> Use:
        return Use(at_s=self.now_s, by_all_s=self.others_s + self.ours_s, by_us_s=self.ours_s)

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, threads: int, /) -> None:
        self.threads = threads

    def compute(self, seconds: float, *, others: float) -> None:
        """Our threads compute all the time, and so do others on so many processors."""
        self.now_s += seconds
        self.ours_s += self.threads * seconds
        self.others_s += others * seconds
        free_threads.adapt()


@pytest.mark.parametrize(
    ("processors", "others", "threads"),
    [(2, 0.0, 2), (2, 0.1, 2), (2, 0.67, 1), (2, 2.0, 1), (16, 0.2, 16), (16, 3.0, 13), (16, 40.0, 1), (1, 1.0, 1)],
)
def test_threads_are_as_many_as_processors_are_free(processors: int, others: float, threads: int) -> None:
    machine = Machine(processors)
    with FreeThreads(look=machine.look, clock=lambda: machine.now_s).deciding(
        machine.get_num_threads, machine.set_num_threads
    ):
        assert machine.threads == processors, "nothing is known yet"
        machine.compute(1.0, others=others)
        assert machine.threads == threads
    assert machine.threads == processors, "all again, afterwards"


def test_threads_come_back_when_the_other_program_ends() -> None:
    machine = Machine(4)
    with FreeThreads(look=machine.look, clock=lambda: machine.now_s).deciding(
        machine.get_num_threads, machine.set_num_threads
    ):
        machine.compute(1.0, others=3.0)
        assert machine.threads == 1
        machine.compute(0.1, others=0.0)
        assert machine.threads == 1, "too short to be measured"
        machine.compute(1.0, others=0.0)
        assert machine.threads == 4


def test_what_was_free_while_a_command_was_imported_decides_at_once() -> None:
    machine = Machine(2)
    threads = FreeThreads(look=machine.look, clock=lambda: machine.now_s)
    machine.compute(1.5, others=1.0)
    with threads.deciding(machine.get_num_threads, machine.set_num_threads):
        assert machine.threads == 1


def test_a_number_that_a_person_gave_stays_whatever_else_runs() -> None:
    machine = Machine(4)
    with FreeThreads(fixed=3, look=machine.look, clock=lambda: machine.now_s).deciding(
        machine.get_num_threads, machine.set_num_threads
    ):
        machine.compute(1.0, others=4.0)
        assert machine.threads == 3
    assert machine.threads == 4


def test_where_the_system_does_not_tell_all_threads_compute() -> None:
    machine = Machine(4)
    with FreeThreads(look=lambda: None, clock=lambda: machine.now_s).deciding(
        machine.get_num_threads, machine.set_num_threads
    ):
        machine.compute(1.0, others=4.0)
        assert machine.threads == 4


def test_other_programs_are_seen_and_our_own_work_is_not() -> None:
    before = free_threads.look()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            pass
        now = free_threads.look()
        other.kill()
    assert before is not None
    assert now is not None
    assert now.by_us_s - before.by_us_s > 0.2
    others_s = (now.by_all_s - before.by_all_s) - (now.by_us_s - before.by_us_s)
    assert others_s > 0.2


def test_without_a_command_nothing_changes_the_threads() -> None:
    machine = Machine(2)
    machine.compute(5.0, others=2.0)
    assert machine.threads == 2
