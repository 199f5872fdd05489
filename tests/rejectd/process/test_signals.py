"""rejectd.process.signals: a signal during the start is neither deadly nor lost."""

from __future__ import annotations

import signal

import pytest

from rejectd.process.signals import Signals, StoppedError


def test_sighup_during_the_start_is_kept_for_later() -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.get(0.01) == signal.SIGHUP
        assert signals.get(0.01) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start_ends_it_and_later_is_queued(number: signal.Signals) -> None:
    with Signals() as signals:
        with pytest.raises(StoppedError, match=number.name):
            signal.raise_signal(number)
        assert signals.get(0.01) == number, "also where the error was swallowed on its way"
        signals.ready()
        signal.raise_signal(number)
        assert signals.get(0.01) == number


def test_no_except_of_exceptions_swallows_a_stop() -> None:
    assert not issubclass(StoppedError, Exception)


def test_the_handlers_before_are_in_force_afterwards() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Signals():
        assert signal.getsignal(signal.SIGHUP) != before
    assert signal.getsignal(signal.SIGHUP) == before
