"""What a line is asked over MQTT, while parts pass: the real service, a real broker, real photographs."""

from __future__ import annotations

import base64
import json
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from line import ROOT, Line, Operator, Subscriber
from peers import Mosquitto, run_command, wait_for

pytestmark = pytest.mark.system


@pytest.fixture
def running(line: Line, bundle: Path, other_bundle: Path, cells: list[Path], tmp_path: Path) -> Line:
    """A line with two cameras and two products at work. Beside the bundle of `cell` lies another one for it."""
    bundles = tmp_path / "bundles"
    shutil.copytree(bundle, bundles / "cell")
    shutil.copytree(other_bundle, bundles / "other")
    line.settings["products"] = {
        "cell": {"bundle": str(bundles / "cell")},
        "wafer": {"bundle": str(bundles / "other")},
    }
    line.folder("left", cells[:20], rate_hz=15, loop=True, deadline_ms=10_000)
    line.folder("right", cells[20:40], rate_hz=15, loop=True, deadline_ms=10_000)
    line.start()
    return line


def _verdicts(subscriber: Subscriber, camera: str) -> list[dict[str, Any]]:
    """In the order of capture."""
    found = [verdict for verdict in subscriber.of("verdict").values() if verdict["camera"] == camera]
    return sorted(found, key=lambda verdict: verdict["seq"])


def _judged(subscriber: Subscriber, camera: str) -> list[dict[str, Any]]:
    """Those that the model was asked for; on a machine with other work some parts are late, and say no bundle."""
    return [verdict for verdict in _verdicts(subscriber, camera) if verdict["cause"] is None]


def _assert_nothing_lost(line: Line, subscriber: Subscriber) -> None:
    assert line.stop() == 0
    wait_for(lambda: subscriber.status().get("state") == "offline", "the line says goodbye")
    status = subscriber.status()
    verdicts = subscriber.of("verdict").values()
    assert status["captured"] == status["pass"] + status["reject"] + status["unjudged"] == len(verdicts)
    for camera in ("left", "right"):
        numbers = [verdict["seq"] for verdict in _verdicts(subscriber, camera)]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_changeover_under_load_loses_no_frame_and_switches_between_two_of_them(
    running: Line, subscriber: Subscriber, operator: Operator
) -> None:
    wait_for(lambda: len(_judged(subscriber, "left")) > 10, "parts are judged")
    answer = operator.ask("product", product="wafer", cameras=["left"])
    assert answer["ok"], answer
    assert answer["result"]["cameras"] == {"left": {"before": "cell", "after": "wafer"}}
    assert {picture["kind"] for picture in answer["result"]["golden"]} == {"good", "scratch"}
    count = len(_verdicts(subscriber, "left"))
    wait_for(lambda: len(_verdicts(subscriber, "left")) > count + 20, "parts of the new product pass")
    wait_for(lambda: _judged(subscriber, "left")[-1]["product"] == "wafer", "they are judged")
    assert subscriber.status()["products"] == {"left": "wafer", "right": "cell"}
    _assert_nothing_lost(running, subscriber)
    products = [verdict["product"] for verdict in _verdicts(subscriber, "left")]
    switch = products.index("wafer")
    assert set(products[:switch]) == {"cell"}
    assert set(products[switch:]) == {"wafer"}
    assert {verdict["product"] for verdict in _verdicts(subscriber, "right")} == {"cell"}
    bundles = {(verdict["product"], verdict["bundle"]) for verdict in _judged(subscriber, "left")}
    assert len(bundles) == len(dict(bundles)) == 2, "no part was judged by the other product's bundle"
    assert dict(bundles)["wafer"] == answer["result"]["bundle"]
    causes = Counter(verdict["cause"] for verdict in subscriber.of("verdict").values())
    assert causes[None] > 20
    assert set(causes) <= {None, "stopping", "late"}, "a changeover is no cause; late is what a busy machine makes"


def test_a_new_bundle_for_the_same_product_goes_in_force_while_parts_pass_and_survives_a_kill(
    running: Line, subscriber: Subscriber, operator: Operator
) -> None:
    wait_for(lambda: len(_judged(subscriber, "left")) > 5, "parts are judged")
    answer = operator.ask("product", product="cell", bundle="other")
    assert answer["ok"], answer
    new = answer["result"]["bundle"]
    wait_for(lambda: _judged(subscriber, "left")[-1]["bundle"] == new, "parts are judged by the new bundle")
    samples = running.metrics()
    assert [
        key for key in samples if key.startswith("rejectd_bundle_info") and f"digest={new}" in key and "=cell" in key
    ]
    running.stop(signal.SIGKILL)
    running.log.unlink()
    running.start()
    assert "still in force: " in running.log.read_text()
    run = subscriber.status
    wait_for(lambda: run().get("state") == "online", "the line is back")

    def again() -> list[dict[str, Any]]:
        return [verdict for verdict in _judged(subscriber, "left") if verdict["event_id"].startswith(run()["run"])]

    wait_for(lambda: len(again()) > 5, "parts are judged again")
    assert {verdict["bundle"] for verdict in again()} == {new}
    assert running.stop() == 0


@pytest.mark.parametrize("wrong", ["absent", "truncated", "disagrees"])
def test_a_changeover_that_fails_changes_nothing(
    running: Line, subscriber: Subscriber, operator: Operator, wrong: str
) -> None:
    place = Path(running.settings["products"]["cell"]["bundle"])
    broken = place.with_name("broken")
    if wrong != "absent":
        shutil.copytree(place, broken)
    if wrong == "truncated":
        weights = broken / "student.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    if wrong == "disagrees":
        manifest = json.loads((broken / "bundle.json").read_text())
        manifest["golden"][0]["score"] *= 1.5
        (broken / "bundle.json").write_text(json.dumps(manifest))
    wait_for(lambda: _judged(subscriber, "left"), "parts are judged on the left")
    before = _judged(subscriber, "left")[0]["bundle"]
    answer = operator.ask("product", product="cell", bundle="broken")
    assert not answer["ok"]
    expected = {"absent": "is not a bundle", "truncated": "student.safetensors", "disagrees": "computes otherwise"}
    assert expected[wrong] in answer["error"]
    count = len(_judged(subscriber, "left"))
    wait_for(lambda: len(_judged(subscriber, "left")) > count + 5, "parts are judged as before")
    _assert_nothing_lost(running, subscriber)
    judged = _judged(subscriber, "left") + _judged(subscriber, "right")
    assert {verdict["bundle"] for verdict in judged} == {before}


def test_threshold_pause_and_resume_hold_at_once_and_are_shown(
    running: Line, subscriber: Subscriber, operator: Operator
) -> None:
    wait_for(lambda: len(_verdicts(subscriber, "left")) > 5, "parts pass")
    answer = operator.ask("threshold", product="cell", threshold=0.0005)
    assert answer["result"]["after"] == 0.0005
    wait_for(lambda: _verdicts(subscriber, "left")[-1]["decision"] == "reject", "every part is a reject")
    assert operator.ask("threshold", product="cell", threshold=None)["result"]["after"] == answer["result"]["before"]

    assert operator.ask("pause", cameras=["left"], action="pass")["result"] == {"paused": ["left"]}
    wait_for(lambda: subscriber.status().get("paused") == ["left"], "the pause is shown")
    wait_for(lambda: _verdicts(subscriber, "left")[-1]["cause"] == "paused", "parts are not inspected")
    paused = _verdicts(subscriber, "left")[-1]
    assert (paused["decision"], paused["action"]) == ("unjudged", "pass")
    assert "paused" not in {verdict["cause"] for verdict in _verdicts(subscriber, "right")}
    assert operator.ask("resume")["result"] == {"paused": []}
    wait_for(lambda: _verdicts(subscriber, "left")[-1]["cause"] is None, "parts are inspected again")
    _assert_nothing_lost(running, subscriber)


def test_no_bundle_is_ever_judged_by_a_threshold_that_was_ordered_for_another(
    running: Line, subscriber: Subscriber, operator: Operator
) -> None:
    wait_for(lambda: len(_verdicts(subscriber, "left")) > 5, "parts pass")
    ordered = operator.ask("threshold", product="cell", threshold=1.2)["result"]
    answer = operator.ask("product", product="cell", bundle="other")
    assert answer["ok"], answer
    said = answer["result"]["threshold"]
    assert (said["before"], said["source"]) == (1.2, "calibration")
    assert said["after"] == said["calibrated"] != ordered["calibrated"]
    assert "the threshold 1.2 was ordered for bundle" in said["why"]
    back = operator.ask("product", product="cell", bundle="cell")["result"]["threshold"]
    assert back["after"] == ordered["calibrated"]
    assert operator.ask("product", product="cell", bundle="other")["ok"]
    running.stop(signal.SIGKILL)
    running.start()
    count = len(subscriber.of("verdict"))
    wait_for(lambda: len(subscriber.of("verdict")) > count + 5, "parts pass again")
    _assert_threshold_is_that_of_the_bundle(subscriber, {1.2, said["after"], ordered["calibrated"]}, answer["result"])
    assert running.stop() == 0


def _assert_threshold_is_that_of_the_bundle(
    subscriber: Subscriber, known: set[float], changeover: dict[str, Any]
) -> None:
    judged = [verdict for verdict in subscriber.of("verdict").values() if verdict["bundle"]]
    assert {verdict["threshold"] for verdict in judged} <= known
    new = {verdict["threshold"] for verdict in judged if verdict["bundle"] == changeover["bundle"]}
    assert new == {changeover["threshold"]["calibrated"]}


def test_known_pictures_go_through_the_whole_path_and_fire_no_ejector(
    running: Line, subscriber: Subscriber, operator: Operator
) -> None:
    wait_for(lambda: subscriber.of("verdict"), "parts pass")
    answer = operator.ask("golden", product="cell")
    pictures = answer["result"]["pictures"]
    assert {picture["kind"] for picture in pictures} == {"good", "scratch"}
    for picture in pictures:
        assert picture["score"] == pytest.approx(picture["expected"], rel=2e-3)
        assert 0 < picture["latency_ms"] < 10_000
        right = {"good": "pass", "scratch": "reject"}[picture["kind"]]
        assert picture["good"] == (picture["decision"] == right)
    assert answer["ok"] == all(picture["good"] for picture in pictures)
    shown = [topic for _, topic, payload in subscriber.messages if payload.get("camera") == "golden"]
    assert len(shown) == len(pictures)
    assert all(topic.startswith(f"{ROOT}/command/golden/verdict/") for topic in shown)
    threshold = operator.ask("threshold", product="cell", threshold=1000)
    assert threshold["ok"]
    blind = operator.ask("golden", product="cell")
    assert not blind["ok"]
    assert "scratch picture of cell ended as pass" in blind["error"]
    _assert_nothing_lost(running, subscriber)


def test_a_snapshot_shows_the_latest_picture_and_keeps_it(running: Line, operator: Operator) -> None:
    wait_for(lambda: running.total("rejectd_frames_captured_total") > 2, "parts pass")
    result = operator.ask("snapshot", camera="left")["result"]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(result["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    kept = cv2.imread(str(running.directory / "state" / "evidence" / result["evidence"]))
    assert shown.shape == kept.shape == (result["height"], result["width"], 3)
    original = cv2.imread(str(running.directory / "pictures" / "left" / result["source"]))
    assert np.array_equal(kept, original)
    assert running.stop() == 0


def test_every_request_is_answered_whatever_it_is(
    running: Line, subscriber: Subscriber, operator: Operator, mosquitto: Mosquitto
) -> None:
    wait_for(lambda: subscriber.of("verdict"), "parts pass")
    assert "there is no command" in operator.ask("launch")["error"]
    assert "there is no product" in operator.ask("threshold", product="hat", threshold=1)["error"]
    assert "there is no camera" in operator.ask("pause", cameras=["top"])["error"]
    assert "unknown setting; did you mean" in operator.ask("pause", camera=["left"])["error"]
    assert "which events" in operator.ask("replay")["error"]

    def answers() -> list[dict[str, Any]]:
        return [body for topic, _, body in operator.answers if topic == f"{ROOT}/answer"]

    for raw in (b"", b"[", b"[]", b'"x"', b"\xff\xfe", b"{" * 5000, b'{"a":' * 5000):
        before = len(answers())
        operator.send("threshold", raw=raw, answer_to=None)
        wait_for(lambda before=before: len(answers()) > before, f"an answer to {raw[:20]!r}")
        assert not answers()[-1]["ok"]
    for forbidden in (f"{ROOT}/left/verdict/reject", f"{ROOT}/status", "rejectd/v1/other/answer/x"):
        before = len(answers())
        operator.send("resume", answer_to=forbidden)
        wait_for(lambda before=before: len(answers()) > before, f"an answer to {forbidden}")
        assert "response topic is not allowed" in answers()[-1]["error"]
    assert not [
        topic for _, topic, payload in subscriber.messages if "answer" in payload["schema"] and "answer" not in topic
    ]
    before = len(answers())
    operator.send("pause", answer_to=None, retain=True)
    wait_for(lambda: len(answers()) > before, "a command that happens to be retained is carried out once")
    assert answers()[-1]["ok"]
    assert operator.ask("resume")["ok"]
    mosquitto.stop()
    mosquitto.start()
    wait_for(lambda: "a retained command is not carried out" in running.log.read_text(), "it is refused from now on")
    wait_for(lambda: subscriber.status().get("paused") == [], "the line is back, and not paused")
    assert running.stop() == 0


def test_a_consumer_that_sees_a_gap_has_the_events_replayed(
    line: Line, subscriber: Subscriber, operator: Operator, defective_cells: list[Path]
) -> None:
    line.folder("left", defective_cells[:8], rate_hz=20, deadline_ms=10_000)
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.start()
    wait_for(lambda: len(subscriber.of("defect")) == 8, "defects arrive")
    wait_for(lambda: line.metrics()["rejectd_outbox_events"] == 0, "all are acknowledged")

    def numbers() -> Counter[int]:
        return Counter(payload["event_seq"] for _, topic, payload in subscriber.messages if topic.endswith("/defect"))

    assert operator.ask("replay", from_seq=3, to_seq=5)["result"] == {"events": 3, "from_seq": 3, "to_seq": 5}
    wait_for(lambda: numbers() == {1: 1, 2: 1, 3: 2, 4: 2, 5: 2, 6: 1, 7: 1, 8: 1}, "three events come again, once")
    assert operator.ask("replay", from_seq=100)["result"] == {"events": 0, "from_seq": None, "to_seq": None}
    made = run_command("rejectd", "replay", line.file, "--since", "10m")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == {"events": 8, "from_seq": 1, "to_seq": 8}
    wait_for(lambda: sum(numbers().values()) == 19, "all events come again")
    made = run_command("rejectd", "command", line.file, "threshold", "product=cell", "threshold=null")
    assert json.loads(made.stdout)["after"] == 0.0005
    made = run_command("rejectd", "command", line.file, "pause", "cameras=[top]")
    assert made.returncode == 1
    assert "known cameras: left" in made.stderr
    assert line.stop() == 0


def test_what_commands_change_is_in_the_journal_with_who_asked(
    running: Line, subscriber: Subscriber, operator: Operator
) -> None:
    wait_for(lambda: subscriber.of("verdict"), "parts pass")
    assert operator.ask("threshold", product="cell", threshold=1000, request_id="shift 3")["result"]["doubt"]
    wait_for(lambda: "defects may pass" in str(subscriber.status().get("problems")), "the status shows it")
    assert operator.ask("pause", cameras=["left"], action="pass", request_id="shift 4")["ok"]
    wait_for(lambda: "pass uninspected" in str(subscriber.status().get("problems")), "and the pause")
    assert running.stop() == 0
    query = "SELECT what, subject, after, changed_by, request_id, answer_to FROM change"
    assert running.journal(query) == [
        ("threshold", "cell", "1000.0", "threshold", "shift 3", f"{ROOT}/answer/mine"),
        ("pause", "left", "pass", "pause", "shift 4", f"{ROOT}/answer/mine"),
    ]
    assert "threshold of cell changed by command threshold" in running.log.read_text()


@pytest.mark.parametrize("setting", [None, True, False, "off"])
def test_commands_are_not_heard_from_a_broker_that_knows_nobody_or_where_the_settings_say_so(
    line: Line, operator: Operator, cells: list[Path], setting: object
) -> None:
    line.folder("left", cells[:5], rate_hz=20, loop=True)
    line.settings["mqtt"]["commands"] = setting
    if setting is None:
        del line.settings["mqtt"]["commands"]
    line.start()
    operator.send("pause", {"action": "pass"})
    operator.send("threshold", {"product": "cell", "threshold": 1000})
    wait_for(lambda: line.total("rejectd_verdicts_total") > 20, "parts pass")
    assert operator.answers == []
    assert line.metrics()["rejectd_verdicts_total{camera=left,cause=paused,decision=unjudged}"] == 0
    assert line.metrics()["rejectd_threshold{product=cell}"] < 2
    asked = run_command("rejectd", "command", line.file, "pause")
    assert asked.returncode == 2
    assert "takes no commands" in asked.stderr, "at once"
    assert line.stop() == 0
