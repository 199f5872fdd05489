"""rejectd.process.clock: the kernel is asked, and nothing is set."""

from __future__ import annotations

import ctypes
import math

import pytest

from rejectd.process import clock


class Kernel:
    """adjtimex(2) with the answer of a test."""

    def __init__(self, state: int) -> None:
        self.state = state

    def __call__(self, name: object, *, use_errno: bool) -> Kernel:
        return self

    def adjtimex(self, timex: ctypes.Array[ctypes.c_char]) -> int:
        assert not any(timex.raw), "modes 0 asks; any other bit sets the clock"
        return self.state


def test_the_real_kernel_answers() -> None:
    state = clock.clock_synchronised()
    assert math.isnan(state) or state in (0.0, 1.0)


@pytest.mark.parametrize(("state", "synchronised"), [(0, 1.0), (1, 1.0), (4, 1.0), (5, 0.0)])
def test_only_a_clock_in_error_is_not_synchronised(
    state: int, synchronised: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Kernel(state))
    assert clock.clock_synchronised() == synchronised


def test_nothing_is_known_where_the_kernel_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Kernel(-1))
    assert math.isnan(clock.clock_synchronised())
