"""rejectd.mqtt.reconnecting: how long the pauses get, and what is said."""

from __future__ import annotations

from rejectd.mqtt.exchange import LostError
from rejectd.mqtt.reconnecting import Patience

TAKEN_OVER = LostError("broker b: another client uses this identifier, r", reason="Session taken over", closed=True)
CLOSED = LostError("broker b: connection lost", closed=True)
CUT = LostError("the broker has acknowledged nothing for 5 s")


def test_pauses_of_attempts_in_vain_double_up_to_the_longest() -> None:
    patience = Patience(10, client_id="r")
    pauses = [patience.failed() for _ in range(12)]
    assert 0.13 < pauses[0] <= 0.2
    assert 0.5 < pauses[2] <= 0.8
    assert all(7 <= pause <= 10 for pause in pauses[6:])


def test_a_connection_that_breaks_soon_makes_the_next_pause_longer_and_one_that_held_ends_them() -> None:
    patience = Patience(10, client_id="r")
    pauses = [patience.ended(CLOSED, 0.1, now) for now in range(10)]
    assert pauses[-1] >= 7
    assert patience.ended(CLOSED, 31.0, 100) == 0
    assert patience.ended(CLOSED, 0.1, 101) <= 0.2


def test_two_that_take_the_session_from_each_other_do_not_take_each_others_pauses_for_a_good_connection() -> None:
    """Each holds the session for as long as the other pauses."""
    for error in (TAKEN_OVER, CLOSED):
        two = [Patience(10, client_id="r") for _ in range(2)]
        now, other_pauses, connects = 0.0, 0.2, 0
        while now < 600:
            patience = two[connects % 2]
            other_pauses = patience.ended(error, other_pauses, now)
            now += other_pauses
            connects += 1
        assert connects < 90, "about one each longest pause, in the end"


def test_who_took_the_session_is_a_problem_at_once_and_for_a_while() -> None:
    patience = Patience(10, client_id="r")
    patience.ended(TAKEN_OVER, 1000, 50)
    assert patience.problem(60) == "broker b: another client uses this identifier, r"
    assert patience.problem(50 + 200) == ""


def test_a_broker_that_closes_again_and_again_without_a_word_is_a_problem_from_the_second_time_on() -> None:
    patience = Patience(10, client_id="r")
    patience.ended(CLOSED, 1, 50)
    assert patience.problem(50) == ""
    patience.ended(CLOSED, 1, 51)
    assert "again and again, without a reason; perhaps another client uses this identifier, r" in patience.problem(52)


def test_a_network_that_is_cut_is_no_work_of_another_client() -> None:
    patience = Patience(10, client_id="r")
    for now in range(5):
        patience.ended(CUT, 1, now)
    assert patience.problem(5) == ""
