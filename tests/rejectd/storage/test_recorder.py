"""rejectd.storage.recorder: what follows behind a verdict, and what is given up first. Real files, a really full
disk."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import wait_for
from prometheus_client import CollectorRegistry

from rejectd.contract.messages import GOLDEN, Cause, Exposure, Frame, Pixels, Policy, RejectdError, Result, Verdict
from rejectd.contract.payloads import encode, verdict_payload
from rejectd.decision import decide, unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.storage import backlog as backlog_module
from rejectd.storage.evidence import Evidence
from rejectd.storage.in_flight_file import InFlightFile
from rejectd.storage.outbox import Delivery, Outbox, Reading, Replay
from rejectd.storage.picture_budget import Memory
from rejectd.storage.recorder import Recorder

NOON = 1_700_000_000 * 10**9
CAMERAS = ["a", "b", GOLDEN, "gate"]
PASS, REJECT = 0.5, 2.0  # scores, with a threshold of 1


class Rig:
    """A recorder between a ledger and the disk. Its thread runs from `start` on."""

    def __init__(
        self, directory: Path, *, books: Path | None = None, evidence: bool = True, memory_bytes: int = 10**9
    ) -> None:
        self._book = (books or directory) / "in-flight.bin"
        self.inflight = InFlightFile(self._book, line="l")
        self.ledger = Ledger("run", margin=Margin(0), book=self.inflight)
        self.metrics = Metrics(CollectorRegistry(), cameras=CAMERAS, products=["cell"], snapshot=self.ledger.snapshot)
        self.outbox = Outbox(directory / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
        self.evidence_folder = directory / "evidence"
        self.memory = Memory(memory_bytes)
        self.told: list[str] = []  # in what order the publisher heard of what
        self.recorder = Recorder(
            "l",
            outbox=self.outbox,
            evidence=Evidence(self.evidence_folder, quota_bytes=10**9, heatmap=lambda picture, *_: picture)
            if evidence
            else None,
            inflight=self.inflight,
            memory=self.memory,
            metrics=self.metrics,
            more_events=lambda: self.told.append("more"),
            marked=self._marked,
        )
        self.thread = threading.Thread(target=self.recorder.run)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.outbox.close)
        self._stack.callback(self.inflight.close)

    def _marked(self, numbers: Iterable[int]) -> None:
        known = {row[0] for row in self.rows("SELECT event_seq FROM event WHERE acknowledged_unix_ns IS NOT NULL")}
        self.told += [f"marked {number}" for number in numbers if number in known]

    def start(self) -> Rig:
        self.thread.start()
        return self

    def end(self) -> None:
        """As the service does it."""
        if not self.thread.is_alive() and self.thread.ident is None:
            self.thread.start()
        self.recorder.end()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def close(self) -> None:
        self._stack.close()

    def frame(self, camera: str = "a", picture: Pixels | None = None) -> Frame:
        shown = Exposure(captured_ns=0, captured_unix_ns=NOON, source="7.png")
        frame = self.ledger.open(shown, camera=camera, product="cell", policy=Policy.REJECT, deadline_ns=10**9)
        return dataclasses.replace(frame, picture=picture)

    def close_frame(self, frame: Frame, verdict: Verdict) -> dict[str, Any]:
        """As the pipeline does it; returns the body of the verdict."""
        body = verdict_payload("l", verdict)
        assert self.ledger.close(verdict, encode(body))
        self.recorder.verdict(verdict, body, frame)
        return body

    def judge(self, score: float, camera: str = "a", picture: Pixels | None = None, *, map_: bool = True) -> Frame:
        """A part passes the camera and the model."""
        frame = self.frame(camera, picture)
        anomaly_map = np.zeros((4, 4), np.float32)
        anomaly_map[1, 2] = score
        result = Result(
            score=score, threshold=1.0, p_value=0.1, bundle="b", engine="e", anomaly_map=anomaly_map if map_ else None
        )
        self.close_frame(frame, decide(frame, result, 5_000_000))
        return frame

    def lose(self, cause: Cause, picture: Pixels | None = None) -> Frame:
        frame = self.frame("a", picture)
        self.close_frame(frame, unjudged(frame, cause, 5_000_000))
        return frame

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.outbox.path)) as db:
            return db.execute(query).fetchall()

    def events(self) -> dict[str, dict[str, Any]]:
        """Payloads of defect events by topic and event."""
        found = self.rows("SELECT topic, event_id, payload FROM event ORDER BY event_seq")
        return {f"{topic} {event}": json.loads(payload) for topic, event, payload in found}

    def journal(self) -> Counter[str]:
        return Counter(dict(self.rows("SELECT decision, count(*) FROM verdict GROUP BY decision")))

    def sacrificed(self, what: str) -> int:
        return int(self.metrics.sacrificed.labels(what)._value.get())

    def left(self) -> set[str]:
        """What the next start would find in the in-flight file."""
        copy = shutil.copy(self._book, self._book.with_name("copy.bin"))  # which nobody has locked
        with contextlib.closing(InFlightFile(copy, line="l")) as book:
            return {body["event_id"] for body in book.left}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.end()
    made.close()


def a_picture() -> Pixels:
    return np.full((40, 80, 3), 90, np.uint8)


def test_every_verdict_is_in_the_journal_and_every_defect_with_its_evidence_in_the_outbox(rig: Rig) -> None:
    rig.start()
    rig.judge(PASS)
    rejected = rig.judge(REJECT, picture=a_picture())
    late = rig.lose(Cause.LATE, a_picture())
    faulty = rig.lose(Cause.CAMERA_FAULT)
    assert rig.recorder.wait(10)
    assert rig.journal() == {"pass": 1, "reject": 1, "unjudged": 2}
    events = rig.events()
    assert list(events) == [f"rejectd/v1/l/a/defect {frame.event_id}" for frame in (rejected, late, faulty)]
    first, second, third = events.values()
    assert first["regions"] == [[40, 10, 20, 10]], "in pixels of the picture"
    assert (rig.evidence_folder / first["evidence"]).is_file()
    assert (rig.evidence_folder / first["evidence"].replace(".png", "-heat.jpg")).is_file()
    assert (second["regions"], second["cause"]) == ([], "late")
    assert (rig.evidence_folder / second["evidence"]).is_file()
    assert (third["regions"], third["evidence"]) == ([], None)
    assert [event["event_seq"] for event in events.values()] == [1, 2, 3]
    assert "more" in rig.told


def test_a_verdict_leaves_the_in_flight_file_when_it_is_in_the_journal_and_not_before(rig: Rig) -> None:
    frames = [rig.judge(score) for score in (PASS, REJECT)]
    assert rig.left() == {frame.event_id for frame in frames}
    rig.start()
    assert rig.recorder.wait(10)
    assert rig.left() == set()
    assert rig.journal().total() == 2


def test_a_known_picture_is_in_the_journal_but_is_no_defect(rig: Rig) -> None:
    rig.start()
    rig.judge(REJECT, GOLDEN, a_picture())
    assert rig.recorder.wait(10)
    assert rig.journal() == {"reject": 1}
    assert rig.events() == {}


def test_what_has_been_acknowledged_is_in_the_outbox_before_the_publisher_is_told(rig: Rig) -> None:
    rig.start()
    for _ in range(3):
        rig.judge(REJECT)
    assert rig.recorder.wait(10)
    assert rig.metrics.outbox._value.get() == 3
    for number in (2, 1):
        rig.recorder.note(number)
    assert rig.recorder.wait(10)
    assert [each for each in rig.told if each != "more"] == ["marked 2", "marked 1"]
    assert rig.rows("SELECT event_seq FROM event WHERE acknowledged_unix_ns IS NULL") == [(3,)]
    assert rig.metrics.outbox._value.get() == 1


def test_deliveries_and_counts_of_actuators_are_kept(rig: Rig) -> None:
    frame = rig.judge(PASS)
    rig.recorder.note(Delivery(event_id=frame.event_id, acknowledged_ms=12.5))
    rig.recorder.note(Reading(camera="a", at_unix_ns=NOON, rejected=3))
    rig.start()
    assert rig.recorder.wait(10)
    assert rig.rows("SELECT acknowledged_ms FROM verdict") == [(12.5,)]
    assert rig.rows("SELECT * FROM actuator") == [("a", NOON, 3)]


def test_without_evidence_a_defect_has_regions_but_no_picture(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evidence=False).start()
    rig.judge(REJECT, picture=a_picture())
    rig.end()
    (event,) = rig.events().values()
    assert (event["evidence"], event["regions"]) == (None, [[40, 10, 20, 10]])
    assert rig.sacrificed("evidence") == 0, "nothing was given up that was wanted"
    rig.close()


def test_evidence_that_cannot_be_written_costs_the_evidence_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.start()
    assert rig.recorder.tried.wait(10)
    rig.evidence_folder.rmdir()
    rig.evidence_folder.write_text("a file")
    frame = rig.judge(REJECT, picture=a_picture())
    assert rig.recorder.wait(10)
    (event,) = rig.events().values()
    assert (event["event_id"], event["evidence"], event["regions"]) == (frame.event_id, None, [[40, 10, 20, 10]])
    assert rig.sacrificed("evidence") == 1
    assert "evidence cannot be written" in caplog.text


# overload: the thread does not run, so that the queue fills as it does before a disk that is too slow


def test_under_overload_maps_go_first_then_pictures_then_passes_and_rejects_last(rig: Rig) -> None:
    for _ in range(63):
        rig.judge(PASS)
    assert rig.recorder.maps_affordable
    rig.judge(PASS)
    assert not rig.recorder.maps_affordable, "they are not even fetched from the device"
    for _ in range(64, 255):
        rig.judge(PASS)
    with_picture = rig.judge(REJECT, picture=a_picture(), map_=False)
    assert rig.sacrificed("evidence") == 0
    without = rig.judge(REJECT, picture=a_picture(), map_=False)
    assert rig.sacrificed("evidence") == 1
    for _ in range(257, 3072):
        rig.judge(PASS)
    assert rig.sacrificed("journal") == 0
    given_up = rig.judge(PASS)
    assert rig.sacrificed("journal") == 1
    assert given_up.event_id not in rig.left(), "it is not found as stopping at the next start"
    kept = [rig.judge(REJECT) for _ in range(3072, 4096)]
    assert rig.sacrificed("journal") == 1
    rig.judge(REJECT)
    assert rig.sacrificed("journal") == 2, "counted; the queue has a size"
    rig.start()
    assert rig.recorder.wait(30)
    assert rig.journal() == {"pass": 3070, "reject": 1026}
    events = rig.events()
    assert events[f"rejectd/v1/l/a/defect {with_picture.event_id}"]["evidence"]
    assert events[f"rejectd/v1/l/a/defect {without.event_id}"]["evidence"] is None
    assert all(f"rejectd/v1/l/a/defect {frame.event_id}" in events for frame in kept)


def test_rejects_find_room_also_when_the_broker_goes_on_to_acknowledge_verdicts(rig: Rig) -> None:
    for number in range(6000):  # parts pass for minutes while the disk takes nothing
        frame = rig.judge(PASS)
        rig.recorder.note(Delivery(event_id=frame.event_id, acknowledged_ms=9.0))
        if number % 10 == 0:
            rig.recorder.note(Reading(camera="a", at_unix_ns=NOON + number, rejected=number))
    rejected = [rig.judge(REJECT) for _ in range(500)]
    rig.start()
    assert rig.recorder.wait(30)
    events = rig.events()
    assert sum(f"rejectd/v1/l/a/defect {frame.event_id}" in events for frame in rejected) == 500


def test_an_acknowledged_event_is_never_forgotten_whatever_waits(rig: Rig) -> None:
    rig.start()
    for _ in range(3):
        rig.judge(REJECT)
    assert rig.recorder.wait(10)
    rig.end()
    rig.thread = threading.Thread(target=rig.recorder.run)  # a disk that takes nothing for a while
    for _ in range(4096):
        rig.judge(REJECT)
    for number in (1, 2, 3):
        rig.recorder.note(number)
    rig.start()
    assert rig.recorder.wait(30)
    assert [each for each in rig.told if each != "more"] == ["marked 1", "marked 2", "marked 3"], (
        "else the publisher waits for ever for them to be marked"
    )


@pytest.mark.parametrize("cause", [Cause.OVERLOAD, Cause.PAUSED])
def test_no_picture_is_kept_of_parts_that_come_in_masses(rig: Rig, cause: Cause) -> None:
    rig.start()
    rig.lose(cause, a_picture())
    assert rig.recorder.wait(10)
    (event,) = rig.events().values()
    assert (event["cause"], event["evidence"]) == (cause.value, None)


# memory


def test_two_cameras_of_five_megapixels_whose_parts_are_all_rejected_stay_within_the_budget(tmp_path: Path) -> None:
    """Before a disk that takes nothing: 256 records with pictures of 15 MB would be 3.8 GB."""
    budget = 200_000_000
    rig = Rig(tmp_path, memory_bytes=budget)
    most = 0
    for number in range(60):
        picture = np.full((1944, 2592, 3), number, np.uint8)
        rig.memory.count(picture)  # as the pipeline does it
        rig.judge(REJECT, "ab"[number % 2], picture)
        del picture
        most = max(most, rig.memory.held_bytes)
    assert budget * 0.9 < most <= budget + 20_000_000, "the budget, and the one that is in flight"
    kept = 60 - rig.sacrificed("evidence")
    assert 12 <= kept <= 13
    assert 2 <= rig.sacrificed("map") < kept, "maps are given up before"
    rig.end()
    assert rig.journal() == {"reject": 60}, "verdicts never"
    assert len(list(rig.evidence_folder.rglob("*.png"))) == kept
    assert rig.memory.held_bytes == 0
    rig.close()


def test_a_picture_that_was_given_up_before_its_verdict_is_counted_if_it_was_wanted(rig: Rig) -> None:
    for score in (PASS, REJECT):
        frame = dataclasses.replace(rig.frame(), given_up=True)
        result = Result(score=score, threshold=1.0, p_value=0.1, bundle="b", engine="e")
        rig.close_frame(frame, decide(frame, result, 5_000_000))
    assert rig.sacrificed("evidence") == 1
    assert rig.recorder.maps_affordable


# tasks


def test_work_for_the_disk_is_done_after_all_that_was_handed_in_before_it(rig: Rig) -> None:
    for _ in range(100):
        rig.judge(REJECT)
    for number in range(1, 101):
        rig.recorder.note(number)
    rig.start()
    replayed = rig.recorder.ask(lambda: rig.outbox.replay(Replay(from_seq=90)), 10)
    assert replayed == (11, 90, 100)
    assert rig.recorder.ask(threading.current_thread, 10) is rig.thread


def test_who_asks_is_told_what_went_wrong_and_the_recorder_goes_on(rig: Rig) -> None:
    rig.start()

    def fail() -> None:
        raise RejectdError("it broke", hint="mend it")

    with pytest.raises(RejectdError, match="it broke; mend it"):
        rig.recorder.ask(fail, 10)
    with pytest.raises(ZeroDivisionError):
        rig.recorder.ask(lambda: 1 // 0, 10)
    rig.judge(PASS)
    assert rig.recorder.wait(10)
    assert rig.journal() == {"pass": 1}


def test_work_that_was_given_up_because_the_disk_was_too_busy_is_not_done_afterwards(rig: Rig) -> None:
    done: list[int] = []
    with pytest.raises(RejectdError, match="the disk is too busy; try again later"):
        rig.recorder.ask(lambda: done.append(1), 0.01)
    rig.start()
    rig.recorder.ask(lambda: done.append(2), 10)
    assert done == [2], "who was told that it failed would ask for it twice"


def test_work_is_refused_at_once_when_the_queue_is_full(rig: Rig) -> None:
    for _ in range(4096):
        rig.judge(REJECT)
    with pytest.raises(RejectdError, match="the disk is too busy"):
        rig.recorder.ask(lambda: None, 10**6)


# a full disk


class Disk:
    """A disk that can be made full: a small tmpfs, or a limit on the size of files where mounting is not allowed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "rejectd-test", str(directory)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with contextlib.suppress(OSError), (self.path / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.path / "ballast").unlink(missing_ok=True)

    def unmount(self) -> None:
        self.free()
        if self.mounted:
            subprocess.run(["umount", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.unmount()


@pytest.fixture
def on_disk(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A recorder whose journal lies on that disk; the in-flight file has its space since the start."""
    monkeypatch.setattr(backlog_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(backlog_module, "_RETRY_MAX_S", 0.1)
    rig = Rig(disk.path, books=tmp_path, evidence=False)
    yield rig
    disk.free()
    rig.end()
    rig.close()


def test_a_full_disk_loses_nothing_is_shown_as_a_problem_and_goes_away_by_itself(
    on_disk: Rig, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig = on_disk.start()
    rig.judge(REJECT)
    assert rig.recorder.wait(10)
    assert rig.recorder.problem == ""
    disk.fill()
    frames = [rig.judge(score) for score in (PASS, REJECT) * 300]
    wait_for(lambda: rig.recorder.problem, "the problem is shown")
    assert "the journal cannot be written" in rig.recorder.problem
    assert "free disk space" in rig.recorder.problem
    assert not rig.recorder.wait(0.2), "it is tried again and again"
    assert {frame.event_id for frame in frames[-400:]} <= rig.left(), "what the journal has not is in the other"
    disk.free()
    assert rig.recorder.wait(20)
    assert rig.recorder.problem == ""
    assert rig.journal() == {"pass": 300, "reject": 301}
    assert [event["event_seq"] for event in rig.events().values()] == list(range(1, 302))
    assert rig.left() == set()
    assert rig.sacrificed("journal") == 0
    assert len([1 for record in caplog.records if "cannot be written" in record.message]) == 1, "said once"
    assert "the journal can be written again" in caplog.text


def test_what_a_full_disk_does_not_take_before_the_end_stays_in_the_in_flight_file(on_disk: Rig, disk: Disk) -> None:
    rig = on_disk.start()
    disk.fill()
    frames = [rig.judge(REJECT) for _ in range(600)]
    wait_for(lambda: rig.recorder.problem, "the problem is shown")
    rig.end()
    written = {row[0] for row in rig.rows("SELECT event_id FROM verdict")}
    assert len(written) < 600
    assert rig.left() == {frame.event_id for frame in frames} - written
    assert rig.sacrificed("journal") == 600 - len(written)


# the end


def test_the_end_comes_after_all_that_was_handed_in_before_it(rig: Rig) -> None:
    for _ in range(500):
        rig.judge(PASS)
    rig.start()
    rig.end()
    assert rig.journal() == {"pass": 500}


def test_the_end_comes_also_when_the_queue_was_full(rig: Rig) -> None:
    for _ in range(4096):
        rig.judge(REJECT)
    rig.recorder.end()  # the disk hangs so long that there is no room for a last item
    rig.start()
    rig.thread.join(10)
    ended = not rig.thread.is_alive()
    rig.end()
    assert ended
    assert rig.journal() == {"reject": 4096}


def test_a_journal_that_must_give_up_defects_says_so(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.outbox._max_bytes = 1
    rig.judge(REJECT)
    rig.start()
    assert rig.recorder.wait(10)
    rig.end()
    assert "journal full: 1 defect events given up before the broker had them" in caplog.text


def test_waiting_for_the_disk_ends_with_its_timeout(rig: Rig) -> None:
    rig.judge(PASS)
    assert not rig.recorder.wait(0.01)
    rig.start()
    assert rig.recorder.wait(10)
