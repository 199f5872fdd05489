"""rejectd.mqtt.breaking_messages: which message a broker breaks the connection for, and which it only broke beside."""

from __future__ import annotations

from rejectd.mqtt.breaking_messages import Sent, Suspects
from rejectd.mqtt.exchange import Message


def sent(name: int, size: int, at: float = 10.0) -> Sent:
    return Sent(message=Message(topic="t", payload=b"", event_seq=name), size=size, at=at)


def test_the_only_large_message_is_it_when_it_has_broken_two_connections() -> None:
    suspects = Suspects()
    suspects.taken(sent(1, 900))
    large, small = sent(2, 50_000), sent(3, 500)
    assert suspects.broke([small, large], 10.1) is None
    assert suspects.alone(large.message)
    assert not suspects.alone(small.message)
    assert suspects.broke([large], 10.1) is large
    assert not suspects.alone(large.message), "what comes of it is up to others"


def test_of_several_large_ones_none_is_blamed_until_it_went_alone() -> None:
    suspects = Suspects()
    first, second = sent(1, 40_000), sent(2, 50_000)
    for _ in range(4):
        assert suspects.broke([first, second], 10.1) is None
    suspects.taken(first)
    assert not suspects.alone(first.message)
    assert suspects.broke([second], 10.1) is second


def test_what_is_no_larger_than_what_was_taken_or_was_sent_long_before_is_innocent() -> None:
    suspects = Suspects()
    suspects.taken(sent(1, 60_000))
    for _ in range(3):
        assert suspects.broke([sent(2, 50_000)], 10.1) is None
    assert not suspects.alone(sent(2, 50_000).message)
    for _ in range(3):
        assert suspects.broke([sent(3, 90_000)], 30.0) is None, "the network was cut, perhaps"


def test_a_broker_that_takes_less_than_it_did_is_understood_after_a_while() -> None:
    suspects = Suspects()
    suspects.taken(sent(1, 60_000))
    blamed = [suspects.broke([sent(2, 50_000)], 10.1) for _ in range(8)]
    assert blamed[:5] == [None] * 5
    assert any(blamed)
