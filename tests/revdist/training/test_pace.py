"""revdist.training.pace: a budget is kept though the machine becomes slower."""

from __future__ import annotations

import pytest

from revdist.training.pace import Pace
from revdist.training.timing import FEWEST_STEPS, Duration

PLANNED = Duration(before_s=5.0, step_s=0.1, steps=500, after_s=4.0)


class Machine:
    """Runs a whole schedule, with steps that take as long as it is told. Begins 5 s after the budget began."""

    def __init__(self, budget_s: float) -> None:
        self.now_s = 5.0
        self.pace = Pace(PLANNED, budget_s, clock=lambda: self.now_s)
        self.steps: list[int] = []  # of the schedule, those that were made
        self.step_s = PLANNED.step_s

    def run(self, slower: dict[int, float]) -> float:
        """Return when the run ends; `slower`: from a step of the schedule on, times the planned time."""
        self.pace.begin()
        done, factor = 0, 1.0
        while done < PLANNED.steps:
            factor = next((slower[step] for step in sorted(slower, reverse=True) if done >= step), 1.0)
            self.now_s += PLANNED.step_s * factor
            self.steps.append(done)
            done += 1
            done += self.pace.advance(done)
        assert done == PLANNED.steps
        return self.now_s + PLANNED.after_s * factor


def test_a_machine_as_fast_as_it_was_makes_every_step() -> None:
    machine = Machine(70.0)
    assert machine.run({}) == pytest.approx(59.0)
    assert machine.steps == list(range(500))
    assert machine.pace.made == 500


@pytest.mark.parametrize(
    "slower", [{0: 2.0}, {250: 3.0}, {0: 4.0}, {100: 2.0, 200: 1.0}, {400: 6.0}, {0: 1.5, 450: 4.0}]
)
def test_a_machine_that_becomes_slower_ends_within_the_budget_and_makes_the_whole_schedule_in_fewer_steps(
    slower: dict[int, float], caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(70.0)
    assert machine.run(slower) < 1.2 * 70.0
    assert machine.steps == sorted(set(machine.steps))
    assert machine.steps[-1] >= 499 - 500 / machine.pace.made - 1, "to the end of the schedule"
    assert FEWEST_STEPS <= machine.pace.made <= 500
    if machine.pace.made < 450:
        assert "slower than planned: to keep the budget, about" in caplog.text


def test_a_budget_that_is_over_before_the_first_step_still_makes_the_fewest_steps() -> None:
    machine = Machine(1.0)
    machine.run({})
    assert FEWEST_STEPS <= machine.pace.made <= 2 * FEWEST_STEPS
    gaps = [after - before for before, after in zip(machine.steps, machine.steps[1:], strict=False)]
    assert max(gaps) < 120, "spread over the schedule"
