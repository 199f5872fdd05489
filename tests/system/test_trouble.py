"""Brokers that are away, full, or say no, and clocks that jump: nothing is lost, and the state is clear."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from line import Line, Operator, Subscriber
from peers import Mosquitto, need_peer, run_command, wait_for

pytestmark = pytest.mark.system


def _defect_numbers(subscriber: Subscriber) -> Counter[int]:
    return Counter(payload["event_seq"] for _, topic, payload in subscriber.messages if topic.endswith("/defect"))


@pytest.mark.long
def test_a_broker_that_is_away_for_long_under_load_costs_no_event_and_no_late_verdict_is_sent(
    line: Line, subscriber: Subscriber, mosquitto: Mosquitto, cells: list[Path]
) -> None:
    for name in ("left", "right"):
        line.folder(name, cells[:20], rate_hz=20, loop=True, deadline_ms=800)
    line.settings["products"]["cell"]["threshold"] = 0.0005  # every part that is judged is a reject
    line.settings["evidence"] = {"enabled": False}
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 20, "verdicts arrive")
    mosquitto.stop()
    before = line.total("rejectd_frames_captured_total")
    time.sleep(12)  # the outage that is tested
    assert line.total("rejectd_frames_captured_total") > before + 200, "the line goes on"
    assert line.metrics()["rejectd_broker_connected"] == 0
    assert line.metrics()["rejectd_outbox_events"] > 200
    mosquitto.start()
    wait_for(lambda: line.metrics()["rejectd_broker_connected"] == 1, "the broker is back")
    assert line.stop() == 0
    wait_for(
        lambda: subscriber.status().get("state") == "offline" and "reject" in subscriber.status(), "goodbye is said"
    )
    status = subscriber.status()  # with the account: the last will, which the old broker sent, has none
    ended = status["reject"] + status["unjudged"]
    assert (status["captured"], status["pass"]) == (ended, 0)
    assert status["captured"] == len(subscriber.of("verdict")) + status["unpublished"]
    assert line.journal("SELECT count(*) FROM verdict") == [(ended,)]
    assert set(_defect_numbers(subscriber)) == set(range(1, ended + 1)), "every defect event arrived, in the end"
    not_acknowledged = line.journal("SELECT count(*) FROM verdict WHERE acknowledged_ms IS NULL")[0][0]
    assert not_acknowledged == status["unpublished"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "rejectd-test", str(directory)]
    need_peer(os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0, "mounting a small disk")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_events_that_a_broker_with_a_full_disk_forgot_are_replayed_to_whoever_sees_the_gap(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], small_disk: Path, defective_cells: list[Path]
) -> None:
    broker = mosquitto_with("allow_anonymous true")
    broker.stop()
    config = broker.directory / "mosquitto.conf"
    config.write_text(
        config.read_text().replace(f"persistence_location {broker.directory}", f"persistence_location {small_disk}")
    )
    broker.start()
    Subscriber(broker.port).close()  # the broker keeps from now on what comes while it is away
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(1024)):
            pass
    line.settings["mqtt"]["port"] = broker.port
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.folder("left", defective_cells[:12], rate_hz=20, deadline_ms=10_000)
    line.start()
    wait_for(
        lambda: line.journal("SELECT count(*) FROM event WHERE acknowledged_unix_ns > 0") == [(12,)], "acknowledged"
    )
    broker.stop(kill=True)  # what it acknowledged was nowhere but in its memory
    (small_disk / "ballast").unlink()
    (small_disk / "mosquitto.db").unlink(
        missing_ok=True
    )  # cut short by the full disk, mosquitto does not start with it
    broker.start()
    subscriber = Subscriber(broker.port)
    operator = Operator(broker.port)
    wait_for(lambda: line.metrics()["rejectd_broker_connected"] == 1, "the line is connected again")
    assert len(_defect_numbers(subscriber)) < 12, "the broker forgot acknowledged events"
    assert operator.ask("replay", from_seq=1)["result"]["events"] == 12
    wait_for(lambda: set(_defect_numbers(subscriber)) == set(range(1, 13)), "all events are there")
    assert line.stop() == 0
    operator.close()
    subscriber.close()


def test_a_wrong_password_is_said_once_and_everything_arrives_when_it_is_right(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], defective_cells: list[Path], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    for option, user, password in (("-c", "line", "old"), ("", "plc", "plc")):
        arguments = [word for word in ("mosquitto_passwd", option, "-b", str(passwords), user, password) if word]
        subprocess.run(arguments, check=True, capture_output=True)
    passwords.chmod(0o644)
    broker = mosquitto_with(f"allow_anonymous false\npassword_file {passwords}")
    subscriber = Subscriber(broker.port, credentials=("plc", "plc"))
    (tmp_path / "secret").write_text("s3cret-of-the-line\n")
    line.settings["mqtt"] |= {"port": broker.port, "username": "line", "password_file": str(tmp_path / "secret")}
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.folder("left", defective_cells[:10], rate_hz=20, deadline_ms=500)
    line.start()
    wait_for(lambda: line.metrics()["rejectd_outbox_events"] == 10, "events wait")
    time.sleep(1.5)  # several attempts
    log = line.log.read_text()
    assert log.count("Not authorized") + log.count("Bad user name or password") == 1
    assert "check mqtt.username, mqtt.password_file" in log
    assert "s3cret-of-the-line" not in log
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "line", "s3cret-of-the-line"], check=True)
    broker.reload()
    wait_for(lambda: set(_defect_numbers(subscriber)) == set(range(1, 11)), "every event arrives")
    assert subscriber.of("verdict") == {}, "verdicts that expired meanwhile are never sent"
    assert line.stop() == 0
    subscriber.close()


def test_a_clock_that_jumps_by_years_loses_nothing_and_moves_no_deadline(
    line: Line, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    step = tmp_path / "step"
    step.write_text("0")
    line.folder("left", cells[:20], rate_hz=20, loop=True, deadline_ms=10_000)
    line.settings["journal"] = {"keep_days": 1}
    script = Path(__file__).parents[1] / "support" / "stepping_clock.py"
    line.start(program=[sys.executable, str(script), str(step)])

    def causes() -> Counter[str | None]:
        return Counter(verdict["cause"] for verdict in subscriber.of("verdict").values())

    for seconds in (400 * 86_400, -400 * 86_400, 3600, 0):
        step.write_text(str(seconds))
        count = causes()[None]
        wait_for(lambda count=count: causes()[None] > count + 15, f"parts are judged {seconds} s away")
    assert line.total("rejectd_deadlines_missed_total") <= causes()["late"]
    assert line.stop() == 0
    wait_for(lambda: subscriber.status().get("state") == "offline", "the line says goodbye")
    status = subscriber.status()
    assert status["captured"] == len(subscriber.of("verdict")) == line.journal("SELECT count(*) FROM verdict")[0][0]
    assert set(causes()) <= {None, "stopping", "late"}
    assert causes()["late"] < causes()[None], "late is what a busy machine makes; a deadline that moved makes all late"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_services_of_one_name_back_off_and_both_say_in_log_and_status_what_is_wrong(
    line: Line,
    subscriber: Subscriber,
    mosquitto: Mosquitto,
    bundle: Path,
    cells: list[Path],
    tmp_path: Path,
    protocol: str,
) -> None:
    (tmp_path / "twin").mkdir()
    twin = Line(tmp_path / "twin", bundle, mosquitto.port)
    for each in (line, twin):
        each.folder("left", cells[:5], rate_hz=5, loop=True, deadline_ms=10_000)
        each.settings["mqtt"] |= {"protocol": protocol, "retry_max_s": 2}
        each.start()
    try:
        said = "another client uses this identifier, rejectd-t1"
        for each in (line, twin):
            wait_for(lambda each=each: said in each.log.read_text(), "the log says it")
        wait_for(lambda: any(said in text for text in subscriber.status().get("problems", [])), "the status says it")
        before, began = _connects(mosquitto), time.monotonic()
        wait_for(lambda: time.monotonic() > began + 10, "some time passes")  # the storm that is looked for
        assert _connects(mosquitto) - before <= 15, "in 10 s, with pauses of 2 s"
        assert all(each.log.read_text().count(said) <= 8 for each in (line, twin))
        assert twin.stop() == 0
        wait_for(lambda: line.metrics()["rejectd_broker_connected"] == 1, "one alone has its connection")
        count = len(subscriber.of("verdict"))
        wait_for(lambda: len(subscriber.of("verdict")) > count + 5, "verdicts arrive again")
        assert line.stop() == 0
    finally:
        if twin.process and twin.process.poll() is None:
            twin.process.kill()
            twin.process.wait(timeout=10)


def test_a_broker_that_takes_small_messages_gets_small_snapshots_and_is_not_connected_to_again_and_again(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], cells: list[Path]
) -> None:
    broker = mosquitto_with("allow_anonymous true\nmax_packet_size 6000")
    subscriber, operator = Subscriber(broker.port), Operator(broker.port)
    line.settings["mqtt"]["port"] = broker.port
    line.folder("left", cells[:20], rate_hz=10, loop=True, deadline_ms=10_000)
    line.start()
    wait_for(lambda: subscriber.of("verdict"), "parts pass")
    for _ in range(5):
        answer = operator.ask("snapshot", camera="left")
        assert answer["ok"], answer
        assert 500 < len(answer["result"]["jpeg"]) < 6000
    assert _connects(broker) <= 2, "once to ask for the version, once to stay"
    assert line.total("rejectd_messages_too_large_total") == 0
    assert line.stop() == 0
    subscriber.close()
    operator.close()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_password_file_in_another_encoding_stops_no_line_and_is_taken_over_once_it_is_mended(
    line: Line, mosquitto: Mosquitto, cells: list[Path], tmp_path: Path, encoding: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes("geheim-ß1\r\n".encode(encoding))
    line.settings["mqtt"] |= {"username": "line", "password_file": str(secret)}
    line.folder("left", cells[:20], rate_hz=10, loop=True, deadline_ms=500)
    checked = run_command("rejectd", "check", line.write())
    assert f"FAIL  broker: {secret}: cannot be read: is not UTF-8 text" in checked.stdout
    assert "Traceback" not in checked.stdout + checked.stderr
    line.start()
    wait_for(lambda: line.total("rejectd_verdicts_total") > 10, "parts are judged")
    assert line.log.read_text().count("is not UTF-8 text") == 1
    assert "geheim" not in line.log.read_text()
    secret.write_text("geheim-ß1\n", encoding="utf-8-sig")
    wait_for(lambda: line.metrics()["rejectd_broker_connected"] == 1, "the mended file is taken over")
    assert line.stop() == 0


def test_check_of_a_line_that_runs_finds_its_port_its_evidence_and_its_rights(
    line: Line, mosquitto: Mosquitto, cells: list[Path]
) -> None:
    line.folder("left", cells[:5], rate_hz=5, loop=True, deadline_ms=10_000, region=[0, 0, 5000, 100])
    line.start()
    checked = run_command("rejectd", "check", line.file).stdout.splitlines()
    assert f"ok    metrics: 127.0.0.1:{line.metrics_port} is served by this line's service already" in checked
    assert f"ok    broker: 127.0.0.1:{mosquitto.port} speaks MQTT 5, lets the service publish and hear" in checked
    assert any(said.startswith("ok    evidence: ") and "can be written" in said for said in checked)
    assert any(
        said.startswith("FAIL  camera left: the region [0, 0, 5000, 100] exceeds the picture") for said in checked
    )
    assert line.stop() == 0


def _connects(broker: Mosquitto) -> int:
    """How often the service has connected."""
    log = (broker.directory / "mosquitto.log").read_text()
    return sum("New client connected" in entry and "as rejectd-t1 " in entry for entry in log.splitlines())
