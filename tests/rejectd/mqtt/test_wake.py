"""rejectd.mqtt.wake: a thread that waits is woken by another, once, and never blocks the one that wakes."""

from __future__ import annotations

import select
import threading
import time

import pytest

from rejectd.mqtt.wake import Wake


def is_awake(wake: Wake) -> bool:
    return bool(select.select([wake.reader], [], [], 0)[0])


def test_a_thread_that_waits_is_woken_at_once() -> None:
    wake = Wake()
    began = time.monotonic()
    threading.Timer(0.05, wake.wake).start()
    wake.wait(30.0)
    assert time.monotonic() - began < 20
    assert not is_awake(wake), "it was told once"
    wake.close()


def test_nobody_wakes_and_the_wait_ends() -> None:
    wake = Wake()
    wake.wait(0.01)
    wake.forget()
    assert not is_awake(wake)
    wake.close()


def test_a_wake_before_the_wait_is_not_lost_until_it_is_forgotten() -> None:
    wake = Wake()
    wake.wake()
    assert is_awake(wake)
    wake.forget()
    assert not is_awake(wake)
    wake.close()


@pytest.mark.timeout(20)
def test_waking_a_thread_that_never_looks_or_has_ended_does_not_block() -> None:
    wake = Wake()
    for _ in range(100_000):
        wake.wake()
    wake.close()
    wake.wake()
