"""When a file was complete."""

from __future__ import annotations

from rejectd.cameras.watched.completion import Instant, completed

S = 1_000_000_000
UNIX = 1_800_000_000 * S  # the wall clock when the monotonic one is 0


def at(monotonic_s: float, step_s: float = 0) -> Instant:
    """Both clocks at an instant, the wall clock set by so much."""
    return Instant(round(monotonic_s * S), UNIX + round((monotonic_s + step_s) * S))


def unix(monotonic_s: float, step_s: float = 0) -> int:
    return at(monotonic_s, step_s).unix_ns


def test_it_is_the_time_of_the_last_writing() -> None:
    assert completed(at(10), at(14.5), unix(11)) == at(11)


def test_a_file_that_was_written_before_was_not_complete_before_we_last_looked() -> None:
    assert completed(at(10), at(10.05), unix(3)) == at(10)


def test_a_time_from_the_future_is_now_at_the_latest() -> None:
    assert completed(at(10), at(10.05), unix(5000)) == at(10.05)


def test_without_a_clock_that_is_ours_it_is_when_we_last_looked() -> None:
    assert completed(at(10), at(14.5), None) == at(10)


def test_a_wall_clock_that_is_set_while_we_do_not_look_makes_a_part_older_and_never_younger() -> None:
    for step_s in (-3600, -2, 2, 3600):
        before, now = at(10), at(14.5, step_s)
        for written in (unix(12), unix(12, step_s)):  # before the step, or after it
            instant = completed(before, now, written)
            assert 10 * S <= instant.monotonic_ns <= 12 * S
            assert now.unix_ns - instant.unix_ns == now.monotonic_ns - instant.monotonic_ns
