"""rejectd.page.access: passwords, sessions, and how often somebody may try."""

from __future__ import annotations

import pytest
from simulated_line import Clock

from rejectd.page.access import (
    AccessError,
    Attempts,
    Rates,
    Role,
    Sessions,
    User,
    WaitError,
    check_new,
    fits,
    hashed,
    new_password,
)

ANNA = User(name="anna", role=Role.OPERATOR, password="", one_time=False)


def test_a_hashed_password_fits_itself_alone_and_two_hashes_of_it_differ() -> None:
    first, second = hashed("quiet green lathe"), hashed("quiet green lathe")
    assert fits("quiet green lathe", first)
    assert not fits("quiet green lathf", first)
    assert first != second
    assert "lathe" not in first


@pytest.mark.parametrize("password", ["short", "anna anna anna", "aaaaaaaaaaaa", "x" * 201])
def test_a_password_that_is_easy_to_guess_is_refused(password: str) -> None:
    with pytest.raises(AccessError):
        check_new(password, "anna")


def test_one_time_passwords_are_long_enough_and_never_the_same() -> None:
    passwords = {new_password() for _ in range(50)}
    assert len(passwords) == 50
    for password in passwords:
        check_new(password, "anna")


def test_a_session_lasts_as_long_as_somebody_uses_it_and_no_longer() -> None:
    clock = Clock()
    sessions = Sessions(100, clock)
    secret = sessions.begin(ANNA)
    clock.now = 99
    assert sessions.find(secret)
    clock.now = 198
    assert sessions.find(secret), "it was used at 99"
    clock.now = 298
    assert sessions.find(secret) is None


def test_a_session_is_unknown_without_its_secret_and_ends_with_the_log_out() -> None:
    sessions = Sessions(100, Clock())
    secret = sessions.begin(ANNA)
    assert sessions.find(secret + "x") is None
    assert sessions.find(None) is None
    sessions.end(secret)
    assert sessions.find(secret) is None


def test_a_person_is_logged_out_everywhere_at_once() -> None:
    sessions = Sessions(100, Clock())
    secrets = [sessions.begin(ANNA), sessions.begin(ANNA)]
    sessions.end_of("anna")
    assert [sessions.find(secret) for secret in secrets] == [None, None]


def test_after_five_wrong_passwords_a_person_waits_longer_each_time_but_others_do_not() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(5):  # all at once: none of them has been found wrong yet
        attempts.check("anna", "10.0.0.1")
    with pytest.raises(WaitError) as wait:
        attempts.check("anna", "10.0.0.1")
    attempts.check("bert", "10.0.0.1")
    attempts.check("anna", "10.0.0.2")
    clock.now = int(wait.value.seconds) + 1
    attempts.check("anna", "10.0.0.1")
    with pytest.raises(WaitError) as longer:
        attempts.check("anna", "10.0.0.1")
    assert longer.value.seconds > wait.value.seconds


def test_an_address_that_tries_many_names_waits_too() -> None:
    attempts = Attempts(Clock())
    for number in range(20):
        attempts.check(f"name{number}", "10.0.0.1")
    with pytest.raises(WaitError):
        attempts.check("another", "10.0.0.1")


def test_the_right_password_ends_the_count() -> None:
    attempts = Attempts(Clock())
    for _ in range(5):
        attempts.check("anna", "10.0.0.1")
    attempts.succeeded("anna", "10.0.0.1")
    for _ in range(5):
        attempts.check("anna", "10.0.0.1")
    with pytest.raises(WaitError):
        attempts.check("anna", "10.0.0.1")


def test_people_who_share_an_address_and_know_their_passwords_never_wait() -> None:
    attempts = Attempts(Clock())
    for number in range(100):
        attempts.check(f"name{number}", "10.0.0.1")
        attempts.succeeded(f"name{number}", "10.0.0.1")


def test_an_address_gets_so_many_requests_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    rates = Rates(2, 5, clock)
    assert [rates.allow("a") for _ in range(6)] == [True] * 5 + [False]
    assert rates.allow("b")
    clock.now = 1
    assert [rates.allow("a") for _ in range(3)] == [True, True, False]
