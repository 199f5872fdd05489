"""revdist.engines.crowd: a team of threads gives up where other programs use the processors, and is tried again."""

from __future__ import annotations

import pytest

from revdist.engines.crowd import Crowd


class Machine:
    """A clock, and the processor time of a thread, that a test moves."""

    def __init__(self) -> None:
        self.now = self.computed = 0.0
        self.crowd = Crowd(clock=lambda: self.now, computed_s=lambda: self.computed)

    def run(self, took_s: float, share: float) -> bool:
        """A team computes for so long, its leader for a share of that; whether there is a crowd afterwards."""
        with self.crowd.watching():
            self.now += took_s
            self.computed += share * took_s
        return self.crowd.around


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_team_that_computes_all_the_time_is_not_crowded(machine: Machine) -> None:
    assert not any(machine.run(0.012, 0.97) for _ in range(100))


def test_a_team_that_waits_twice_in_a_row_is(machine: Machine) -> None:
    assert not machine.run(0.131, 0.1)
    assert not machine.run(0.012, 0.95)
    assert not machine.run(0.131, 0.1)
    assert machine.run(0.131, 0.1)


def test_after_a_pause_a_team_is_tried_again_and_one_run_decides(machine: Machine) -> None:
    machine.run(0.1, 0.1)
    machine.run(0.1, 0.1)
    machine.now += 4.9
    assert machine.crowd.around
    machine.now += 0.2
    assert not machine.crowd.around
    assert machine.run(0.1, 0.1), "still crowded"
    machine.now += 9.9
    assert machine.crowd.around, "the pause is twice as long"
    machine.now += 0.2
    assert not machine.run(0.012, 0.95)
    machine.run(0.1, 0.1)
    assert machine.run(0.1, 0.1)
    machine.now += 5.1
    assert not machine.crowd.around, "the first pause again"


def test_a_pause_is_a_minute_at_most(machine: Machine) -> None:
    for _ in range(20):
        machine.run(0.1, 0.1)
        machine.now += 60.0
        assert not machine.crowd.around


def test_what_lasts_less_than_two_milliseconds_says_nothing(machine: Machine) -> None:
    assert not any(machine.run(0.001, 0.0) for _ in range(10))
