"""Disks that stand still, are full, damaged or not there: parts get their verdicts, and what is not kept is said."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import pytest
from line import Line, Operator, Subscriber
from peers import command, need_peer, wait_for

pytestmark = pytest.mark.system

FREEZE_S = 5.0


class Disk:
    """An ext4 file system in a file, mounted as a disk of its own, that can be frozen and filled."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self.path.mkdir()
        image = directory / "disk.img"
        with image.open("wb") as file:
            file.truncate(96 * 2**20)
        steps = (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(self.path)])
        mounted = os.geteuid() == 0 and all(subprocess.run(step, capture_output=True).returncode == 0 for step in steps)
        need_peer(mounted, "mounting a disk of its own (mkfs.ext4, loop devices)")
        self._frozen = False

    def freeze(self) -> None:
        subprocess.run(["fsfreeze", "-f", str(self.path)], check=True)
        self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            subprocess.run(["fsfreeze", "-u", str(self.path)], check=True)
        self._frozen = False

    def fill(self) -> None:
        with (self.path / "ballast").open("wb", buffering=0) as file:
            for size in (2**20, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def close(self) -> None:
        self.thaw()
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def on_disk(line: Line, disk: Disk) -> Iterator[Line]:
    """A line whose state lies on that disk, and so does its log."""
    line.settings["state_directory"] = str(disk.path / "state")
    line.log = disk.path / "service.log"
    yield line
    disk.thaw()
    if line.process and line.process.poll() is None:
        line.process.kill()
        line.process.wait(timeout=10)


def rows(journal: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def is_whole(line: Line, subscriber: Subscriber, journal: Path) -> None:
    """Every frame that the line says to have captured is in the journal, as the subscriber heard it."""
    wait_for(lambda: subscriber.status().get("state") == "offline", "the line says goodbye")
    entries = dict(rows(journal, "SELECT event_id, decision FROM verdict"))
    heard = {event: verdict["decision"] for event, verdict in subscriber.of("verdict").items()}
    assert len(entries) == subscriber.status()["captured"] - subscriber.status()["in_flight"]
    assert heard.items() <= entries.items()
    defects = {event for event, decision in entries.items() if decision != "pass"}
    wait_for(lambda: set(subscriber.of("defect")) == defects, "every defect event has come")


@pytest.mark.parametrize("rejects", [False, True], ids=["passes", "rejects with evidence"])
def test_a_frozen_disk_delays_no_verdict_no_heartbeat_and_no_metrics_and_the_journal_is_whole_after_it(
    on_disk: Line, disk: Disk, subscriber: Subscriber, operator: Operator, cells: list[Path], rejects: bool
) -> None:
    line = on_disk
    for name in ("left", "right"):
        line.folder(name, cells[:8], rate_hz=6, loop=True, deadline_ms=2500)
    line.settings["engine"] = {"threads": 1}
    if rejects:
        line.settings["products"]["cell"]["threshold"] = 0.0005
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 20, "the line is at work")
    late_before = line.total("rejectd_deadlines_missed_total")
    disk.freeze()
    froze = time.time()
    scrapes = 0
    while time.time() < froze + FREEZE_S:
        assert line.metrics()["rejectd_broker_connected"] == 1
        operator.publish("command/pause", {"cameras": ["nobody"]})  # somebody who asks, and makes the line log
        scrapes += 1
        time.sleep(0.2)
    problems = subscriber.status()["problems"]
    thaws = time.time()
    frozen = [(at, topic, body) for at, topic, body in list(subscriber.messages) if froze < at < thaws]
    disk.thaw()
    verdicts = [body for _, topic, body in frozen if "/verdict/" in topic]
    beats = [at for at, topic, body in frozen if topic.endswith("/t1/status") and body["state"] == "online"]
    assert scrapes >= 15
    assert len(verdicts) >= 12 * FREEZE_S * 0.7, "parts were judged all the time"
    assert all(after - before < 1.0 for before, after in zip([froze, *beats], [*beats, thaws], strict=True)), beats
    assert any("the disk does not answer" in problem for problem in problems)
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "the journal can be written again")
    assert line.total("rejectd_deadlines_missed_total") == late_before, "no verdict was late or missing"
    assert line.total("rejectd_records_sacrificed_total{what=journal}") == 0
    assert line.stop() == 0
    is_whole(line, subscriber, disk.path / "state" / "journal.sqlite")


def test_without_a_place_in_memory_a_frozen_disk_delays_no_verdict_either(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    line = on_disk
    (tmp_path / "shm").mkdir()
    script = f'mount --bind {tmp_path}/shm /dev/shm && exec {command("rejectd")} "$@"'
    line.log = tmp_path / "service.log"
    line.folder("left", cells[:8], rate_hz=8, loop=True, deadline_ms=3000)
    line.start(program=["unshare", "--mount", "sh", "-c", script, "rejectd"])
    assert "a kill may cost the journal its last entries" in line.log.read_text()
    wait_for(lambda: len(subscriber.of("verdict")) > 10, "the line is at work")
    late_before = line.total("rejectd_deadlines_missed_total")
    disk.freeze()
    before = len(subscriber.of("verdict"))
    wait_for(lambda: len(subscriber.of("verdict")) > before + 25, "verdicts go out")
    disk.thaw()
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "the journal can be written again")
    assert line.total("rejectd_deadlines_missed_total") == late_before
    assert line.process
    line.process.send_signal(signal.SIGKILL)
    line.process.wait(timeout=20)
    killed = set(subscriber.of("verdict"))
    line.log = tmp_path / "again.log"
    line.settings["cameras"]["left"]["loop"] = False
    line.start("--until-ended", program=["unshare", "--mount", "sh", "-c", script, "rejectd"])
    assert line.wait() == 0
    journal = disk.path / "state" / "journal.sqlite"
    missing = killed - {event for (event,) in rows(journal, "SELECT event_id FROM verdict")}
    assert len(missing) <= 2, "what the thread had not written yet"


def test_a_line_that_starts_on_a_frozen_disk_judges_and_takes_its_journal_up_after_it(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    line = on_disk
    line.log = tmp_path / "service.log"
    line.folder("left", cells[:4], rate_hz=5, loop=True, deadline_ms=5000)
    (disk.path / "state").mkdir()
    disk.freeze()
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 5, "parts are judged")
    assert any("the disk does not answer" in problem for problem in subscriber.status()["problems"])
    assert line.metrics()["rejectd_journal_available"] == 0
    assert "the line starts without it" in line.log.read_text()
    disk.thaw()
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "the journal is open")
    assert line.stop() == 0
    is_whole(line, subscriber, disk.path / "state" / "journal.sqlite")


def test_a_service_that_is_killed_while_the_disk_is_frozen_leaves_no_frame_out_of_the_journal(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path]
) -> None:
    line = on_disk
    line.folder("left", cells[:8], rate_hz=10, loop=True, deadline_ms=3000)
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 10, "the line is at work")
    disk.freeze()
    before = len(subscriber.of("verdict"))
    wait_for(lambda: len(subscriber.of("verdict")) > before + 20, "verdicts go out that no journal has")
    assert line.process
    line.process.send_signal(signal.SIGKILL)  # it ends when the disk lets go of it
    disk.thaw()
    line.process.wait(timeout=20)
    heard = set(subscriber.of("verdict"))
    line.settings["cameras"]["left"]["loop"] = False
    line.log = line.directory / "again.log"
    line.start("--until-ended")
    assert line.wait() == 0
    in_journal = {event for (event,) in rows(disk.path / "state" / "journal.sqlite", "SELECT event_id FROM verdict")}
    assert heard <= in_journal


def test_a_full_disk_at_the_start_costs_the_journal_alone_until_there_is_room(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    line = on_disk
    line.log = tmp_path / "service.log"
    line.folder("left", cells[:4], rate_hz=5, loop=True, deadline_ms=5000)
    disk.fill()
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 5, "parts are judged")
    assert any("the journal cannot be opened" in problem for problem in subscriber.status()["problems"])
    assert line.metrics()["rejectd_journal_available"] == 0
    disk.free()
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "the journal is taken up again")
    wait_for(lambda: subscriber.status()["problems"] == [], "nothing is wrong any more")
    assert line.stop() == 0
    is_whole(line, subscriber, disk.path / "state" / "journal.sqlite")


def test_a_disk_that_fills_while_parts_are_rejected_costs_no_verdict_and_is_taken_up_again(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    line = on_disk
    line.log = tmp_path / "service.log"
    line.folder("left", cells[:8], rate_hz=4, loop=True, deadline_ms=5000)
    line.settings["products"]["cell"]["threshold"] = 0.0005  # all are rejected, with evidence
    line.settings["engine"] = {"threads": 1}
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 8, "the line is at work")
    disk.fill()
    count = len(subscriber.of("verdict"))
    wait_for(lambda: len(subscriber.of("verdict")) > count + 30, "parts are judged on the full disk", 60)
    wait_for(lambda: subscriber.status()["problems"], "the full disk is named")
    problems = subscriber.status()["problems"]
    assert any("No space left" in problem or "full" in problem for problem in problems), problems
    disk.free()
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "the journal can be written again")
    count = len(subscriber.of("defect"))
    wait_for(lambda: len(subscriber.of("defect")) > count + 5, "defect events come again")
    causes = [verdict["cause"] for verdict in subscriber.of("verdict").values()]
    assert causes.count(None) == len(causes), "no part was left unjudged"
    assert line.stop() == 0
    assert "Traceback" not in line.log.read_text()
    (state,) = rows(disk.path / "state" / "journal.sqlite", "PRAGMA integrity_check")
    assert state == ("ok",)


def test_a_read_only_disk_costs_the_journal_alone_until_it_can_be_written(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    line = on_disk
    line.log = tmp_path / "service.log"
    line.folder("left", cells[:4], rate_hz=5, loop=True, deadline_ms=5000)
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 5, "parts are judged")
    assert any("cannot be" in problem for problem in subscriber.status()["problems"])
    assert line.metrics()["rejectd_journal_available"] == 0
    subprocess.run(["mount", "-o", "remount,rw", str(disk.path)], check=True)
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "the journal is taken up again")
    assert line.stop() == 0
    is_whole(line, subscriber, disk.path / "state" / "journal.sqlite")


def test_rejects_of_large_pictures_that_wait_for_the_disk_stay_within_the_memory_that_they_may_take(
    on_disk: Line, disk: Disk, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    """Two cameras of five megapixels: without a budget some 15 MB more with each part, up to 3.8 GB."""
    line = on_disk
    line.log = tmp_path / "service.log"
    large = []
    for number, cell in enumerate(cells[:4]):
        large.append(tmp_path / f"{number}.jpg")
        cv2.imwrite(str(large[-1]), cv2.resize(cv2.imread(str(cell)), (2592, 1944)))
    for name in ("left", "right"):
        line.folder(name, large, rate_hz=3, loop=True, deadline_ms=5000)
    line.settings |= {"memory_mb": 100, "engine": {"threads": 1}}
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.start()
    wait_for(lambda: len(subscriber.of("defect")) > 10, "the line is at work")
    assert line.process
    before_mb = resident_mb(line.process.pid)
    disk.freeze()
    judged = len(subscriber.of("verdict"))
    wait_for(lambda: len(subscriber.of("verdict")) > judged + 40, "600 MB of pictures have passed", 60)
    grown_mb = resident_mb(line.process.pid) - before_mb
    sacrificed = line.metrics()
    disk.thaw()
    assert grown_mb < 250, "100 MB of pictures, and what is under way"
    assert sacrificed["rejectd_records_sacrificed_total{what=evidence}"] > 10
    assert sacrificed["rejectd_records_sacrificed_total{what=journal}"] == 0
    assert line.stop() == 0
    is_whole(line, subscriber, disk.path / "state" / "journal.sqlite")


def resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(50_000))


def a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "said", "available"),
    [(garbage, "was damaged, and set aside", 1), (a_newer_version, "newer rejectd", 0), (a_folder, "cannot be", 0)],
)
def test_a_line_starts_whatever_lies_in_the_place_of_its_journal(
    line: Line, subscriber: Subscriber, cells: list[Path], harm: Callable[[Path], None], said: str, available: int
) -> None:
    line.folder("left", cells[:4], rate_hz=5, loop=True, deadline_ms=5000)
    state = line.directory / "state"
    state.mkdir()
    journal = state / "journal.sqlite"
    harm(journal)
    before = journal.read_bytes() if journal.is_file() else b""
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 5, "parts are judged")
    assert any(said in problem for problem in subscriber.status()["problems"]), subscriber.status()["problems"]
    assert line.metrics()["rejectd_journal_available"] == available
    assert line.stop() == 0
    if available:
        (aside,) = state.glob("journal.sqlite.damaged-*")
        assert aside.read_bytes() == before
        is_whole(line, subscriber, journal)
    else:
        assert (journal.read_bytes() if journal.is_file() else b"") == before, "it is left as it is"


def test_a_state_directory_that_cannot_be_made_costs_what_lies_in_it_alone(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.folder("left", cells[:4], rate_hz=5, loop=True, deadline_ms=5000)
    (line.directory / "file").write_text("no folder")
    line.settings["state_directory"] = str(line.directory / "file" / "state")
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 5, "parts are judged")
    problems = subscriber.status()["problems"]
    assert any("cannot be used" in problem for problem in problems)
    assert any("evidence" in problem for problem in problems)
    assert line.metrics()["rejectd_records_sacrificed_total{what=evidence}"] > 0
    began = time.monotonic()
    assert line.stop() == 0
    assert time.monotonic() - began < 8, "it does not wait for what will not come"


def test_a_journal_that_breaks_while_the_line_runs_is_set_aside_and_a_new_one_begins(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.folder("left", cells[:8], rate_hz=10, loop=True, deadline_ms=5000)
    line.settings["products"]["cell"]["threshold"] = 0.0005
    line.start()
    wait_for(lambda: len(subscriber.of("defect")) > 20, "the line is at work")
    journal = line.directory / "state" / "journal.sqlite"
    for path in (journal, journal.with_name("journal.sqlite-wal")):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(os.urandom(size))
    wait_for(lambda: list(journal.parent.glob("journal.sqlite.damaged-*")), "it is set aside", 30)
    wait_for(lambda: line.metrics()["rejectd_journal_available"] == 1, "a new one is in use")
    last = max(body["event_seq"] for body in subscriber.of("defect").values())
    wait_for(
        lambda: max(body["event_seq"] for body in subscriber.of("defect").values()) > last + 10, "events go on", 30
    )
    assert any("was damaged" in problem for problem in subscriber.status()["problems"])
    assert line.metrics()["rejectd_deadlines_missed_total{camera=left}"] == 0
    assert line.stop() == 0
    numbers = [body["event_seq"] for body in subscriber.of("defect").values()]
    assert len(numbers) == len(set(numbers)), "no number comes twice"
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
