"""rejectd.device"""

from __future__ import annotations

import threading

import pytest

from rejectd.device import DeviceThread


def test_calls_of_all_threads_run_in_one_thread_one_after_the_other() -> None:
    device, running, seen = DeviceThread(), threading.Lock(), set()
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
    device = DeviceThread()
    with pytest.raises(ZeroDivisionError):
        device.call(lambda: 1 / 0)
    assert device.call(sum, [1, 2], start=3) == 6
    device.close()


def test_it_ends_after_the_calls_that_were_made_before() -> None:
    device, begun, go = DeviceThread(), threading.Event(), threading.Event()
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
