"""The whole service as a process, against a real broker and real photographs."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from line import Line, Subscriber
from peers import Mosquitto, run_command, wait_for

pytestmark = pytest.mark.system


def _counts(verdicts: dict[str, dict[str, Any]]) -> Counter[str]:
    return Counter(verdict["decision"] for verdict in verdicts.values())


def _assert_same(subscriber: Subscriber, line: Line) -> None:
    """What the subscriber counted is what the ledger counted, and what the journal holds."""
    _assert_accounted(subscriber)
    status = subscriber.status()
    verdicts = subscriber.of("verdict")
    assert status["unpublished"] == 0
    assert {name: _counts(verdicts)[name] for name in ("pass", "reject", "unjudged")} == {
        name: status[name] for name in ("pass", "reject", "unjudged")
    }
    assert dict(line.journal("SELECT event_id, decision FROM verdict")) == {
        event_id: verdict["decision"] for event_id, verdict in verdicts.items()
    }


def _assert_accounted(subscriber: Subscriber) -> None:
    """Every captured frame has one end, and a verdict that did not reach the broker in time is counted."""
    wait_for(lambda: subscriber.status().get("state") == "offline", "the line says goodbye")
    status = subscriber.status()
    assert status["captured"] == status["pass"] + status["reject"] + status["unjudged"]
    assert status["captured"] == len(subscriber.of("verdict")) + status["unpublished"]
    assert status["in_flight"] == 0


def test_a_subscriber_receives_exactly_the_verdicts_that_the_ledger_counted(
    line: Line, subscriber: Subscriber, cells: list[Path], defective_cells: list[Path]
) -> None:
    line.folder("left", cells[:30], rate_hz=15, deadline_ms=10_000)
    line.folder("right", defective_cells[:30], rate_hz=15, deadline_ms=10_000)
    line.start("--until-ended")
    assert line.wait() == 0
    _assert_same(subscriber, line)
    verdicts = subscriber.of("verdict")
    assert len(verdicts) == 60
    assert {verdict["seq"] for verdict in verdicts.values() if verdict["camera"] == "left"} == set(range(1, 31))
    for received, topic, verdict in subscriber.messages:
        if "/verdict/" in topic:
            assert topic == f"rejectd/v1/t1/{verdict['camera']}/verdict/{verdict['decision']}"
            assert received <= datetime.fromisoformat(verdict["valid_until"]).timestamp()
            assert (verdict["score"] > verdict["threshold"]) == (verdict["decision"] == "reject")
    rejected = {event_id for event_id, verdict in verdicts.items() if verdict["decision"] != "pass"}
    assert set(subscriber.of("defect")) == rejected
    assert rejected, "defective cells are rejected"


def test_a_broker_restart_loses_no_verdict_that_is_still_valid(
    line: Line, subscriber: Subscriber, mosquitto: Mosquitto, cells: list[Path]
) -> None:
    line.folder("left", cells[:60], rate_hz=15, deadline_ms=20_000)
    line.start("--until-ended")
    wait_for(lambda: len(subscriber.of("verdict")) > 10, "verdicts arrive")
    mosquitto.stop()
    time.sleep(1.0)  # the outage that is tested
    assert line.metrics()["rejectd_broker_connected"] == 0
    mosquitto.start()
    assert line.wait() == 0
    wait_for(lambda: len(subscriber.of("verdict")) == 60, "all verdicts have arrived")
    _assert_same(subscriber, line)


def test_a_verdict_whose_deadline_passed_while_the_broker_was_away_is_never_sent_but_its_defect_event_is(
    line: Line, subscriber: Subscriber, mosquitto: Mosquitto, defective_cells: list[Path]
) -> None:
    line.folder("left", defective_cells[:60], rate_hz=10, deadline_ms=500)
    line.settings["products"]["cell"]["threshold"] = 0.001  # every part is a reject
    line.start()
    # between two frames: an acknowledgement that is lost on its way makes a verdict that arrived an unpublished one
    wait_for(lambda: len(subscriber.of("defect")) == len(subscriber.of("verdict")) > 5, "verdicts and events arrive")
    time.sleep(0.02)
    mosquitto.stop()
    time.sleep(4)  # the outage that is tested: a verdict that was sent after it would be 3.5 s late or more
    mosquitto.start()
    wait_for(lambda: len(subscriber.of("defect")) == 60, "every defect event arrives in the end", 30)
    unpublished = line.total("rejectd_verdicts_unpublished_total")
    assert line.stop() == 0
    assert unpublished >= 20
    assert len(subscriber.of("verdict")) == 60 - unpublished
    for received, topic, verdict in subscriber.messages:
        if "/verdict/" in topic:
            # for a subscriber that was away the broker keeps the time: a second at least, and it counts whole ones
            # only; the third second is for a subscriber that has to wait for a processor
            assert received <= math.floor(datetime.fromisoformat(verdict["valid_until"]).timestamp()) + 3.1
    numbers = [payload["event_seq"] for _, topic, payload in subscriber.messages if topic.endswith("/defect")]
    assert sorted(set(numbers)) == list(range(1, 61))


def test_sigterm_under_load_answers_every_frame_and_says_goodbye(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    for name in ("left", "middle", "right"):
        line.folder(name, cells[:20], rate_hz=80, loop=True, deadline_ms=1500)  # a batch takes long beside all that
    line.settings["batch"] = {"queue_per_camera": 3}
    line.settings["engine"] = {"threads": 1}
    line.settings["stop_timeout_s"] = 10
    line.start()
    wait_for(lambda: line.total("rejectd_verdicts_total") > 500, "verdicts under overload", 40)
    started = time.monotonic()
    assert line.stop() == 0
    assert time.monotonic() - started < 10
    _assert_accounted(subscriber)
    ends = Counter(verdict["cause"] for verdict in subscriber.of("verdict").values())
    assert ends["overload"] > 0
    assert ends[None] > 0, "overload does not keep the model from judging what it can"


def test_a_killed_service_leaves_its_last_will_and_the_next_one_goes_on(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.settings["mqtt"]["keepalive_s"] = 1
    line.folder("left", cells[:20], rate_hz=10, loop=True)
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 5, "verdicts arrive")
    first_run = subscriber.status()["run"]
    line.stop(signal.SIGKILL)
    wait_for(lambda: subscriber.status()["state"] == "offline", "the last will arrives")
    line.log.unlink()
    line.start()
    wait_for(lambda: subscriber.status()["state"] == "online", "the next service is born")
    assert subscriber.status()["run"] != first_run
    assert line.stop() == 0


def test_the_metrics_balance_at_every_scrape(line: Line, cells: list[Path]) -> None:
    line.folder("left", cells[:20], rate_hz=60, loop=True)
    line.folder("right", cells[20:40], rate_hz=60, loop=True)
    line.start()
    seen = set()
    for _ in range(40):
        samples = line.metrics()
        sums = {
            name: sum(value for key, value in samples.items() if key.split("{")[0] == name)
            for name in ("rejectd_frames_captured_total", "rejectd_verdicts_total", "rejectd_frames_in_flight")
        }
        assert (
            sums["rejectd_frames_captured_total"] == sums["rejectd_verdicts_total"] + sums["rejectd_frames_in_flight"]
        )
        seen.add(sums["rejectd_frames_captured_total"])
    assert len(seen) > 3, "the scrapes saw a line at work"
    assert line.metrics()["rejectd_camera_up{camera=left}"] == 1
    assert line.stop() == 0


def test_the_service_gives_a_picture_the_score_that_predict_gives_it_also_in_colour(
    line: Line, subscriber: Subscriber, bundle: Path, cells: list[Path], tmp_path: Path
) -> None:
    pictures = []
    for number, cell in enumerate(cells[:6]):
        grey = cv2.imread(str(cell), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        coloured = np.stack([grey, grey // 2, 255 - grey], axis=-1)  # red and blue differ everywhere
        pictures.append(tmp_path / f"coloured{number}.png")
        cv2.imwrite(str(pictures[-1]), coloured)
    line.folder("left", pictures, rate_hz=50, deadline_ms=60_000)
    line.start("--until-ended")
    assert line.wait() == 0
    predicted = [json.loads(row) for row in run_command("revdist", "predict", bundle, *pictures).stdout.splitlines()]
    served = {int(verdict["source"][:4]): verdict for verdict in subscriber.of("verdict").values()}
    for number, prediction in enumerate(predicted):
        assert served[number]["score"] == pytest.approx(prediction["score"], rel=1e-5)
        assert served[number]["p_value"] == pytest.approx(prediction["p_value"])
        assert served[number]["decision"] == prediction["decision"]


def test_broken_pictures_end_as_unjudged_with_their_name_and_the_others_are_judged(
    line: Line, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    truncated, empty, text = tmp_path / "truncated.png", tmp_path / "empty.png", tmp_path / "text.png"
    truncated.write_bytes(cells[0].read_bytes()[:2000])
    empty.touch()
    text.write_text("not a picture")
    line.folder("left", [cells[0], truncated, empty, text, cells[1]], rate_hz=20, deadline_ms=10_000)
    line.start("--until-ended")
    assert line.wait() == 0
    _assert_same(subscriber, line)
    by_source = {verdict["source"]: verdict for verdict in subscriber.of("verdict").values()}
    for name in ("0001.png", "0002.png", "0003.png"):
        assert by_source[name]["cause"] == "camera_fault"
        assert by_source[name]["action"] == "reject"
        assert by_source[name]["detail"]
    good = {by_source["0000.png"]["cause"], by_source["0004.png"]["cause"]}
    assert None in good, "whole pictures are judged"
    assert good <= {None, "late"}, "or late on a busy machine"


def test_sighup_takes_over_a_threshold_and_the_log_level_without_a_restart(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.folder("left", cells[:10], rate_hz=20, loop=True)
    line.start()
    assert line.process
    wait_for(lambda: subscriber.of("verdict"), "verdicts arrive")
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.settings["log_level"] = "debug"
    line.write()
    line.process.send_signal(signal.SIGHUP)
    wait_for(lambda: subscriber.messages[-1][2].get("threshold") == 0.0005, "the new threshold is in force")
    line.file.write_text("line: [")
    line.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings not reloaded" in line.log.read_text(), "a broken file changes nothing")
    count = len(subscriber.of("verdict"))
    wait_for(lambda: len(subscriber.of("verdict")) > count, "verdicts go on")
    assert line.stop() == 0


def test_evidence_of_a_reject_shows_where_the_defect_is(
    line: Line, subscriber: Subscriber, defective_cells: list[Path]
) -> None:
    line.folder("left", defective_cells[:5], rate_hz=10, deadline_ms=10_000)
    line.settings["products"]["cell"]["threshold"] = 0.001
    line.start("--until-ended")
    assert line.wait() == 0
    wait_for(lambda: len(subscriber.of("defect")) == 5, "defect events arrive")
    for event_id, defect in subscriber.of("defect").items():
        picture = line.directory / "state" / "evidence" / defect["evidence"]
        heat_map = picture.with_name(f"{event_id}-heat.jpg")
        assert cv2.imread(str(picture)).shape == cv2.imread(str(heat_map)).shape == (300, 300, 3)
        assert defect["regions"]
        for x, y, width, height in defect["regions"]:
            assert 0 <= x < x + width <= 300
            assert 0 <= y < y + height <= 300


def test_a_wrong_teacher_and_a_truncated_bundle_stop_the_start_with_what_to_do(
    line: Line, bundle: Path, cells: list[Path], tmp_path: Path
) -> None:
    line.folder("left", cells[:1])
    truncated = tmp_path / "truncated"
    shutil.copytree(bundle, truncated)
    weights = truncated / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    line.settings["products"]["cell"]["bundle"] = str(truncated)
    made = run_command("rejectd", "run", line.write())
    assert made.returncode == 2
    assert "student.safetensors" in made.stderr
    assert "copy" in made.stderr
    checked = run_command("rejectd", "check", line.file)
    assert checked.returncode == 1
    assert "FAIL  product cell" in checked.stdout
    assert "ok    camera left: 300 x 300 pixels" in checked.stdout

    line.settings["products"]["cell"]["bundle"] = str(bundle)
    (tmp_path / "other.pth").write_bytes(b"not weights")
    line.settings["engine"] = {"teacher_weights": str(tmp_path / "other.pth")}
    made = run_command("rejectd", "run", line.write())
    assert made.returncode == 2
    assert "other.pth" in made.stderr
    assert "Traceback" not in made.stderr


def test_a_metrics_port_in_use_is_said_at_the_start(line: Line, mosquitto: Mosquitto, cells: list[Path]) -> None:
    line.folder("left", cells[:1])
    line.settings["metrics"]["port"] = mosquitto.port
    made = run_command("rejectd", "run", line.write())
    assert made.returncode == 2
    assert f"127.0.0.1:{mosquitto.port}" in made.stderr
    assert "choose another metrics.port" in made.stderr
