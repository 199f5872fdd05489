"""`rejectd account`: a shift that the PLC counted too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from line import Line, Operator, Subscriber
from peers import run_command, wait_for

pytestmark = pytest.mark.system


def _account(line: Line, *options: str) -> tuple[int, dict[str, Any]]:
    made = run_command("rejectd", "account", line.file, "--json", "--travel", "0", *options)
    assert made.stdout, made.stderr
    return made.returncode, json.loads(made.stdout)


def _executed(subscriber: Subscriber) -> int:
    """How many parts the PLC was told to reject."""
    return sum(verdict["action"] == "reject" for verdict in subscriber.of("verdict").values())


def test_the_account_of_a_shift_agrees_with_the_subscriber_and_the_plc(
    line: Line, subscriber: Subscriber, operator: Operator, cells: list[Path], defective_cells: list[Path]
) -> None:
    pictures = [picture for pair in zip(cells[:15], defective_cells[:15], strict=True) for picture in pair]
    line.folder("left", pictures, rate_hz=15, deadline_ms=2000)
    line.start()
    operator.publish("actuator/left/rejected", {"count": 1000})  # a counter that has run for long
    wait_for(lambda: len(subscriber.of("verdict")) == 30, "all parts have passed")
    told = _executed(subscriber)
    assert told > 0
    wait_for(lambda: line.metrics()["rejectd_capture_to_publish_seconds_count{camera=left}"] == 30, "acknowledged")
    last = max(verdict["valid_until"] for verdict in subscriber.of("verdict").values())
    wait_for(lambda: subscriber.status()["at"] > last, "the last part has left")
    operator.publish("actuator/left/rejected", 1000 + told)
    wait_for(lambda: line.journal("SELECT count(*) FROM actuator") == [(2,)], "the count is noted")
    samples = line.metrics()
    assert samples["rejectd_reject_orders_total{camera=left}"] == told
    assert samples["rejectd_actuator_rejects_total{camera=left}"] == told, "what it had before the run does not count"
    assert line.stop() == 0

    status, found = _account(line, "--since", "10m")
    left = found["cameras"]["left"]
    counts = subscriber.status()
    assert (left["captured"], left["judged"], left["acknowledged"]) == (30, counts["pass"] + counts["reject"], 30)
    assert (left["pass"], left["reject"], left["missing"]) == (counts["pass"], counts["reject"], 0)
    assert left["actuator"]["counted"] == told
    assert left["actuator"]["agrees"]
    judged_all = counts["unjudged"] == 0 and left["overdue"] + left["undelivered"] == 0
    assert status == (0 if judged_all else 1), found["remarks"]
    made = run_command("rejectd", "account", line.file, "--travel", "0")
    assert made.returncode == status
    assert f"left: the PLC counted {told} rejects, it was told {told}" in made.stdout
    status, empty = _account(line, "--since", "9d", "--until", "8d")
    assert (status, empty["cameras"], empty["remarks"]) == (1, {}, ["no part was captured in this time"])


def test_a_shift_with_parts_that_were_not_inspected_says_so_in_one_sentence_and_by_its_exit_status(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.folder("left", cells[:4], rate_hz=20, deadline_ms=2000)
    (line.directory / "pictures" / "left" / "0002.png").write_bytes(b"no picture")
    line.start("--until-ended")
    assert line.wait() == 0
    counts = subscriber.status()
    made = run_command("rejectd", "account", line.file)
    assert made.returncode == 1
    assert f"{counts['unjudged']} of 4 parts were not inspected, " in made.stdout
    assert "camera_fault" in made.stdout


def test_neither_account_nor_check_makes_a_journal(line: Line, cells: list[Path]) -> None:
    line.folder("left", cells[:1])
    state = line.directory / "elsewhere"
    line.settings["state_directory"] = str(state)
    made = run_command("rejectd", "account", line.write())
    assert (made.returncode, made.stdout) == (2, "")
    assert f"{state}/journal.sqlite: there is no journal" in made.stderr
    checked = run_command("rejectd", "check", line.file)
    assert f"ok    journal: {state}/journal.sqlite will be created" in checked.stdout
    assert not state.exists()


def test_a_plc_that_missed_a_reject_is_found_out(
    line: Line, subscriber: Subscriber, operator: Operator, defective_cells: list[Path]
) -> None:
    line.folder("left", defective_cells[:10], rate_hz=20, deadline_ms=1500)
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.start()
    operator.publish("actuator/left/rejected", {"count": 0})
    operator.publish("actuator/left/rejected", "nonsense")
    operator.publish("actuator/left/rejected", {"count": -1})
    wait_for(lambda: len(subscriber.of("verdict")) == 10, "all parts have passed")
    last = max(verdict["valid_until"] for verdict in subscriber.of("verdict").values())
    wait_for(lambda: subscriber.status()["at"] > last, "the last part has left")
    operator.publish("actuator/left/rejected", {"count": 9})
    wait_for(lambda: line.journal("SELECT count(*) FROM actuator") == [(2,)], "the count is noted")
    assert line.stop() == 0
    status, found = _account(line)
    assert status == 1
    assert found["cameras"]["left"]["actuator"]["counted"] == 9
    assert not found["good"]
    made = run_command("rejectd", "account", line.file, "--travel", "0")
    assert "the PLC counted 9 rejects, it was told 10: DIFFERS" in made.stdout


def test_what_cannot_be_accounted_for_is_said(line: Line, cells: list[Path]) -> None:
    line.folder("left", cells[:1])
    made = run_command("rejectd", "account", line.write())
    assert made.returncode == 2
    assert "there is no journal" in made.stderr
    made = run_command("rejectd", "account", line.file, "--since", "yesterday")
    assert made.returncode == 2
    assert "a time ago such as 90m, 8h, 2d" in made.stderr
