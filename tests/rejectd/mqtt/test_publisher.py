"""rejectd.mqtt: the publisher and its connection, before real brokers that refuse, freeze, deny and come back."""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from access import no_subscriptions
from line import LINE, ROOT, Operator, Subscriber
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from peers import Mosquitto, free_port, wait_for
from publishing import Rig, rigs

from rejectd.contract.messages import CameraState, CameraStatus
from rejectd.contract.payloads import encode
from rejectd.contract.settings import Commands, Mqtt, Protocol
from rejectd.mqtt import LinkError, Message, RefusedError, connect

MS = 1_000_000


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_attempts_that_fail_for_years_leave_no_socket_open(mosquitto_with: Callable[[str], Mosquitto]) -> None:
    refusing = Mqtt(port=mosquitto_with("allow_anonymous false").port)
    gc.disable()  # a socket that only the garbage collector closes may stay open for long
    try:
        before = _open_files()
        for _ in range(20):
            with pytest.raises(RefusedError, match=r"check mqtt\.username"):
                connect(refusing, client_id="test")
        with pytest.raises(LinkError, match="is a broker running there"):
            connect(Mqtt(port=free_port()), client_id="test")
        assert _open_files() == before
    finally:
        gc.enable()


def test_a_broker_is_heard_where_a_thousand_files_are_open(mosquitto: Mosquitto) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as stack:
            for _ in range(1100):  # select(2) takes no file number over 1023
                stack.enter_context(Path(os.devnull).open())
            with closing(connect(Mqtt(port=mosquitto.port), client_id="test")) as link:
                link.subscribe("a")
                link.publish(Message(topic="a", payload=b"heard"), time.monotonic_ns())
                until = time.monotonic() + 20
                while not link.received and time.monotonic() < until:
                    link.wait(0.1)
                assert [message.payload for message in link.received] == [b"heard"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes publishers that do not run yet, each in a folder of its own."""
    with rigs(tmp_path) as one:
        yield one


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    made = Subscriber(mosquitto.port)
    yield made
    made.close()


def test_waking_a_publisher_that_has_ended_harms_nobody(make: Callable[..., Rig]) -> None:
    rig = make(free_port()).start()
    assert rig.end(0.1) < 5
    rig.publisher.wake()
    rig.publisher.more_events()
    rig.publisher.marked([1])


def test_everything_goes_out_and_what_is_acknowledged_is_told(
    mosquitto: Mosquitto, subscriber: Subscriber, make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto.port).start()
    assert rig.publisher.wait_connected(10)
    verdicts = [rig.verdict("ab"[number % 2]).event_id for number in range(50)]
    events = [rig.defect("ab"[number % 2]) for number in range(30)]
    rig.publisher.camera(CameraStatus(camera="a", state=CameraState.UP, since_unix_ns=1))
    wait_for(lambda: len(subscriber.of("verdict")) == 50 and len(subscriber.of("defect")) == 30, "all arrives")
    wait_for(lambda: subscriber.states("a") == ["up"], "the camera's status arrives")
    wait_for(lambda: len(rig.acknowledged) == 30, "all is acknowledged")
    assert sorted(rig.delivered) == sorted(verdicts)
    assert list(subscriber.of("defect")) == events, "in their order"
    assert rig.acknowledged == list(range(1, 31))
    assert len(rig.took_ns) == 50
    assert all(0 < took < 10**10 for took in rig.took_ns)
    assert rig.metrics.latency.labels("a")._sum.get() > 0
    assert rig.unpublished() == 0


def test_at_the_end_all_is_out_and_the_line_says_goodbye(
    mosquitto: Mosquitto, subscriber: Subscriber, make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto.port)
    for _ in range(40):
        rig.verdict()
        rig.defect()
    rig.start()
    assert rig.end(10) < 9
    wait_for(lambda: len(subscriber.of("verdict")) == len(subscriber.of("defect")) == 40, "all has arrived")
    wait_for(lambda: subscriber.status().get("state") == "offline", "the line says goodbye")
    assert len(rig.acknowledged) == 40


def test_verdicts_go_before_events_however_many_of_those_wait(
    mosquitto: Mosquitto, subscriber: Subscriber, make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto.port)
    for _ in range(300):
        rig.defect()
    rig.verdict()
    rig.start()
    wait_for(lambda: len(subscriber.of("defect")) == 300, "the events arrive")
    kinds = [topic.split("/")[4] for _, topic, _ in subscriber.messages if topic.count("/") > 3 and "/a/" in topic]
    assert kinds.index("verdict") <= 10


# verdicts, and brokers that are away


def test_a_verdict_that_expired_while_the_broker_was_away_is_never_sent_but_counted(
    make: Callable[..., Rig], mosquitto: Mosquitto
) -> None:
    mosquitto.stop()
    rig = make(mosquitto.port).start()
    short = [rig.verdict("a", lifetime_ms=100) for _ in range(3)]
    long = [rig.verdict("b", lifetime_ms=60_000) for _ in range(2)]
    event = rig.defect("a")
    wait_for(lambda: rig.publisher.unpublished["a"] == 3, "they expire and are counted while nobody is connected")
    assert rig.metrics.unpublished.labels("a")._value.get() == rig.metrics.missed.labels("a")._value.get() == 3
    mosquitto.start()
    subscriber = Subscriber(mosquitto.port)
    wait_for(lambda: set(subscriber.of("verdict")) >= {each.event_id for each in long}, "the others are sent")
    wait_for(lambda: event in subscriber.of("defect"), "the event is sent too")
    assert not set(subscriber.of("verdict")) & {each.event_id for each in short}
    wait_for(lambda: len(rig.delivered) == 2, "they are acknowledged")
    assert rig.took_ns == [], "waiting for a broker to come back says nothing about the way to it"
    subscriber.close()


class Listener:
    """Hears verdicts with all that MQTT 5 says about them."""

    def __init__(self, port: int) -> None:
        self.messages: list[MQTTMessage] = []
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(f"{ROOT}/+/verdict/+", qos=1)
        assert subscribed.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_a_verdict_that_has_expired_is_not_sent_though_the_broker_is_there(
    mosquitto: Mosquitto, subscriber: Subscriber, make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto.port).start()
    assert rig.publisher.wait_connected(10)
    expired = [rig.verdict(lifetime_ms=0) for _ in range(5)]
    last = rig.verdict()
    wait_for(lambda: last.event_id in subscriber.of("verdict"), "the next one arrives")
    assert set(subscriber.of("verdict")) == {last.event_id}
    assert rig.unpublished() == len(expired)


def test_each_verdict_carries_how_long_it_is_of_use_and_is_not_retained(
    mosquitto: Mosquitto, make: Callable[..., Rig]
) -> None:
    listener = Listener(mosquitto.port)
    rig = make(mosquitto.port).start()
    assert rig.publisher.wait_connected(10)
    rig.verdict("a", lifetime_ms=90_000)
    rig.verdict("b", lifetime_ms=700)
    wait_for(lambda: len(listener.messages) == 2, "both arrive")
    assert [(message.qos, message.retain) for message in listener.messages] == [(1, False)] * 2
    long, short = (message.properties.MessageExpiryInterval for message in listener.messages)
    assert 80 <= long <= 90
    assert short == 1, "whole seconds; none would mean for ever"
    listener.close()


def log_of(broker: Mosquitto) -> str:
    return (broker.directory / "mosquitto.log").read_text()


def test_a_broker_that_is_frozen_is_given_up_and_what_expires_meanwhile_is_never_sent(
    mosquitto: Mosquitto, subscriber: Subscriber, make: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    rig = make(mosquitto.port).start()
    assert rig.publisher.wait_connected(10)
    rig.verdict()
    wait_for(lambda: rig.delivered, "the way is free")
    assert mosquitto._process
    mosquitto._process.send_signal(signal.SIGSTOP)
    frozen = time.monotonic()
    event = rig.defect()
    in_the_socket = [rig.verdict(lifetime_ms=150) for _ in range(30)]
    wait_for(lambda: rig.metrics.broker_connected._value.get() == 0, "the broker is given up", 10)
    given_up_s = time.monotonic() - frozen
    later = [rig.verdict(lifetime_ms=150) for _ in range(30)]
    wait_for(lambda: rig.unpublished() == 60, "all of them expire and are counted")
    mosquitto._process.send_signal(signal.SIGCONT)
    last = rig.verdict(lifetime_ms=60_000)
    wait_for(lambda: last.event_id in subscriber.of("verdict"), "the broker is used again")
    wait_for(lambda: event in subscriber.of("defect"), "no event is lost")
    assert 0.9 <= given_up_s < 4, "the keepalive is one second"
    received = set(subscriber.of("verdict"))
    assert not received & {each.event_id for each in later}
    late = received & {each.event_id for each in in_the_socket}
    assert len(late) <= 20, "what the system had taken before nobody can take back; subscribers look at valid_until"
    assert "the broker has acknowledged nothing for 1 s" in caplog.text


def test_far_too_many_verdicts_are_bounded_and_the_oldest_goes_counted(make: Callable[..., Rig]) -> None:
    rig = make(free_port())
    for _ in range(10_003):
        rig.verdict(lifetime_ms=600_000)
    assert rig.unpublished() == 3
    rig.start()
    rig.end(0.0)
    assert rig.unpublished() == 10_003, "what never went out is counted at the end"


def test_only_the_latest_status_of_a_camera_is_sent_when_the_broker_is_back(
    mosquitto: Mosquitto, make: Callable[..., Rig]
) -> None:
    mosquitto.stop()
    rig = make(mosquitto.port).start()
    for number, state in enumerate((CameraState.UP, CameraState.DEGRADED, CameraState.DOWN)):
        rig.publisher.camera(CameraStatus(camera="a", state=state, reason="x", since_unix_ns=number))
    mosquitto.start()
    subscriber = Subscriber(mosquitto.port)
    wait_for(lambda: subscriber.states("a"), "the status arrives")
    assert set(subscriber.states("a")) == {"down"}
    subscriber.close()


# brokers that say no


def acl(directory: Path, *lines: str) -> str:
    """Settings of a broker with an access list for everybody."""
    path = directory / f"acl{len(list(directory.glob('acl*')))}"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o644)
    return f"allow_anonymous true\nacl_file {path}"


def test_a_broker_that_denies_one_defect_topic_holds_up_no_other(
    mosquitto_with: Callable[[str], Mosquitto],
    make: Callable[..., Rig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto_with(acl(tmp_path, "topic readwrite #", f"topic deny {ROOT}/b/defect"))
    subscriber = Subscriber(broker.port)
    rig = make(broker.port)
    denied = [rig.defect("b") for _ in range(25)]
    taken = [rig.defect("a") for _ in range(25)]
    rig.start()
    wait_for(lambda: len(subscriber.of("defect")) == 25, "the other events arrive")
    wait_for(lambda: len(rig.acknowledged) == 25, "and are acknowledged")
    assert list(subscriber.of("defect")) == taken
    assert rig.publisher.problems() == [f"the broker refuses {ROOT}/b/defect"]
    refusals = [record for record in caplog.records if f"broker refuses {ROOT}/b/defect" in record.message]
    assert "Not authorized; check its access list" in refusals[0].message
    assert len(refusals) <= 10
    assert rig.outbox.waiting() == len(denied), "they are kept"
    rig.verdict("b")
    wait_for(lambda: subscriber.of("verdict"), "verdicts of that camera go out as ever")
    assert rig.end(10) < 8, "what nobody takes does not hold up the end"
    subscriber.close()


def test_denied_verdicts_are_counted_as_unpublished_and_do_not_flood_the_log(
    mosquitto_with: Callable[[str], Mosquitto],
    make: Callable[..., Rig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto_with(acl(tmp_path, "topic readwrite #", f"topic deny {ROOT}/b/verdict/unjudged"))
    rig = make(broker.port).start()
    assert rig.publisher.wait_connected(10)
    for _ in range(200):
        rig.verdict("b")
    wait_for(lambda: rig.publisher.unpublished["b"] == 200, "each of them is counted")
    assert rig.delivered == []
    assert rig.publisher.problems() == [f"the broker refuses {ROOT}/b/verdict/unjudged"], "nobody else would notice"
    assert len([1 for record in caplog.records if "broker refuses" in record.message]) < 20, (
        "a line makes millions of verdicts"
    )


def test_a_wrong_password_is_said_once_and_nothing_is_lost_until_it_is_right(
    mosquitto_with: Callable[[str], Mosquitto],
    make: Callable[..., Rig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    for option, user in (("-c", "line"), ("", "plc")):
        words = ["mosquitto_passwd", *option.split(), "-b", str(passwords), user, "right"]
        subprocess.run(words, check=True, capture_output=True)
    passwords.chmod(0o644)
    secret.write_text("wr0ng\n")
    broker = mosquitto_with(f"allow_anonymous false\npassword_file {passwords}")
    subscriber = Subscriber(broker.port, credentials=("plc", "right"))
    caplog.set_level(logging.INFO)
    rig = make(broker.port, username="line", password_file=secret).start()
    events = [rig.defect() for _ in range(5)]
    gone = rig.verdict(lifetime_ms=50)
    wait_for(lambda: log_of(broker).count("not authorised") >= 3, "several attempts were made")
    wait_for(lambda: rig.unpublished() == 1, "the verdict expires")
    said = [record.message for record in caplog.records if "refuses" in record.message]
    assert len(said) == 1
    assert "Not authorized; check mqtt.username, mqtt.password_file and the broker's access list" in said[0]
    assert "wr0ng" not in caplog.text
    assert not rig.publisher.wait_connected(0)
    secret.write_text("right\n")
    wait_for(lambda: set(subscriber.of("defect")) == set(events), "all events arrive")
    assert gone.event_id not in subscriber.of("verdict")
    subscriber.close()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_password_file_in_another_encoding_ends_no_thread_and_is_said_once_until_it_is_mended(
    mosquitto: Mosquitto, make: Callable[..., Rig], tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes("geheim-ß1\r\n".encode(encoding))
    rig = make(mosquitto.port, username="line", password_file=secret, retry_max_s=0.2).start()
    wait_for(rig.publisher.problems, "the trouble is known")
    rig.verdict(lifetime_ms=500)
    wait_for(lambda: rig.unpublished() == 1, "several attempts later")
    said = [record.message for record in caplog.records if "is not UTF-8 text" in record.message]
    assert len(said) == 1
    assert said[0] == rig.publisher.problems()[0]
    assert "iconv -f" in said[0]
    secret.write_bytes(b"\xef\xbb\xbf" + "geheim-ß1\r\n".encode())
    assert rig.publisher.wait_connected(10), "taken over without a restart"
    wait_for(lambda: rig.publisher.problems() == [], "all is well")


NO_COMMANDS = ("command/+", "actuator/+/rejected")


def test_a_broker_that_lets_us_hear_no_commands_is_shown_as_a_problem_and_gets_everything_all_the_same(
    mosquitto_with: Callable[[str], Mosquitto],
    make: Callable[..., Rig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto_with(no_subscriptions(tmp_path, *NO_COMMANDS))
    rig = make(broker.port).start()
    assert rig.publisher.wait_connected(10)
    wait_for(rig.publisher.problems, "the problem is shown")
    assert rig.publisher.problems() == ["the broker refuses to let us hear commands"]
    rig.verdict()
    wait_for(lambda: rig.delivered, "verdicts go out all the same")
    broker.stop()
    wait_for(lambda: rig.metrics.broker_connected._value.get() == 0, "the connection is lost")
    broker.start()
    wait_for(lambda: rig.metrics.broker_connected._value.get() == 1, "and comes back")
    wait_for(rig.publisher.problems, "the problem is shown again")
    said = [record for record in caplog.records if "refuses to let us hear commands" in record.message]
    assert "check its access list, or set mqtt.commands: off" in said[0].message
    assert len(said) == 1


def test_where_commands_are_off_nothing_is_subscribed_and_nothing_is_missing(
    mosquitto_with: Callable[[str], Mosquitto], make: Callable[..., Rig], tmp_path: Path
) -> None:
    broker = mosquitto_with(no_subscriptions(tmp_path, *NO_COMMANDS))
    rig = make(broker.port, commands=Commands.OFF).start()
    assert rig.publisher.wait_connected(10)
    rig.verdict()
    wait_for(lambda: rig.delivered, "verdicts go out")
    assert rig.publisher.problems() == []


def test_where_commands_are_not_taken_counts_of_actuators_are_heard_alone(
    mosquitto: Mosquitto, make: Callable[..., Rig]
) -> None:
    rig = make(mosquitto.port, commands=Commands.AUTO).start()  # this broker knows nobody
    assert rig.publisher.wait_connected(10)
    operator = Operator(mosquitto.port, line=LINE)

    def counted() -> bool:
        operator.send("pause")
        operator.publish("actuator/a/rejected", {"count": 1})
        return bool(rig.heard)

    wait_for(counted, "a count comes in")
    operator.close()
    assert {message.topic for message in rig.heard} == {f"{ROOT}/actuator/a/rejected"}


# what others send us


def test_commands_and_counts_of_actuators_come_in_with_all_that_their_answer_needs(
    mosquitto: Mosquitto, make: Callable[..., Rig]
) -> None:
    operator = Operator(mosquitto.port)
    correlation = operator.send("pause", {"cameras": ["a"]}, retain=True)
    rig = make(mosquitto.port).start()
    wait_for(lambda: rig.heard, "the retained command comes")
    (retained,) = rig.heard
    assert (retained.topic, retained.retained) == (f"{ROOT}/command/pause", True)
    operator.send("resume", {}, answer_to=None)  # it has subscribed to this topic first
    operator.publish("actuator/a/rejected", {"count": 12})
    operator.publish("actuator/a/state", "not for us")
    operator.publish("a/verdict/reject", "not for us")
    wait_for(lambda: len(rig.heard) >= 3, "both come")
    resume, count = rig.heard[1:]
    assert (resume.topic, resume.retained, resume.answer_to, resume.correlation) == (
        f"{ROOT}/command/resume",
        False,
        None,
        None,
    )
    assert (count.topic, json.loads(count.payload)) == (f"{ROOT}/actuator/a/rejected", {"count": 12})
    assert (retained.answer_to, retained.correlation) == (f"{ROOT}/answer/mine", correlation)
    assert json.loads(retained.payload) == {"cameras": ["a"]}
    operator.close()


def test_an_answer_carries_what_the_request_sent_along(mosquitto: Mosquitto, make: Callable[..., Rig]) -> None:
    operator = Operator(mosquitto.port)
    correlation = operator.send("resume", retain=True)  # so that it is there when the publisher subscribes
    rig = make(mosquitto.port).start()
    wait_for(lambda: rig.heard, "the command comes")
    body = {
        "schema": "rejectd.answer.v1",
        "line": LINE,
        "command": "resume",
        "request_id": None,
        "ok": True,
        "error": None,
        "result": {"paused": []},
        "at": "2026-11-25T06:00:00.000000Z",
    }
    answer_to = rig.heard[0].answer_to
    assert answer_to
    rig.publisher.answer(Message(topic=answer_to, payload=encode(body), answer=True, correlation=correlation))
    wait_for(lambda: operator.answers, "the answer comes")
    assert operator.answers == [(f"{ROOT}/answer/mine", correlation, body)]
    operator.close()


def test_over_an_old_mqtt_everything_goes_out_too(mosquitto: Mosquitto, make: Callable[..., Rig]) -> None:
    subscriber = Subscriber(mosquitto.port)
    rig = make(mosquitto.port, protocol=Protocol.V311).start()
    verdict, event = rig.verdict(), rig.defect()
    wait_for(lambda: verdict.event_id in subscriber.of("verdict") and event in subscriber.of("defect"), "both arrive")
    wait_for(lambda: rig.acknowledged == [1], "the event is acknowledged")
    subscriber.close()
