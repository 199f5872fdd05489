"""rejectd.mqtt.size_limits: what is sent of a message that is larger than the broker takes."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry

from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt.exchange import Message
from rejectd.mqtt.size_limits import Fitting, packet_bytes


@pytest.fixture
def fitting() -> Fitting:
    snapshot = Ledger("run", margin=Margin(0)).snapshot
    return Fitting(Metrics(CollectorRegistry(), cameras=["a"], products=[], snapshot=snapshot))


def a_message(detail: int, fixed: int = 0) -> Message:
    return Message(topic="t", payload=json.dumps({"detail": "d" * detail, "fixed": "f" * fixed}).encode())


def test_without_a_limit_everything_goes_as_it_is(fitting: Fitting) -> None:
    message = a_message(10**6)
    assert fitting.fit(message) is message
    assert fitting.problem() == ""


def test_what_the_broker_takes_goes_as_it_is_to_the_last_byte(fitting: Fitting) -> None:
    message = a_message(1000)
    fitting.connected(packet_bytes(message))
    assert fitting.fit(message) is message
    fitting.connected(packet_bytes(message) - 1)
    shortened = fitting.fit(message)
    assert shortened
    assert packet_bytes(shortened) < packet_bytes(message)
    assert "at most: 1 shortened, the last on t with " in fitting.problem()
    assert fitting.fit(a_message(10, fixed=2000)) is None
    assert "at most: 1 given up, 1 shortened, the last on t with 2" in fitting.problem()


def test_a_broker_that_takes_more_when_it_is_back_is_no_problem_any_more(fitting: Fitting) -> None:
    fitting.connected(500)
    assert fitting.fit(a_message(0, fixed=2000)) is None
    assert fitting.problem()
    fitting.connected(100_000)
    assert fitting.problem() == ""


def test_a_limit_that_nobody_names_is_found_by_halves_above_what_was_taken(fitting: Fitting) -> None:
    fitting.learn(100_000, taken=700)
    assert fitting.most_bytes == 50_000
    fitting.learn(50_000, taken=40_000)
    assert fitting.most_bytes == 40_000
    fitting.connected(30_000)
    assert fitting.most_bytes == 30_000, "what the broker says counts, if it is less"


def test_what_was_learnt_is_tried_again_after_a_while(fitting: Fitting, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("rejectd.mqtt.size_limits.time.monotonic", lambda: clock[0])
    fitting.learn(100_000, taken=0)
    clock[0] += 700
    assert fitting.most_bytes is None
