"""config/mqtt/*.py: the two worked gateways as processes, against the real service, a real broker and real cells."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import contract
import pytest
from gateway import LETS_GO, REJECT, RELEASE, SPACING_S, STOPS, TRAVEL_S, Gateway, Peer, Said
from line import LINE, Line, Subscriber
from peers import Mosquitto, need_peer, wait_for

from rejectd.contract.messages import CameraState, Decision
from rejectd.contract.payloads import (
    actuator_topic,
    answer_topic,
    camera_topic,
    command_topic,
    defect_topic,
    line_topic,
    verdict_topic,
)

pytestmark = pytest.mark.system

HEARTBEAT_S = 3.0  # the time that both promise
SLACK_S = 0.5  # for a busy machine


@pytest.fixture
def gateway(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Callable[[str], Gateway]]:
    """Starts a gateway."""
    started: list[Gateway] = []
    folder = tmp_path / "pictures" / "left"

    def start(script: str) -> Gateway:
        folder.mkdir(parents=True, exist_ok=True)
        started.append(Gateway(script, mosquitto, folder))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def watched(line: Line) -> Line:
    """A line with one camera that waits for files, as it would wait for exposures."""
    line.folder("left", [], mode="watch", deadline_ms=1500)
    line.settings["mqtt"]["heartbeat_s"] = 1.0  # the default
    return line


def _verdicts(subscriber: Subscriber) -> dict[int, dict[str, Any]]:
    """Verdicts by the number of the part, which the name of its file tells."""
    return {int(Path(verdict["source"]).stem): verdict for verdict in subscriber.of("verdict").values()}


def _start(line: Line, belt: Gateway) -> None:
    """Start the service, and wait until all is well: the camera sees and the gateway believes it."""
    line.start()
    wait_for(lambda: "camera left up" in line.log.read_text(), "the camera sees")
    belt.wait_state("running")


def _assert_safe(gateway: Gateway, subscriber: Subscriber) -> None:
    """No part is released without a pass of its own, and none that was rejected in time passes."""
    verdicts = _verdicts(subscriber)
    for number, line in gateway.wait_done().items():
        verdict = verdicts.get(number)
        if gateway.script == RELEASE and line["do"] == "release":
            assert verdict, line
            assert verdict["action"] == "pass", line
        if gateway.script == REJECT and verdict and verdict["action"] == "reject":
            exposed = datetime.fromisoformat(verdict["captured_at"]).timestamp()
            in_time = exposed - gateway.fed_at[number] < SPACING_S / 2  # a service that hung saw the part too late
            assert line["do"] == "eject" or not in_time, line


def _assert_rightly(gateway: Gateway, subscriber: Subscriber, numbers: range) -> None:
    """While all is well each part gets what its verdict says."""
    done = gateway.wait_done()
    wait_for(lambda: _verdicts(subscriber).keys() >= set(numbers), "every part has its verdict", 5)
    verdicts = _verdicts(subscriber)
    for number in numbers:
        goes_on = verdicts[number]["action"] == "pass"
        assert done[number]["do"] == (LETS_GO if goes_on else STOPS)[gateway.script], (done[number], verdicts[number])


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_each_part_is_handled_once_and_as_its_verdict_says(
    script: str,
    watched: Line,
    subscriber: Subscriber,
    gateway: Callable[[str], Gateway],
    cells: list[Path],
    strange: Path,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")
    belt = gateway(script)
    _start(watched, belt)
    belt.feed([cells[0], strange, cells[1], broken, cells[2], strange, cells[3], cells[4]])
    _assert_rightly(belt, subscriber, range(1, 9))
    assert {verdict["decision"] for verdict in _verdicts(subscriber).values()} == {"pass", "reject", "unjudged"}
    stopped = sum(line["do"] == STOPS[script] for line in belt.done().values())
    topic = f"rejectd/v1/{LINE}/actuator/left/rejected"
    wait_for(
        lambda: [body["count"] for _, where, body in subscriber.messages if where == topic][-1:] == [stopped],
        "the count of the actuator arrives",
    )
    assert watched.stop() == 0
    belt.wait_state("fail-safe", 1)


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_killed_service_means_the_fail_safe_side_until_the_next_one_judges(
    script: str,
    watched: Line,
    subscriber: Subscriber,
    gateway: Callable[[str], Gateway],
    cells: list[Path],
    strange: Path,
) -> None:
    belt = gateway(script)
    _start(watched, belt)
    belt.feed([cells[0], strange, cells[1], cells[2]])
    killed = time.monotonic()
    watched.stop(signal.SIGKILL)
    assert belt.wait_state("fail-safe", HEARTBEAT_S + SLACK_S) - killed < HEARTBEAT_S + SLACK_S
    first = belt.fed + 1
    belt.feed([cells[3], cells[4], cells[5]])
    assert {belt.wait_done()[number]["do"] for number in range(first, first + 3)} == {STOPS[script]}
    watched.log.unlink()
    _start(watched, belt)
    first = belt.fed + 1
    belt.feed([cells[6], strange, cells[7], strange])
    _assert_rightly(belt, subscriber, range(first, first + 4))
    _assert_safe(belt, subscriber)
    assert _verdicts(subscriber)[first]["trigger"] == 1, "numbers have begun again"


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_service_that_hangs_without_dying_means_the_fail_safe_side_in_time(
    script: str,
    watched: Line,
    subscriber: Subscriber,
    gateway: Callable[[str], Gateway],
    cells: list[Path],
    strange: Path,
) -> None:
    watched.settings["mqtt"]["keepalive_s"] = 60  # the broker would find out far too late
    belt = gateway(script)
    _start(watched, belt)
    belt.feed([cells[0], strange, cells[1]])
    assert watched.process
    watched.process.send_signal(signal.SIGSTOP)
    hung = time.monotonic()
    belt.feed([cells[2 + number] for number in range(14)])
    assert belt.wait_state("fail-safe") - hung < HEARTBEAT_S + SLACK_S
    watched.process.send_signal(signal.SIGCONT)
    belt.wait_state("running")
    silence = [number for at, line in belt.said if (number := line.get("part")) and at - hung > HEARTBEAT_S + SLACK_S]
    assert all(belt.done()[number]["do"] == STOPS[script] for number in silence)
    time.sleep(TRAVEL_S)  # what waited in the hung service has got its verdicts, which fit no part
    first = belt.fed + 1
    belt.feed([cells[16], strange, cells[17], strange])
    _assert_rightly(belt, subscriber, range(first, first + 4))
    _assert_safe(belt, subscriber)


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_restarted_broker_means_the_fail_safe_side_until_all_are_connected_again(
    script: str,
    watched: Line,
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    gateway: Callable[[str], Gateway],
    cells: list[Path],
    strange: Path,
) -> None:
    belt = gateway(script)
    _start(watched, belt)
    belt.feed([cells[0], strange, cells[1]])
    lost = time.monotonic()
    mosquitto.stop(kill=True)
    assert belt.wait_state("fail-safe", 2) - lost < 1 + SLACK_S
    first = belt.fed + 1
    belt.feed([cells[2], strange, cells[3], cells[4], cells[5]])
    assert {belt.wait_done()[number]["do"] for number in range(first, first + 5)} == {STOPS[script]}
    mosquitto.start()
    belt.wait_state("running")
    wait_for(lambda: subscriber.status().get("in_flight") == 0, "the subscriber is back")
    first = belt.fed + 1
    belt.feed([cells[6], strange, cells[7], strange])
    _assert_rightly(belt, subscriber, range(first, first + 4))
    _assert_safe(belt, subscriber)


@pytest.fixture
def said(mosquitto: Mosquitto) -> Iterator[Said]:
    made = Said(mosquitto)
    yield made
    made.close()


@pytest.fixture
def running(said: Said, gateway: Callable[[str], Gateway]) -> Callable[[str], Gateway]:
    """Starts a gateway that believes that all is well for the next three seconds."""

    def start(script: str) -> Gateway:
        said.judges(retain=True)
        said.camera(CameraState.UP)
        started = gateway(script)
        wait_for(lambda: started.said, "the gateway has looked around")

        def runs() -> bool:
            said.judges()
            return started.state()[1] == "running"

        wait_for(runs, "the gateway is running", 5)
        return started

    return start


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_verdict_that_comes_twice_counts_once(script: str, said: Said, running: Callable[[str], Gateway]) -> None:
    belt = running(script)
    belt.part()
    said.verdict(Decision.PASS, 1)
    said.verdict(Decision.PASS, 1)
    said.judges()
    assert belt.wait_done()[1]["do"] == LETS_GO[script]


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_verdict_after_its_time_is_ignored(script: str, said: Said, running: Callable[[str], Gateway]) -> None:
    belt = running(script)
    belt.part()
    over = (datetime.now(UTC) - timedelta(seconds=0.01)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    said.verdict(Decision.PASS if script == RELEASE else Decision.REJECT, 1, valid_until=over)
    said.judges()
    line = belt.wait_done()[1]
    assert line["do"] == {RELEASE: "hold", REJECT: "pass"}[script]
    assert line["why"] in ("no verdict in time", "no reject")
    assert any(line.get("ignored") == "run-left-1" for _, line in belt.said)


def test_a_pass_whose_exposure_fits_no_part_or_another_one_than_its_number_releases_nothing(
    said: Said, running: Callable[[str], Gateway]
) -> None:
    belt = running(RELEASE)
    belt.part()
    said.verdict(Decision.PASS, 1, exposed=datetime.now(UTC) - timedelta(seconds=SPACING_S))
    said.verdict(Decision.PASS, 2, latency_ms=500)  # it says that it was decided later than it came: a wrong clock
    said.judges()
    assert belt.wait_done()[1] == {"part": 1, "do": "hold", "why": "no verdict in time"}


def test_two_different_verdicts_on_one_part_hold_it(said: Said, running: Callable[[str], Gateway]) -> None:
    belt = running(RELEASE)
    belt.part()
    said.verdict(Decision.PASS, 1, "run-left-1")
    said.verdict(Decision.PASS, 2, "run-left-2")
    said.judges()
    assert belt.wait_done()[1] == {"part": 1, "do": "hold", "why": "two verdicts"}


def test_a_reject_that_fits_no_part_ejects_what_is_on_the_way(said: Said, running: Callable[[str], Gateway]) -> None:
    belt = running(REJECT)
    belt.part()
    time.sleep(SPACING_S)  # the belt
    belt.part()
    time.sleep(SPACING_S)
    said.verdict(Decision.REJECT, 9)
    said.judges()
    assert [line["do"] for line in belt.wait_done().values()] == ["eject", "eject"]


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_part_that_must_stop_the_belt_stops_it(script: str, said: Said, running: Callable[[str], Gateway]) -> None:
    belt = running(script)
    belt.part()
    judged: dict[str, Any] = {
        "score": None,
        "threshold": None,
        "p_value": None,
        "bundle": None,
        "engine": None,
        "engine_ms": None,
    }
    said.verdict(Decision.UNJUDGED, 1, cause="late", **judged)
    said.judges()
    assert belt.wait_done()[1] == {"part": 1, "do": "stop", "why": "unjudged"}


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_a_line_that_does_not_judge_means_the_fail_safe_side(
    script: str, said: Said, running: Callable[[str], Gateway]
) -> None:
    belt = running(script)
    said.judges(judging=False)
    belt.wait_state("fail-safe", 1)


def test_a_retained_status_is_no_heartbeat(said: Said, gateway: Callable[[str], Gateway]) -> None:
    said.judges(retain=True)
    said.camera(CameraState.UP)
    belts = [gateway(RELEASE), gateway(REJECT)]
    for belt in belts:
        belt.wait_state("fail-safe")
        belt.part()
        belt.wait_done()
        assert [line["state"] for _, line in belt.said if "state" in line] == ["fail-safe"]


def test_without_a_heartbeat_for_three_seconds_the_fail_safe_side_is_taken(
    said: Said, running: Callable[[str], Gateway]
) -> None:
    belt = running(RELEASE)
    said.judges()
    last = time.monotonic()
    assert HEARTBEAT_S - SLACK_S < belt.wait_state("fail-safe", 5) - last < HEARTBEAT_S + SLACK_S


def test_rejecting_on_signal_wants_to_know_that_the_camera_sees(said: Said, running: Callable[[str], Gateway]) -> None:
    belt = running(REJECT)
    number = belt.part()
    said.camera(CameraState.DOWN)
    belt.wait_state("fail-safe", 1)
    said.camera(CameraState.UP)
    belt.wait_state("running", 1)
    said.judges()
    assert belt.wait_done()[number] == {"part": number, "do": "eject", "why": "fail-safe"}
    said.judges(run="run2")  # whose camera has not said yet that it is up
    belt.wait_state("fail-safe", 1)


def test_rejecting_on_signal_ejects_what_is_on_the_way_when_a_verdict_came_too_late_to_be_sent(
    said: Said, running: Callable[[str], Gateway]
) -> None:
    belt = running(REJECT)
    said.judges(unpublished=1)  # before these parts
    time.sleep(SPACING_S)
    first = belt.part()
    said.judges(unpublished=1)
    belt.wait_done()
    second = belt.part()
    said.judges(unpublished=2)
    said.judges(unpublished=2)
    done = belt.wait_done()
    assert done[first]["do"] == "pass"
    assert done[second] == {"part": second, "do": "eject", "why": "a verdict came too late to be sent"}


def test_the_access_list_on_the_page_lets_each_do_what_he_must_and_nobody_else_speak_for_the_line(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    page = (contract.MQTT / "README.md").read_text()
    rules = page[page.index("```\nuser rejectd") + 4 : page.index("```\nUse TLS")]
    access, users = tmp_path / "access", tmp_path / "users"
    access.write_text(rules)
    for number, user in enumerate(("rejectd", "plc", "operator")):
        made = subprocess.run(
            ["mosquitto_passwd", "-b", *(["-c"] if not number else []), users, user, user], capture_output=True
        )
        need_peer(made.returncode == 0, "mosquitto_passwd")
    users.chmod(0o600)
    access.chmod(0o600)
    broker = mosquitto_with(f"allow_anonymous false\npassword_file {users}\nacl_file {access}")
    writers = {
        line_topic("line1"): "rejectd",
        camera_topic("line1", "left"): "rejectd",
        verdict_topic("line1", "left", Decision.REJECT): "rejectd",
        verdict_topic("line1", "golden", Decision.REJECT): "rejectd",
        defect_topic("line1", "left"): "rejectd",
        answer_topic("line1"): "rejectd",
        f"{answer_topic('line1')}/mine": "rejectd",
        command_topic("line1", "pause"): "operator",
        actuator_topic("line1", "left"): "plc",
    }
    peers = {user: Peer(broker, user) for user in ("rejectd", "plc", "operator")}
    for topic, writer in writers.items():
        for user, peer in peers.items():
            assert peer.may_write(topic) == (user == writer), (user, topic)
    may_read = {
        "operator": set(writers),
        "rejectd": {command_topic("line1", "pause"), actuator_topic("line1", "left")},
        "plc": {topic for topic in writers if re.search(r"line1/(left/)?status|left/verdict", topic)},
    }
    for user, peer in peers.items():
        peer.wait_heard(may_read[user])
    for user, peer in peers.items():
        peer.close()
        assert peer.heard == may_read[user]


def test_the_examples_share_nothing_and_need_paho_alone() -> None:
    for script in (RELEASE, REJECT):
        text = (contract.MQTT / f"{script}.py").read_text()
        modules = {
            row.split()[1].partition(".")[0] for row in text.splitlines() if row.startswith(("import ", "from "))
        }
        assert modules - set(sys.stdlib_module_names) == {"paho"}
