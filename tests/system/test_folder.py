"""A watched folder as plants use it: stalls, bursts, large pictures, and programs that write a file more than once."""

from __future__ import annotations

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
from peers import wait_for

pytestmark = pytest.mark.system

_CLOCKS_S = 0.06  # by so much a part may be thought to be older than it is


class Hot:
    """The watched folder of a line's only camera."""

    def __init__(self, line: Line, **settings: Any) -> None:
        self.path = line.directory / "hot"
        self.path.mkdir()
        line.settings["cameras"]["hot"] = {
            "type": "folder", "mode": "watch", "product": "cell", "path": str(self.path), **settings,
        }  # fmt: skip
        self._line = line

    def start(self, subscriber: Subscriber) -> None:
        self._line.start()
        wait_for(lambda: subscriber.states("hot")[-1:] == ["up"], "the camera is up")

    def show(self, name: str, picture: Path) -> tuple[float, float]:
        """A picture arrives whole. Returns between which times, for this process may be kept from a processor too."""
        began = time.time()
        staged = self.path.with_name("staged") / name
        staged.parent.mkdir(exist_ok=True)
        shutil.copy(picture, staged)
        staged.rename(self.path / name)
        return began, time.time()


def _verdicts(subscriber: Subscriber) -> dict[str, tuple[float, dict[str, Any]]]:
    """By the name of the file: when its one verdict came, and the verdict."""
    came = [(at, body) for at, topic, body in list(subscriber.messages) if "/hot/verdict/" in topic]
    assert max(Counter(body["source"] for _, body in came).values(), default=1) == 1
    return {body["source"]: (at, body) for at, body in came}


def _until(body: dict[str, Any]) -> float:
    return datetime.fromisoformat(body["valid_until"]).timestamp()


def _large(path: Path, megapixels: float) -> Path:
    side = round((megapixels * 1e6) ** 0.5)
    noise = np.random.default_rng(1).integers(0, 256, (side // 8, side // 8), np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (side, side)))
    return path


def test_pictures_that_come_while_the_service_stands_still_have_no_verdict_that_looks_in_time(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    hot = Hot(line, deadline_ms=2000)
    hot.start(subscriber)
    assert line.process
    arrived = {"before.png": hot.show("before.png", cells[0])}
    wait_for(lambda: "before.png" in _verdicts(subscriber), "the first part has its verdict")
    line.process.send_signal(signal.SIGSTOP)
    arrived["early.png"] = hot.show("early.png", cells[1])
    time.sleep(4.5)
    arrived["late.png"] = hot.show("late.png", cells[2])
    line.process.send_signal(signal.SIGCONT)
    arrived["after.png"] = hot.show("after.png", cells[3])
    wait_for(lambda: "after.png" in _verdicts(subscriber), "the last part has its verdict")
    wait_for(
        lambda: subscriber.status()["captured"] == 4 and not subscriber.status()["in_flight"], "all have their end"
    )
    for name, (received, body) in _verdicts(subscriber).items():
        assert received <= _until(body), name
        earliest, latest = arrived[name]
        assert earliest + 2 - _CLOCKS_S - 4.5 * (name == "late.png") <= _until(body) <= latest + 2, name
    assert "early.png" not in _verdicts(subscriber)
    wait_for(lambda: subscriber.status()["unpublished"] == 1, "gateways hear that a part has no verdict")
    assert "camera hot down: an exposure was noticed" in line.log.read_text()
    ends = line.journal("SELECT source, decision, cause FROM verdict WHERE source = 'early.png'")
    assert ends == [("early.png", "unjudged", "late")]


def test_a_burst_of_40_files_and_a_file_of_30_megapixels_have_their_verdicts_in_time(
    line: Line, subscriber: Subscriber, tmp_path: Path
) -> None:
    hot = Hot(line, deadline_ms=1500)
    line.settings["mqtt"]["publish_margin_ms"] = 300  # the subscriber shares this machine's processors
    hot.start(subscriber)
    five, thirty = _large(tmp_path / "five.png", 5), _large(tmp_path / "thirty.png", 30)
    for number in range(40):
        hot.show(f"{number:02}.png", five)
    wait_for(lambda: len(_verdicts(subscriber)) == 40, "each part of the burst has its verdict", 20)
    hot.show("thirty.png", thirty)
    wait_for(lambda: "thirty.png" in _verdicts(subscriber), "the large picture has its verdict", 20)
    print(Counter(body["cause"] or body["decision"] for _, body in _verdicts(subscriber).values()))
    for name, (received, body) in _verdicts(subscriber).items():
        assert received <= _until(body), name
    wait_for(lambda: subscriber.status()["captured"] == 41, "each is a part")
    assert subscriber.status()["unpublished"] == 0


def test_whatever_programs_write_files_one_part_has_one_verdict_and_one_number(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    hot = Hot(line, deadline_ms=6000, settle_ms=600)
    hot.start(subscriber)
    whole = cells[0].read_bytes()

    def wait(name: str) -> None:
        wait_for(lambda: name in _verdicts(subscriber), f"{name} has its verdict")

    (hot.path / "1.png").touch()
    time.sleep(0.3)
    (hot.path / "1.png").write_bytes(whole)  # an empty file that is filled
    wait("1.png")
    (hot.path / "2.png").write_bytes(whole[:1000])
    with (hot.path / "2.png").open("ab") as upload:  # an upload that is resumed
        upload.write(whole[1000:])
    wait("2.png")
    shutil.copy2(cells[1], hot.path / "3.png")  # a time that is set afterwards
    hot.show("3.png", cells[1])  # a file that is replaced by rename while it settles
    wait("3.png")
    hot.show("3.png", cells[2])  # and again, much later
    with (hot.path / "2.png").open("r+b") as editor:
        editor.write(whole[:10])
    hot.show("4.png", cells[3])
    wait("4.png")
    verdicts = _verdicts(subscriber)
    assert {name: body["trigger"] for name, (_, body) in verdicts.items()} == {
        "1.png": 1, "2.png": 2, "3.png": 3, "4.png": 4,
    }  # fmt: skip
    assert {body["decision"] for _, body in verdicts.values()} <= {"pass", "reject"}
    assert line.metrics()["rejectd_files_rewritten_total{camera=hot}"] == 2
    assert "3.png: was written again after its part was shown" in line.log.read_text()


def test_pictures_that_came_while_the_service_was_down_are_counted_and_named(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    hot = Hot(line)
    hot.start(subscriber)
    hot.show("judged.png", cells[0])
    wait_for(lambda: "judged.png" in _verdicts(subscriber), "it has its verdict")
    assert line.stop() == 0
    hot.show("missed.png", cells[1])
    line.start()
    wait_for(lambda: "missed.png" in line.log.read_text(), "it is named")
    assert line.metrics()["rejectd_files_before_start_total{camera=hot}"] == 1
    assert "while the service was down, and that are not judged: 1, the last at" in line.log.read_text()
