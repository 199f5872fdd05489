"""rejectd.outbox: what was committed is never lost. Real SQLite files, real processes, a really full disk."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rejectd.messages import Cause, Decision, Policy, Result, Verdict
from rejectd.outbox import NewEvent, Outbox, OutboxError, Reader

EVER = 10**18
DAY_NS = 86_400 * 10**9


def an_event(number: int, size: int = 10) -> NewEvent:
    return NewEvent(
        event_id=f"run-a-{number}", topic="rejectd/v1/l/a/defect", payload={"number": number, "fill": "x" * size}
    )


def a_verdict(number: int, *, captured_unix_ns: int = 1, source: str = "") -> Verdict:
    return Verdict(
        event_id=f"run-a-{number}",
        camera="a",
        product="cell",
        seq=number,
        captured_ns=0,
        captured_unix_ns=captured_unix_ns,
        deadline_ns=1,
        decided_ns=1,
        decision=Decision.REJECT,
        policy=Policy.PASS,
        source=source,
        result=Result(score=2.0, threshold=1.0, p_value=0.1, bundle="b", engine="e"),
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    """Opens the journal of a line, with wide bounds if not said otherwise."""
    with contextlib.ExitStack() as stack:

        def make(
            path: Path = tmp_path / "state" / "journal.sqlite", keep_ns: int = EVER, max_bytes: int = EVER
        ) -> Outbox:
            outbox = Outbox(path, keep_ns=keep_ns, max_bytes=max_bytes)
            stack.callback(outbox.close)
            return outbox

        yield make


def waiting(outbox: Outbox, after: int = 0, limit: int = 10**6) -> list[tuple[int, int]]:
    """Number on the line and content of what the publisher would send."""
    reader = Reader(outbox.path)
    try:
        return [(event.event_seq, json.loads(event.payload)["number"]) for event in reader.waiting(after, limit)]
    finally:
        reader.close()


def rows(outbox: Outbox, query: str) -> list[tuple[object, ...]]:
    """What a person sees who opens the file with SQLite."""
    with contextlib.closing(sqlite3.connect(outbox.path)) as db, db:
        return db.execute(query).fetchall()


def test_events_wait_in_order_with_their_number_on_the_line_in_the_payload(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([], [an_event(1), an_event(2)], [])
    outbox.write([], [an_event(3)], [])
    reader = Reader(outbox.path)
    events = reader.waiting(0, 10)
    reader.close()
    assert [event.event_seq for event in events] == [1, 2, 3]
    assert {event.topic for event in events} == {"rejectd/v1/l/a/defect"}
    assert [json.loads(event.payload) for event in events] == [
        {"number": number, "fill": "x" * 10, "event_seq": number} for number in (1, 2, 3)
    ]
    assert outbox.waiting() == 3


def test_the_publisher_sees_what_was_committed_page_by_page(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    reader = Reader(outbox.path)
    assert reader.waiting(0, 10) == []
    outbox.write([], [an_event(number) for number in range(1, 8)], [])
    assert [event.event_seq for event in reader.waiting(0, 3)] == [1, 2, 3]
    assert [event.event_seq for event in reader.waiting(3, 3)] == [4, 5, 6]
    outbox.write([], [], [4, 6])
    assert [event.event_seq for event in reader.waiting(0, 10)] == [1, 2, 3, 5, 7]
    reader.close()


def test_an_acknowledged_event_is_not_sent_again_but_kept(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([], [an_event(1), an_event(2)], [])
    outbox.write([], [], [1])
    assert (waiting(outbox), outbox.waiting()) == ([(2, 2)], 1)
    assert rows(outbox, "SELECT event_id FROM event ORDER BY 1") == [("run-a-1",), ("run-a-2",)]


def test_an_event_written_twice_is_one_event_and_takes_no_number(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([(a_verdict(1), 1.5)], [an_event(1), an_event(1)], [])
    outbox.write([(a_verdict(1), 1.5)], [an_event(1), an_event(2)], [])
    assert waiting(outbox) == [(1, 1), (2, 2)]
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(1,)]


def test_a_verdict_is_kept_with_all_that_reconciliation_needs(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([(a_verdict(7), 1.5)], [], [])
    assert rows(outbox, "SELECT * FROM verdict") == [
        ("run-a-7", "a", "cell", 7, 1, "reject", None, "reject", 2.0, 1.0, 0.1, "b", 1.5)
    ]


def test_an_unjudged_part_is_kept_with_its_cause_and_what_was_done(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    late = Verdict(
        event_id="e",
        camera="a",
        product="cell",
        seq=1,
        captured_ns=0,
        captured_unix_ns=1,
        deadline_ns=1,
        decided_ns=1,
        decision=Decision.UNJUDGED,
        policy=Policy.STOP,
        cause=Cause.LATE,
    )
    outbox.write([(late, 1.5)], [], [])
    assert rows(outbox, "SELECT decision, cause, action, score FROM verdict") == [("unjudged", "late", "stop", None)]


def test_numbering_goes_on_after_a_restart_even_if_everything_was_pruned(journal: Callable[..., Outbox]) -> None:
    first = journal()
    first.write([], [an_event(1), an_event(2)], [])
    first.write([], [], [1, 2])
    first.close()
    second = journal(keep_ns=-DAY_NS)
    assert second.prune() == 0
    assert rows(second, "SELECT count(*) FROM event") == [(0,)]
    second.write([], [an_event(3)], [])
    assert waiting(second) == [(3, 3)]


WRITER = """
import itertools, sys
from dataclasses import replace
from pathlib import Path
from rejectd.outbox import NewEvent, Outbox
outbox = Outbox(Path(sys.argv[1]), keep_ns=10**18, max_bytes=10**18)
start = int(sys.argv[2])
print("open", flush=True)
for number in itertools.count(start, 5):
    events = [NewEvent(event_id=f"run-a-{n}", topic="t", payload={"number": n}) for n in range(number, number + 5)]
    outbox.write([], events, [])
    print(number + 4, flush=True)
"""


def test_nothing_that_was_committed_is_lost_when_the_writer_is_killed_in_the_middle(
    journal: Callable[..., Outbox],
) -> None:
    path = journal().path
    committed = 0
    for round_number in range(4):
        arguments = [sys.executable, "-c", WRITER, str(path), str(committed + 1)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            assert writer.stdout.readline() == "open\n"
            for _ in range(3 + 7 * round_number):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
            told = [int(line) for line in writer.stdout.read().split()]
        outbox = journal()
        found = waiting(outbox)
        assert [number for number, _ in found] == list(range(1, len(found) + 1)), "no gap in the numbering"
        assert [content for _, content in found] == list(range(1, len(found) + 1)), "whole groups, in order"
        assert len(found) % 5 == 0
        assert len(found) >= max(told, default=committed)
        committed = len(found)
        outbox.close()
    outbox = journal()
    outbox.write([], [an_event(committed + 1)], [])
    assert waiting(outbox)[-1] == (committed + 1, committed + 1)


def test_an_event_survives_a_crash_between_publish_and_acknowledge(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([], [an_event(1)], [])
    sent = waiting(outbox)
    outbox.close()  # the broker has it, the acknowledgement was not written
    assert waiting(journal()) == sent


def test_a_mistake_in_a_group_writes_nothing_and_the_next_group_is_written(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    wrong = NewEvent(event_id="x", topic="t", payload={"score": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        outbox.write([(a_verdict(1), 1.5)], [an_event(1), wrong], [])
    outbox.write([], [an_event(2)], [])
    assert waiting(outbox) == [(1, 2)]
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(0,)]


# bounds


def test_acknowledged_events_and_verdicts_go_by_age_and_waiting_events_never(journal: Callable[..., Outbox]) -> None:
    outbox = journal(keep_ns=DAY_NS)
    now = time.time_ns()
    verdicts = [(a_verdict(1, captured_unix_ns=now - 2 * DAY_NS), 1.5), (a_verdict(2, captured_unix_ns=now), 1.5)]
    outbox.write(verdicts, [an_event(number) for number in (1, 2, 3)], [])
    outbox.write([], [], [1, 2])
    rows(outbox, f"UPDATE event SET created_unix_ns = {now - 9 * DAY_NS}")
    rows(outbox, f"UPDATE event SET acknowledged_unix_ns = {now - 2 * DAY_NS} WHERE event_seq = 1")
    assert outbox.prune() == 0
    assert rows(outbox, "SELECT event_seq FROM event") == [(2,), (3,)]
    assert rows(outbox, "SELECT frame_seq FROM verdict") == [(2,)]


def fill(outbox: Outbox, events: int, acknowledged: int, verdicts: int) -> None:
    """Events of 1 kB, the first of them acknowledged, and verdicts of half a kB."""
    outbox.write([], [an_event(number, size=1000) for number in range(1, events + 1)], [])
    now = time.time_ns()
    long = [replace(a_verdict(number, captured_unix_ns=now + number), product="x" * 500) for number in range(verdicts)]
    outbox.write([(verdict, 1.5) for verdict in long], [], range(1, acknowledged + 1))


def test_what_goes_first_when_the_file_is_full_are_acknowledged_events(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=3_600_000)
    fill(outbox, events=3000, acknowledged=2500, verdicts=500)
    assert outbox.prune() == 0
    assert rows(outbox, "SELECT count(*) FROM event WHERE acknowledged_unix_ns IS NULL") == [(500,)]
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(500,)]
    kept = rows(outbox, "SELECT min(event_seq), max(event_seq) FROM event WHERE acknowledged_unix_ns IS NOT NULL")
    assert kept == [(1001, 2500)], "the oldest went, and no more than a thousand"


def test_what_goes_next_are_the_oldest_verdicts_and_waiting_events_stay(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=1_200_000)
    fill(outbox, events=500, acknowledged=200, verdicts=3000)
    assert outbox.prune() == 0
    assert rows(outbox, "SELECT count(*) FROM event") == [(300,)]
    (left, oldest, newest), = rows(outbox, "SELECT count(*), min(frame_seq), max(frame_seq) FROM verdict")  # fmt: skip
    assert (left, oldest, newest) == (1000, 2000, 2999)


def test_waiting_events_go_last_the_oldest_first_no_more_than_must_and_are_counted(
    journal: Callable[..., Outbox],
) -> None:
    outbox = journal(max_bytes=500_000)
    fill(outbox, events=600, acknowledged=0, verdicts=10)
    lost = outbox.prune()
    left = waiting(outbox)
    assert rows(outbox, "SELECT count(*) FROM verdict") == [(0,)]
    assert lost + len(left) == 600
    assert [number for number, _ in left] == list(range(lost + 1, 601))
    assert len(left) > 300, "500 kB hold more than 300 events of 1 kB"
    assert outbox.prune() == 0


def test_the_file_gets_smaller_on_disk_when_it_was_pruned(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=200_000)
    fill(outbox, events=2000, acknowledged=2000, verdicts=0)
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = outbox.path.stat().st_size
    assert before > 2_000_000
    outbox.prune()
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert outbox.path.stat().st_size <= 250_000


def test_bounds_that_cannot_be_kept_end(journal: Callable[..., Outbox]) -> None:
    outbox = journal(max_bytes=1)
    outbox.write([(a_verdict(1), 1.5)], [an_event(1)], [])
    assert outbox.prune() == 1
    assert outbox.prune() == 0


# trouble


class Disk:
    """A disk that can be made full: a small tmpfs, or a limit on the size of files where mounting is not allowed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "rejectd-test", str(directory)]
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


def test_a_full_disk_is_told_and_loses_nothing_that_was_committed(disk: Disk) -> None:
    outbox = Outbox(disk.path / "journal.sqlite", keep_ns=EVER, max_bytes=EVER)
    try:
        outbox.write([], [an_event(1)], [])
        disk.fill()
        with pytest.raises(OutboxError, match=r"cannot be written: .*; free disk space"):
            outbox.write([(a_verdict(2), 1.5)], [an_event(number, size=9000) for number in range(2, 20)], [1])
        assert outbox.waiting() == 1
        disk.free()
        outbox.write([], [an_event(2)], [])
        assert waiting(outbox) == [(1, 1), (2, 2)], "no number was lost either"
    finally:
        outbox.close()


def test_pruning_on_a_full_disk_is_told_and_changes_nothing(disk: Disk) -> None:
    outbox = Outbox(disk.path / "journal.sqlite", keep_ns=-DAY_NS, max_bytes=EVER)
    try:
        outbox.write([], [an_event(number, size=500) for number in range(1, 200)], [])
        outbox.write([], [], range(1, 200))
        disk.fill()
        with contextlib.suppress(OutboxError):  # a tmpfs may have room enough in the log; a limit on files has not
            outbox.prune()
        disk.free()
        assert outbox.prune() == 0
        assert rows(outbox, "SELECT count(*) FROM event") == [(0,)]
    finally:
        outbox.close()


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(OutboxError) as caught:
        Outbox(path, keep_ns=EVER, max_bytes=EVER)
    assert str(caught.value).startswith(f"{path}: the journal cannot be opened: ")
    assert "move a damaged file away" in str(caught.value)
    assert path.read_bytes() == content, "the damaged file stays as it was"


def test_damage_found_later_is_told_and_never_a_crash(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([(a_verdict(number), 1.5) for number in range(2000)], [an_event(number) for number in range(2000)], [])
    path = outbox.path
    rows(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")
    outbox.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 8)
        file.write(b"\xff" * (size - 4096 * 8))

    def use() -> None:
        damaged = journal()
        damaged.write([(a_verdict(5000), 1.5)], [an_event(5000)], range(2000))
        damaged.waiting()
        damaged.prune()

    with pytest.raises(OutboxError):  # at once, or when the damaged part is touched
        use()


def test_a_file_of_a_newer_version_is_left_alone(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    outbox.write([], [an_event(1)], [])
    rows(outbox, "PRAGMA user_version=99")
    outbox.close()
    with pytest.raises(OutboxError, match=r"was written by a newer rejectd; install that version again"):
        journal()
    with contextlib.closing(sqlite3.connect(outbox.path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(parents=True), lambda path: path.parent.write_text("a file")])
def test_a_path_that_cannot_be_used_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    make(path)
    with pytest.raises(OutboxError, match=r"journal\.sqlite: the journal cannot be opened: .*; let the service's user"):
        Outbox(path, keep_ns=EVER, max_bytes=EVER)


def test_a_reader_never_holds_up_the_writer_nor_sees_half_a_group(journal: Callable[..., Outbox]) -> None:
    outbox = journal()
    over = threading.Event()
    halves: list[int] = []

    def read() -> None:
        reader = Reader(outbox.path)
        while not over.is_set():
            count = len(reader.waiting(0, 10**6))
            if count % 4:
                halves.append(count)
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1, 200, 4):
        outbox.write([], [an_event(number + offset) for offset in range(4)], [])
    over.set()
    thread.join(10)
    assert not thread.is_alive()
    assert halves == []
    assert len(waiting(outbox)) == 200
