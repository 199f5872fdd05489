"""rejectd.mqtt and brokers that take less than we would send: sizes, numbers, levels; and who takes our place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from line import LINE, ROOT, Operator, Subscriber
from peers import Mosquitto, wait_for
from publishing import Rig, rigs
from strict_broker import StrictBroker

from rejectd.contract.payloads import answer_payload, answer_topic, encode, line_topic
from rejectd.contract.settings import Mqtt, Protocol
from rejectd.mqtt import LinkError, Message, connect

LIMIT = 2000


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes publishers that do not run yet, each in a folder of its own."""
    with rigs(tmp_path) as one:
        yield one


def connects(broker: Mosquitto) -> int:
    """How often the service's client has connected."""
    log = (broker.directory / "mosquitto.log").read_text()
    return sum(f"as rejectd-{LINE} " in line for line in log.splitlines())


def an_answer(size: int) -> Message:
    """An answer to a snapshot, with a picture of so many bytes."""
    body = answer_payload(
        LINE, "snapshot", request_id="mine", result={"jpeg": "A" * size}, error="", now_unix_ns=time.time_ns()
    )
    return Message(topic=answer_topic(LINE), payload=encode(body), answer=True)


@pytest.mark.parametrize(
    ("protocol", "rule"),
    [  # with message_size_limit and 3.1.1 mosquitto acknowledges what it drops: nobody can know
        (Protocol.V5, "max_packet_size"),
        (Protocol.V5, "message_size_limit"),
        (Protocol.V311, "max_packet_size"),
    ],
)
def test_what_is_larger_than_the_broker_takes_is_shortened_or_given_up_and_all_else_goes_on(
    mosquitto_with: Callable[[str], Mosquitto],
    make: Callable[..., Rig],
    caplog: pytest.LogCaptureFixture,
    protocol: Protocol,
    rule: str,
) -> None:
    broker = mosquitto_with(f"allow_anonymous true\n{rule} {LIMIT}")
    subscriber, operator = Subscriber(broker.port), Operator(broker.port)
    rig = make(broker.port, protocol=protocol).start()
    assert rig.publisher.wait_connected(10)
    rig.publisher.answer(an_answer(150_000))
    wait_for(lambda: operator.answers, "an answer comes all the same")
    _, _, answer = operator.answers[0]
    assert not answer["ok"]
    assert "max_packet_size" in answer["error"]
    assert answer["request_id"] == "mine"

    long = rig.verdict(detail="x" * 3000)
    event, huge = rig.defect(detail="y" * 3000), rig.defect(more={"score": "9" * 3000})
    last = rig.defect()
    wait_for(lambda: {event, last} <= set(subscriber.of("defect")), "events go on")
    wait_for(lambda: long.event_id in subscriber.of("verdict"), "the verdict comes")
    assert len(subscriber.of("verdict")[long.event_id]["detail"]) > 100, "only as much is lost as must be"
    assert subscriber.of("verdict")[long.event_id]["decision"] == "unjudged"
    assert huge not in subscriber.of("defect")
    wait_for(lambda: rig.outbox.waiting() == 0, "what is given up blocks nothing")
    problems = [problem for problem in rig.publisher.problems() if "given up" in problem]
    assert problems, rig.publisher.problems()
    assert "at most: 1 given up, " in problems[0]
    assert "raise the largest packet" in problems[0]
    assert "/defect" in problems[0]
    assert any("given up" in record.message and record.levelno == logging.ERROR for record in caplog.records)
    assert rig.metrics.too_large.labels("given_up")._value.get() == 1
    told = protocol is Protocol.V5 and rule == "max_packet_size"
    assert connects(broker) <= (1 if told else 12), "who is told need not try"
    subscriber.close()
    operator.close()


def test_a_verdict_for_which_the_broker_has_no_room_is_counted_and_named(
    mosquitto_with: Callable[[str], Mosquitto], make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto_with("allow_anonymous true\nmax_packet_size 300").port).start()
    assert rig.publisher.wait_connected(10)
    for _ in range(20):
        rig.verdict()
    wait_for(lambda: rig.unpublished() == 20, "each of them is counted")
    (problem,) = rig.publisher.problems()
    assert "the broker takes messages of 300 bytes at most: 20 given up" in problem


@pytest.mark.parametrize("maximum", [1, 2, 10])
def test_no_more_is_under_way_than_the_broker_wants_and_verdicts_are_in_time_before_events(
    make: Callable[..., Rig], maximum: int
) -> None:
    broker = StrictBroker(receive_maximum=maximum, acknowledges_after_s=0.01)
    rig = make(broker.port, heartbeat_s=1, keepalive_s=5)
    for _ in range(100):
        rig.defect()
    rig.start()
    assert rig.publisher.wait_connected(10)
    wait_for(lambda: sum("/defect" in topic for topic in list(broker.topics)) > 3, "events are on their way")
    verdicts = [rig.verdict(lifetime_ms=5000).event_id for _ in range(40)]
    wait_for(lambda: len(rig.delivered) == 40, "each verdict is delivered")
    after = sum("/defect" in topic for topic in list(broker.topics))
    assert sorted(rig.delivered) == sorted(verdicts)
    assert rig.unpublished() == 0
    assert rig.metrics.missed.labels("a")._value.get() == 0
    assert broker.most_under_way <= maximum
    assert broker.connects <= 2, "once to ask for the version, once to stay"
    assert after < 100, "verdicts did not wait for the events"
    rig.end(0.0)
    broker.close()


@pytest.mark.parametrize("protocol", [Protocol.V5, Protocol.V311])
def test_two_services_with_one_identifier_back_off_and_say_so(
    mosquitto: Mosquitto, make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, protocol: Protocol
) -> None:
    rigs_of_one_name = [make(mosquitto.port, protocol=protocol, retry_max_s=2) for _ in range(2)]
    began = time.monotonic()
    for rig in rigs_of_one_name:
        rig.start()
    for rig in rigs_of_one_name:
        wait_for(
            lambda rig=rig: any("another client uses this identifier" in text for text in rig.publisher.problems()),
            "the problem is shown",
        )
    wait_for(lambda: time.monotonic() > began + 8, "some time passes")  # the storm that is looked for
    count = connects(mosquitto)
    assert count <= 20, f"{count} connections in 8 s"
    said = [record.message for record in caplog.records if "another client uses this identifier" in record.message]
    assert 1 <= len(said) <= 6
    assert f"rejectd-{LINE}" in said[0]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("max_qos 0", "QoS not supported; the line needs QoS 1: allow it at the broker (mosquitto: max_qos)"),
        ("retain_available false", "Retain not supported; the line needs retained messages: allow them at the broker"),
    ],
)
def test_a_broker_without_what_a_line_needs_is_refused_by_name(
    mosquitto_with: Callable[[str], Mosquitto], rule: str, words: str
) -> None:
    broker = mosquitto_with(f"allow_anonymous true\n{rule}")
    will = Message(topic=line_topic(LINE), payload=b"{}", retain=True)
    with pytest.raises(LinkError) as refused:
        connect(Mqtt(port=broker.port), client_id="test", will=will)
    assert words in str(refused.value)


def test_the_keep_alive_that_the_broker_wants_is_kept(mosquitto_with: Callable[[str], Mosquitto]) -> None:
    broker = mosquitto_with("allow_anonymous true\nmax_keepalive 10")
    link = connect(Mqtt(port=broker.port, keepalive_s=60), client_id="test")
    assert link.keepalive_s == 10
    link.close()


def test_a_line_says_that_the_broker_limits_it(
    mosquitto_with: Callable[[str], Mosquitto], make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto_with("allow_anonymous true\nmax_packet_size 70000").port).start()
    assert rig.publisher.wait_connected(10)
    wait_for(lambda: rig.publisher.largest_packet() == 70_000, "the limit is known")
    assert rig.publisher.problems() == [], "a limit alone is no problem"


def test_a_message_is_never_larger_than_was_reckoned(mosquitto: Mosquitto) -> None:
    from rejectd.mqtt.size_limits import packet_bytes

    link = connect(Mqtt(port=mosquitto.port), client_id="test")
    for size in (0, 100, 200, 20_000):
        message = Message(
            topic=f"{ROOT}/ä/verdict", payload=b"x" * size, correlation=b"c" * 30, answer_to="answer/ü", answer=True
        )
        link.publish(message, 0)
        (sent,) = [len(packet["packet"]) for packet in link._client._out_packet] or [0]
        assert sent <= packet_bytes(message) < size + 150
        while link._client.want_write():
            link.wait(0.1)
    link.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x8E, f"another client uses this identifier, rejectd-{LINE}; is a second service of this line connected at"),
        (0x87, "ends the connection: Not authorized; check mqtt.username"),
        (0x8B, "ends the connection: Server shutting down; the line connects again when it is back"),
        (0x8D, "ends the connection: Keep alive timeout; the broker heard nothing for too long"),
        (0x95, "ends the connection: Packet too large; a message was larger than the broker takes"),
        (0x97, "ends the connection: Quota exceeded; the broker's quota for this client is used up"),
        (0x98, "ends the connection: Administrative action; somebody closed this connection at the broker"),
    ],
)
def test_why_the_broker_ends_a_connection_is_said_in_its_words_with_what_to_do_and_not_tried_again_at_once(
    make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, code: int, words: str
) -> None:
    broker = StrictBroker(ends_with=code)
    rig = make(broker.port, retry_max_s=5).start()
    wait_for(lambda: words in caplog.text, "the reason is in the log")
    wait_for(lambda: any(words in problem for problem in rig.publisher.problems()), "and a problem, once it came again")
    before, began = broker.connects, time.monotonic()
    wait_for(lambda: time.monotonic() > began + 2, "two seconds pass")
    assert broker.connects - before <= 5
    assert sum(words in record.message for record in caplog.records) <= 3
    rig.end(0.0)
    broker.close()


def test_who_could_not_say_goodbye_leaves_the_last_word_to_the_broker(
    mosquitto_with: Callable[[str], Mosquitto], make: Callable[..., Rig]
) -> None:
    """A farewell that the broker never acknowledged must not leave a retained status that says all is well."""
    broker = mosquitto_with("allow_anonymous true\nmax_packet_size 160")  # the will fits, no status does
    subscriber = Subscriber(broker.port)
    rig = make(broker.port)
    rig.status = Message(topic=line_topic(LINE), payload=encode({"state": "online", "fill": "x" * 300}), retain=True)
    rig.start()
    assert rig.publisher.wait_connected(10)
    rig.end(1.0)
    wait_for(lambda: subscriber.status().get("state") == "offline", "the last will is published")
    subscriber.close()
