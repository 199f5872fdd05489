"""How old pictures without a clock may be, told from waiting and standstills alone."""

from __future__ import annotations

import pytest

from rejectd.cameras.streams.arrivals import Arrivals

STEP_S = 0.05


class Source:
    """Pictures that are waited for, at a steady rate; `stood_s` is when the process last stood still, until when."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, float]] = []
        self.arrivals = Arrivals(self._stood_since)
        self.now_s = 100.0
        while not self.arrivals.settle(None, self.now_s, 0.8 * STEP_S):
            self.now_s += STEP_S

    def after(self, seconds: float, waited_s: float):
        self.now_s += seconds
        return self.arrivals.age(None, self.now_s, waited_s)

    def _stood_since(self, when_s: float) -> float | None:
        return next((max(begin_s, when_s) for begin_s, end_s in self.gaps if end_s > when_s), None)


def test_pictures_that_are_waited_for_are_new_however_irregular_they_are():
    source = Source()
    for pause_s in (0.05, 5.0, 0.01, 0.01, 60.0, 1.0, 0.3, 0.02) * 3:
        assert source.after(pause_s, 0.9 * pause_s).lag_s <= 0.05


def test_what_a_new_connection_has_ready_does_not_settle():
    arrivals = Arrivals(lambda _: None)
    assert not any(arrivals.settle(None, 100 + n * 0.003, 0.0002) for n in range(50))


def test_what_queued_while_the_process_stood_still_is_stale_until_a_picture_is_waited_for():
    source = Source()
    source.after(STEP_S, 0.8 * STEP_S)
    source.gaps.append((source.now_s + 0.01, source.now_s + 4.5))
    ages = [source.after(4.5, 4.49)] + [source.after(0.003, 0.0002) for _ in range(90)]
    assert all(age.lag_s >= 4.4 for age in ages)
    assert all(age.doubt.startswith("stale: taken up to 4.") for age in ages)
    assert not source.after(0.04, 0.03).doubt


def test_a_standstill_that_is_shorter_than_half_a_second_makes_nothing_stale():
    source = Source()
    source.gaps.append((source.now_s + 0.01, source.now_s + 0.4))
    age = source.after(0.4, 0.39)
    assert age.lag_s == pytest.approx(0.39)
    assert not age.doubt


def test_pictures_that_are_never_waited_for_become_stale():
    source = Source()
    ages = [source.after(STEP_S, 0.0002) for _ in range(20)]
    assert not ages[5].doubt
    assert ages[-1].doubt
    assert source.arrivals.trouble()[0] == "pictures come faster than they can be decoded"
