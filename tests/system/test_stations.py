"""Parts that several cameras see: one verdict of the part from the real service, in time, whatever is missing."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gateway import REJECT, RELEASE, STOPS, Gateway
from line import Line, Subscriber
from peers import Mosquitto, wait_for

pytestmark = pytest.mark.system


class Views:
    """Two watched folders into which parts are put, file by file."""

    def __init__(self, line: Line, *, trigger: str = "name", **station: Any) -> None:
        self._folders = {}
        for camera in ("left", "right"):
            self._folders[camera] = line.directory / "hot" / camera
            self._folders[camera].mkdir(parents=True)
            line.settings["cameras"][camera] = {
                "type": "folder", "mode": "watch", "product": "cell", "path": str(self._folders[camera]),
                "trigger": trigger,
            }  # fmt: skip
        line.settings["stations"] = {"gate": {"cameras": ["left", "right"], **station}}

    @staticmethod
    def wait(subscriber: Subscriber) -> None:
        """Until both cameras see what arrives."""
        wait_for(lambda: all(subscriber.states(camera)[-1:] == ["up"] for camera in ("left", "right")), "both are up")

    def show(self, camera: str, trigger: int, picture: Path) -> None:
        """A picture arrives whole."""
        folder = self._folders[camera]
        temporary = folder.parent / f"{camera}{trigger}{picture.suffix}"
        shutil.copy(picture, temporary)
        temporary.rename(folder / f"part_{trigger:06}{picture.suffix}")


def _parts(subscriber: Subscriber) -> dict[int, dict[str, Any]]:
    """The verdicts of parts by trigger number; each part has one."""
    verdicts = [payload for _, topic, payload in subscriber.messages if "/gate/verdict/" in topic]
    assert max(Counter(verdict["trigger"] for verdict in verdicts).values(), default=1) == 1
    return {verdict["trigger"]: verdict for verdict in verdicts}


def test_a_part_has_one_verdict_from_all_its_views_before_its_one_deadline(
    line: Line, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    views = Views(line, deadline_ms=6000, policy="stop")
    line.settings["mqtt"]["publish_margin_ms"] = 300  # the subscriber shares this machine's processors
    line.settings["products"]["cell"]["threshold"] = 1000  # every picture that can be read is a pass
    line.start()
    views.wait(subscriber)
    broken = tmp_path / "broken.png"
    broken.write_bytes(cells[0].read_bytes()[:2000])
    views.show("right", 1, cells[0])
    views.show("left", 1, cells[1])
    views.show("left", 2, cells[2])
    views.show("right", 2, broken)
    views.show("left", 3, cells[3])  # nothing from the right
    wait_for(lambda: len(_parts(subscriber)) == 3, "all parts have their verdict", 20)
    parts = _parts(subscriber)
    assert (parts[1]["decision"], parts[1]["action"]) == ("pass", "pass")
    assert (parts[2]["decision"], parts[2]["cause"], parts[2]["action"]) == ("unjudged", "camera_fault", "stop")
    assert "right: part_000002.png" in parts[2]["detail"]
    assert (parts[3]["cause"], parts[3]["detail"]) == ("missing_view", "missing: right")
    frames = {payload["event_id"]: payload for payload in subscriber.of("verdict").values() if payload["views"] is None}
    for trigger, part in parts.items():
        assert {frames[view]["trigger"] for view in part["views"]} == {trigger}
        deadlines = [datetime.fromisoformat(each["valid_until"]) for each in (part, *map(frames.get, part["views"]))]
        assert max(deadlines) - min(deadlines) < timedelta(milliseconds=1)
    for received, topic, payload in subscriber.messages:
        if "/verdict/" in topic:
            assert received <= datetime.fromisoformat(payload["valid_until"]).timestamp()
    wait_for(lambda: len(subscriber.of("gate/defect")) == 2, "parts that did not pass are recorded")
    assert line.metrics()["rejectd_part_verdicts_total{cause=missing_view,decision=unjudged,station=gate}"] == 1
    assert line.stop() == 0
    wait_for(lambda: subscriber.status().get("state") == "offline", "the line says goodbye")
    status = subscriber.status()
    assert status["parts"] == {"captured": 3, "pass": 1, "reject": 0, "unjudged": 2, "in_flight": 0}
    assert status["captured"] == 5
    assert dict(line.journal("SELECT trigger_number, decision FROM verdict WHERE camera = 'gate'")) == {
        1: "pass", 2: "unjudged", 3: "unjudged",
    }  # fmt: skip


def test_one_view_that_rejects_rejects_the_part_at_once(
    line: Line, subscriber: Subscriber, cells: list[Path], defective_cells: list[Path]
) -> None:
    views = Views(line, deadline_ms=20_000)
    line.settings["products"]["cell"]["threshold"] = 0.0005  # every picture is a reject
    line.start()
    views.wait(subscriber)
    views.show("left", 7, defective_cells[0])
    wait_for(lambda: 7 in _parts(subscriber), "the part is rejected long before its deadline", 10)
    assert _parts(subscriber)[7]["decision"] == "reject"
    views.show("right", 7, cells[0])
    wait_for(lambda: len(subscriber.of("right/verdict")) == 1, "the other view has its own verdict")
    assert len(_parts(subscriber)) == 1, "a part has one verdict"
    assert line.stop() == 0


@pytest.mark.parametrize("script", [RELEASE, REJECT])
def test_an_exposure_that_one_camera_misses_costs_its_own_part_and_no_other(
    script: str, line: Line, subscriber: Subscriber, mosquitto: Mosquitto, cells: list[Path], strange: Path
) -> None:
    """No picture has a number; the left camera misses part 3, and part 6 has a defect that it sees."""
    pitch_s, missed, bad = 0.8, 3, 6
    views = Views(line, trigger="count", deadline_ms=2000, tolerance_ms=300, pitch_ms=pitch_s * 1000)
    line.settings["mqtt"]["heartbeat_s"] = 1.0
    line.start()
    views.wait(subscriber)
    belt = Gateway(script, mosquitto, line.directory, 2.6, camera="gate", spacing_s=pitch_s)
    try:
        belt.wait_state("running")
        begun = time.monotonic()
        for part in range(1, 10):
            time.sleep(max(0.0, begun + part * pitch_s - time.monotonic()))  # the belt
            belt.part()
            for camera in ("right", "left"):
                if (camera, part) != ("left", missed):
                    views.show(camera, part, strange if (camera, part) == ("left", bad) else cells[0])
        done = belt.wait_done()
    finally:
        belt.close()
    parts = _parts(subscriber)
    assert sorted(parts) == list(range(1, 10)), "as many parts as exposures"
    assert (parts[missed]["cause"], parts[missed]["detail"]) == ("missing_view", "missing: left")
    assert [part for part, verdict in parts.items() if verdict["decision"] == "reject"] == [bad]
    frames = {payload["event_id"]: payload for payload in subscriber.of("verdict").values() if payload["views"] is None}
    for part, verdict in parts.items():
        assert {frames[view]["source"] for view in verdict["views"]} == {f"part_{part:06}.png"}
    stopped = [part for part, handled in done.items() if handled["do"] == STOPS[script]]
    assert stopped == [missed, bad], "the part that is bad, and the one that was seen by one camera alone"
    wait_for(
        lambda: subscriber.status()["problems"] == ["station gate: camera left missed 1 of the last 9 parts"],
        "the line names the camera",
    )
    assert line.metrics()["rejectd_part_views_total{camera=left,fate=missed}"] == 1
    assert subscriber.states("gate") == ["starting", "up"]
    assert line.stop() == 0


PITCH_S, TOLERANCE_S, PARTS = 0.4, 0.15, 18


def _exposures(first: int, chance: random.Random) -> list[tuple[float, str, int]]:
    """When which camera shows which part: each misses a fifth, and the right one is down for three parts."""
    return sorted(
        (number * PITCH_S + chance.uniform(0, 0.6 * TOLERANCE_S), camera, first + number)  # the rest is the machine's
        for number in range(PARTS)
        for camera in ("left", "right")
        if chance.random() < 0.8 and (camera, number) not in {("right", 7), ("right", 8), ("right", 9)}
    )


@pytest.mark.parametrize("deadline_ms", [1500, 350])  # longer and shorter than the time between two parts
def test_whatever_cameras_miss_no_part_holds_a_view_of_another_also_after_a_kill(
    deadline_ms: int, line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    chance = random.Random(deadline_ms)
    station = {"deadline_ms": deadline_ms, "tolerance_ms": TOLERANCE_S * 1000, "pitch_ms": PITCH_S * 1000}
    views = Views(line, trigger="count", **station)
    for run in (1, 2):
        line.start()
        wait_for(lambda: subscriber.states("gate").count("up") >= run, "both cameras see")  # noqa: B023 - ends here
        exposures = _exposures((run - 1) * PARTS, chance)
        begun = time.monotonic()
        for at_s, camera, part in exposures:
            time.sleep(max(0.0, begun + at_s - time.monotonic()))
            views.show(camera, part, cells[part])
        wait_for(lambda: line.metrics()["rejectd_parts_in_flight{station=gate}"] == 0, "each part has its verdict", 10)
        shown = {part for _, _, part in exposures}
        assert line.metrics()["rejectd_parts_seen_total{station=gate}"] == len(shown), "as many parts as exposures"
        line.stop(signal.SIGKILL)
        line.log.unlink()  # so that the next start is waited for
    parts, frames = subscriber.of("gate/verdict"), subscriber.of("verdict")
    assert len(parts) > PARTS, "most verdicts come in time"
    for part in parts.values():
        assert len({frames[view]["source"] for view in part["views"]}) <= 1


def test_parts_that_pass_while_the_process_stands_still_are_told_apart_afterwards(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    views = Views(line, trigger="count", deadline_ms=1500, tolerance_ms=200, pitch_ms=500)
    line.start()
    views.wait(subscriber)
    assert line.process
    begun = time.monotonic()
    for part in range(1, 13):
        time.sleep(max(0.0, begun + part * 0.5 - time.monotonic()))
        if part in (3, 10):
            line.process.send_signal(signal.SIGSTOP if part == 3 else signal.SIGCONT)
        views.show("left", part, cells[part])
        if part not in (5, 11):
            views.show("right", part, cells[part])
    wait_for(lambda: line.metrics()["rejectd_parts_in_flight{station=gate}"] == 0, "each part has its verdict", 10)
    assert line.metrics()["rejectd_parts_seen_total{station=gate}"] == 12, "as many parts as exposures"
    parts, frames = subscriber.of("gate/verdict"), subscriber.of("verdict")
    sources = {
        event: {frames[view]["source"] for view in part["views"] if view in frames} for event, part in parts.items()
    }
    assert max(len(names) for names in sources.values()) == 1
    of_file = {names.pop(): parts[event] for event, names in sources.items() if names}
    assert of_file["part_000011.png"]["cause"] == "missing_view"
    assert of_file["part_000012.png"]["cause"] != "missing_view"
    for received, topic, payload in subscriber.messages:
        if "/verdict/" in topic:
            assert received <= datetime.fromisoformat(payload["valid_until"]).timestamp()


def test_several_frames_of_each_camera_make_one_part(line: Line, subscriber: Subscriber, cells: list[Path]) -> None:
    for camera in ("left", "right"):
        line.folder(camera, [], rate_hz=10, trigger="name")
        for number in range(12):
            shutil.copy(cells[number], line.directory / "pictures" / camera / f"{number:03}_part{number // 3 + 1}.png")
    line.settings["stations"] = {"gate": {"cameras": ["left", "right"], "frames": 3, "deadline_ms": 20_000}}
    line.settings["products"]["cell"]["threshold"] = 1000
    line.start("--until-ended")
    assert line.wait() == 0
    wait_for(lambda: len(_parts(subscriber)) == 4, "four parts of six frames")
    for part in _parts(subscriber).values():
        assert part["decision"] == "pass"
        assert len(part["views"]) == 6


def test_a_part_whose_time_passed_while_the_service_stood_is_ejected_though_its_only_view_was_told_in_time(
    line: Line, subscriber: Subscriber, mosquitto: Mosquitto, cells: list[Path]
) -> None:
    views = Views(line, deadline_ms=1500)
    line.settings["products"]["cell"]["threshold"] = 1000  # every picture that can be read is a pass
    line.start()
    views.wait(subscriber)
    gateway = Gateway(REJECT, mosquitto, line.directory / "hot" / "left", 4.0, camera="gate", spacing_s=1.0)
    try:
        gateway.wait_state("running")
        gateway.part()
        views.show("left", 1, cells[0])  # nothing from the right
        wait_for(lambda: subscriber.of("left/verdict/"), "the view has its verdict", 5)
        assert line.process
        line.process.send_signal(signal.SIGSTOP)
        time.sleep(1.8)  # shorter than what makes the line look dead
        line.process.send_signal(signal.SIGCONT)
        wait_for(lambda: subscriber.status()["unpublished"] == 1, "the line says that a verdict was not told", 10)
        wait_for(gateway.done, "the part is at the ejector", 10)
        assert gateway.done()[1]["do"] == STOPS[REJECT]
    finally:
        gateway.close()
