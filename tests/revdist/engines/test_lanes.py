"""revdist.engines.lanes"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from peers import wait_for

from revdist.engines import lanes
from revdist.engines.lanes import Lanes, Later, Worker


def test_calls_of_all_threads_run_in_one_thread_one_after_the_other() -> None:
    device, running, seen = Worker("device"), threading.Lock(), set()
    found: dict[int, list[int]] = {}

    def work(number: int) -> int:
        assert running.acquire(blocking=False), "another call runs"
        seen.add(threading.get_ident())
        running.release()
        return number + 1

    def ask(number: int) -> None:
        found[number] = [device.call(work, number) for _ in range(50)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    device.close()
    assert found == {number: [number + 1] * 50 for number in range(4)}
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_an_error_is_raised_where_it_was_called_and_the_next_call_is_made() -> None:
    device = Worker("device")
    with pytest.raises(ZeroDivisionError):
        device.call(lambda: 1 / 0)
    assert device.call(sum, [1, 2], start=3) == 6
    device.close()


def test_it_ends_after_the_calls_that_were_made_before() -> None:
    device, begun, go = Worker("device"), threading.Event(), threading.Event()
    found: list[threading.Thread] = []

    def work() -> threading.Thread:
        begun.set()
        go.wait(timeout=10)
        return threading.current_thread()

    waiting = threading.Thread(target=lambda: found.append(device.call(work)))
    waiting.start()
    assert begun.wait(timeout=10)
    device.close()
    go.set()
    waiting.join(timeout=10)
    (thread,) = found
    thread.join(timeout=10)
    assert (thread.name, thread.is_alive()) == ("device", False)


def test_a_closed_worker_refuses_calls_in_the_place_of_letting_them_wait() -> None:
    worker = Worker("device")
    worker.close()
    with pytest.raises(RuntimeError, match="has ended"):
        worker.call(int)


def test_when_a_result_is_known_the_thread_holds_nothing_of_the_call() -> None:
    """A thread that frees tensors while the interpreter ends aborts the process."""

    class Pictures:
        pass

    worker = Worker("device")
    for _ in range(200):
        given = Pictures()
        gone = weakref.ref(given)
        done = worker.start(id, given)
        del given
        done.result()
        assert gone() is None
    worker.close()


def test_lanes_run_side_by_side_and_give_results_in_order() -> None:
    both = threading.Barrier(2, timeout=10)  # broken unless two wait at once

    def work(number: int) -> tuple[int, int, bool]:
        both.wait()
        return number, torch.get_num_threads(), torch.is_inference_mode_enabled()

    made, before = Lanes(2), torch.get_num_threads()
    assert made.begin(work, range(6)).result() == [(number, 1, True) for number in range(6)]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("apart", "goes_on"), [(1.0, True), (-1.0, False)])
def test_a_lane_that_has_done_its_part_begins_what_comes_next_unless_they_are_far_apart(
    apart: float, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_APART", apart)
    made, both, released = Lanes(2), threading.Barrier(2, timeout=10), threading.Event()
    seen: list[int] = []

    def work(number: int) -> int:
        both.wait()
        assert number == 0 or released.wait(timeout=10)
        return number

    def note(number: int) -> int:
        seen.append(number)
        return number + 10

    first = made.begin(work, range(2))
    assert first.wait_for_room is not None
    if not goes_on:
        threading.Timer(0.05, released.set).start()
    assert first.wait_for_room() is goes_on
    assert released.is_set() is not goes_on
    second = made.begin(note, range(2))
    wait_for(lambda: seen == [0, 1], "whoever is free does all of it")
    released.set()
    made.wait()
    assert (first.result(), second.result()) == ([0, 1], [10, 11])
    assert not first.wait_for_room()
    assert first.ended_ns() <= time.perf_counter_ns()


def test_there_is_room_after_an_error_too() -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    begun = Lanes(2).begin(fail, range(2))
    assert begun.wait_for_room is not None
    begun.wait_for_room()
    with pytest.raises(ValueError, match=r"0|1"):
        begun.result()


def test_what_follows_is_made_at_once_of_what_is_known_and_else_where_it_is_asked_for() -> None:
    made: list[int] = []
    known = Later.known(1).then(made.append)
    assert (made, known.wait_for_room) == ([1], None)
    later = Lanes(2).begin(lambda number: number, range(2)).then(lambda every: (sum(every), threading.get_ident()))
    assert later.wait_for_room is not None
    later.wait_for_room()
    assert later.result() == (1, threading.get_ident())


def test_lanes_leave_other_threads_their_number() -> None:
    def usual() -> int:
        worker = Worker("other")
        found = worker.call(torch.get_num_threads)
        worker.close()
        return found

    before = torch.get_num_threads()
    told = Worker("told")
    told.call(torch.set_num_threads, 3)
    Lanes(2)
    assert (usual(), torch.get_num_threads()) == (3, before)
    told.call(torch.set_num_threads, before)
    told.close()


def test_an_error_in_a_lane_is_raised_after_the_others_have_ended() -> None:
    ended = []

    def work(number: int) -> None:
        if number == 0:
            raise ValueError("the first fails")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match="the first fails"):
        Lanes(2).begin(work, range(4)).result()
    assert sorted(ended) == [1, 2, 3]


def test_lanes_end_with_what_has_them() -> None:
    three = Lanes(3)
    made = [thread for thread in threading.enumerate() if thread.name.startswith("lane")]
    assert len(made) >= 3
    del three
    gc.collect()
    for thread in made[-3:]:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.parametrize("package", ["revdist", "rejectd"])
def test_threads_of_a_team_do_not_spin_for_milliseconds(package: str) -> None:
    program = f"import {package}, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    for given, expected in ({}, "40000 False\n"), ({"GOMP_SPINCOUNT": "7"}, "7 False\n"):
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
        made = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert made.stdout == expected, made.stderr
