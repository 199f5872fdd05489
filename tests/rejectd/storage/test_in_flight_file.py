"""rejectd.storage.in_flight_file: what a killed service leaves behind. Real files, real processes that are really
killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from operator import mul
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peers import wait_for

from rejectd.contract.messages import Cause, Decision, Exposure, Frame, Policy, Result, Verdict
from rejectd.contract.payloads import encode, verdict_payload
from rejectd.decision import unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.storage import in_flight_file as inflight_module
from rejectd.storage import state_folders
from rejectd.storage.in_flight_file import InFlightError, InFlightFile, WrittenFile, in_flight_file

PAGE = 4096
RESULT = Result(score=2.0, threshold=1.0, p_value=0.01, bundle="f" * 64, engine="torch-cpu-float32-efficientnet_lite0")


def a_frame(seq: int, *, camera: str = "a", source: str = "7.png") -> Frame:
    return Frame(
        event_id=f"run-{camera}-{seq}",
        camera=camera,
        product="cell",
        seq=seq,
        trigger=seq,
        captured_ns=time.monotonic_ns(),
        captured_unix_ns=1_700_000_000_000_000_000,
        deadline_ns=time.monotonic_ns() + 10**9,
        policy=Policy.STOP,
        source=source,
        pixels=None,
        picture=None,
    )


def a_body(frame: Frame, *, detail: str = "", views: tuple[str, ...] = ()) -> bytes:
    """The verdict of a frame, as it is published."""
    verdict = Verdict(
        event_id=frame.event_id,
        camera=frame.camera,
        product=frame.product,
        seq=frame.seq,
        trigger=frame.trigger,
        captured_ns=frame.captured_ns,
        captured_unix_ns=frame.captured_unix_ns,
        deadline_ns=frame.deadline_ns,
        decided_ns=frame.captured_ns + 5_000_000,
        decision=Decision.REJECT,
        policy=frame.policy,
        source=frame.source,
        detail=detail,
        result=RESULT,
        views=views,
    )
    return encode(verdict_payload("l", verdict))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., InFlightFile]]:
    """Opens the in-flight file of a service; the one that it had before is let go of, as if it had been killed."""
    with contextlib.ExitStack() as stack:
        (tmp_path / "state").mkdir(exist_ok=True)

        def make(slots: int = 16, path: Path = tmp_path / "state" / "in-flight.bin") -> InFlightFile:
            stack.close()
            book = InFlightFile(path, line="l", slots=slots)
            stack.callback(book.close)
            return book

        yield make


def left(book: InFlightFile) -> dict[str, dict[str, Any]]:
    assert len({body["event_id"] for body in book.left}) == len(book.left)
    return {body["event_id"]: body for body in book.left}


def test_a_frame_that_was_open_is_found_as_stopping_and_one_that_was_closed_with_its_verdict(
    opened: Callable[..., InFlightFile],
) -> None:
    book = opened()
    assert book.left == []
    frames = [a_frame(seq) for seq in (1, 2, 3)]
    for frame in frames:
        book.open(frame)
    body = a_body(frames[1])
    book.end("run-a-2", body)
    book.end("run-a-3", a_body(frames[2]))
    book.clear(["run-a-3"])
    found = left(opened())
    assert set(found) == {"run-a-1", "run-a-2"}, "what is in the journal is gone"
    assert found["run-a-2"] == json.loads(body)
    expected = verdict_payload("l", unjudged(frames[0], Cause.STOPPING, frames[0].captured_ns))
    stopping = found["run-a-1"]
    assert 0 <= stopping.pop("latency_ms") < 60_000
    expected.pop("latency_ms")
    assert stopping == expected
    assert (stopping["decision"], stopping["cause"], stopping["action"]) == ("unjudged", "stopping", "stop")


def test_what_was_left_stays_until_it_is_in_the_journal(opened: Callable[..., InFlightFile]) -> None:
    book = opened()
    book.open(a_frame(1))
    for _ in range(3):  # starts that were killed before they had written it
        book = opened()
        assert set(left(book)) == {"run-a-1"}
    book.clear(["run-a-1"])
    assert opened().left == []


def test_what_was_left_keeps_its_slots_and_the_others_are_free(opened: Callable[..., InFlightFile]) -> None:
    book = opened(slots=3)
    book.open(a_frame(1))
    book.open(a_frame(2))
    book = opened(slots=3)
    book.open(a_frame(3))
    assert book.missed == 0
    book.open(a_frame(4))
    assert book.missed == 1
    book.clear(body["event_id"] for body in book.left)
    book.open(a_frame(5))
    assert set(left(opened(slots=3))) == {"run-a-3", "run-a-5"}


def test_a_ledger_keeps_its_frames_in_the_in_flight_file(opened: Callable[..., InFlightFile]) -> None:
    book = opened()
    ledger = Ledger("run", margin=Margin(0), book=book)
    picture = Exposure(captured_ns=0, captured_unix_ns=1, source="s")
    frames = [ledger.open(picture, camera="a", product="cell", policy=Policy.PASS, deadline_ns=10**9) for _ in range(3)]
    ledger.close(unjudged(frames[0], Cause.LATE, 1), a_body(frames[0], detail="first"))
    ledger.close(unjudged(frames[0], Cause.OVERLOAD, 1), a_body(frames[0], detail="second"))
    found = left(opened())
    assert {name: body["detail"] for name, body in found.items()} == {
        "run-a-1": "first",
        "run-a-2": None,
        "run-a-3": None,
    }


def test_slots_are_used_again_and_only_what_finds_none_is_missed(opened: Callable[..., InFlightFile]) -> None:
    book = opened(slots=4)
    for seq in range(1, 101):
        book.open(a_frame(seq))
        book.end(f"run-a-{seq}", a_body(a_frame(seq)))
        book.clear([f"run-a-{seq}"])
    assert book.missed == 0
    for seq in range(101, 108):
        book.open(a_frame(seq))
    assert book.missed == 3
    book.end("run-a-107", b"its verdict")
    book.clear(["run-a-107", "run-a-101", "of nobody"])
    book.open(a_frame(108))
    assert book.missed == 3
    assert set(left(opened(slots=4))) == {f"run-a-{seq}" for seq in (102, 103, 104, 108)}


def test_an_in_flight_file_grows_and_keeps_what_it_holds(opened: Callable[..., InFlightFile]) -> None:
    book = opened(slots=2)
    book.open(a_frame(1))
    book = opened(slots=6)
    assert set(left(book)) == {"run-a-1"}
    for seq in range(2, 7):
        book.open(a_frame(seq))
    assert book.missed == 0
    book = opened(slots=2)
    assert len(left(book)) == 6, "it never becomes too small for what it holds"


# long texts


def found_after(
    opened: Callable[..., InFlightFile], write: Callable[[InFlightFile], None]
) -> dict[str, dict[str, Any]]:
    book = opened(slots=8)
    write(book)
    return left(opened(slots=8))


def test_texts_that_are_too_long_are_cut_and_all_else_is_kept(opened: Callable[..., InFlightFile]) -> None:
    frame = a_frame(1, source="x" * 3000)
    views = tuple(f"run-left-{number}" for number in range(500))
    whole = json.loads(a_body(frame, detail="y" * 3000, views=views))

    def write(book: InFlightFile) -> None:
        book.open(frame)
        book.open(a_frame(2, source="z" * 3000))
        book.end("run-a-1", a_body(frame, detail="y" * 3000, views=views))

    found = found_after(opened, write)
    for name in ("source", "detail", "views"):
        cut = found["run-a-1"].pop(name)
        assert cut
        assert whole.pop(name)[: len(cut)] == cut
    assert found["run-a-1"] == whole
    assert found["run-a-2"]["source"].startswith("zzz")


@given(
    texts=st.lists(st.builds(mul, st.sampled_from("x\0镜\U0001f4f7"), st.integers(0, 600)), min_size=4, max_size=4),
    camera=st.text("abc_-", min_size=1, max_size=64),
    views=st.integers(0, 40),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_whatever_is_said_of_a_frame_it_and_its_neighbours_are_found(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], camera: str, views: int
) -> None:
    path = tmp_path_factory.mktemp("book") / "in-flight.bin"
    frames = [a_frame(seq, camera=camera, source=texts[0]) for seq in (1, 2, 3)]
    with contextlib.closing(InFlightFile(path, line="l", slots=3)) as book:
        for frame in frames:
            book.open(frame)
        book.end(
            frames[1].event_id, a_body(frames[1], detail=texts[1], views=(f"20261125T060000-ab-{camera}",) * views)
        )
        book.end(frames[2].event_id, a_body(frames[2], detail=texts[2] + texts[3]))
    with contextlib.closing(InFlightFile(path, line="l", slots=3)) as book:
        found = left(book)
    assert {name: body["decision"] for name, body in found.items()} == {
        frames[0].event_id: "unjudged",
        frames[1].event_id: "reject",
        frames[2].event_id: "reject",
    }


def test_long_texts_of_many_bytes_a_letter_hurt_neither_their_frame_nor_its_neighbours(
    opened: Callable[..., InFlightFile],
) -> None:
    frames = [a_frame(seq, camera="c" * 64, source="\U0001f4f7" * 600) for seq in range(1, 9)]

    def write(book: InFlightFile) -> None:
        for frame in frames:
            book.open(frame)
        for frame in frames[::2]:
            book.end(frame.event_id, a_body(frame, detail="镜头脏了" * 200, views=("v" * 100,) * 9))

    found = found_after(opened, write)
    assert {name: body["decision"] for name, body in found.items()} == {
        frame.event_id: "reject" if frame.seq % 2 else "unjudged" for frame in frames
    }


# kills and power failures


def work(path: Path, told: int, seed: int) -> None:
    """A service that passes frames without end, and says in a pipe what it has done."""
    chance = random.Random(seed)
    book = InFlightFile(path, line="l", slots=64)
    frames: list[Frame] = []
    ended: list[Frame] = []
    for seq in range(1, 10**9):
        frame = a_frame(seq, source="s" * chance.randrange(700))
        book.open(frame)
        os.write(told, f"open {seq}\n".encode())
        frames.append(frame)
        while len(frames) > 12:
            frame = frames.pop(chance.randrange(len(frames)))
            book.end(frame.event_id, a_body(frame, detail="d" * chance.randrange(700)))
            os.write(told, f"end {frame.seq}\n".encode())
            ended.append(frame)
        if len(ended) > 20:
            for frame in ended:
                os.write(told, f"clear {frame.seq}\n".encode())
                book.clear([frame.event_id])
            ended.clear()


def killed(path: Path, seed: int) -> list[str]:
    """What a service had said when it was killed."""
    ours, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(path, told, seed)
        finally:
            os._exit(1)
    os.close(told)
    with open(ours, "rb") as said:  # noqa: PTH123 - a pipe
        first = said.readline()
        time.sleep(random.Random(seed).uniform(0, 0.012))  # the instant of a kill is nobody's choice
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return (first + said.read()).decode().split("\n")[:-1]


def test_whenever_a_service_is_killed_each_frame_has_its_older_or_its_newer_verdict_whole(tmp_path: Path) -> None:
    path = tmp_path / "in-flight.bin"
    rounds = 30
    seen = 0
    for seed in range(rounds):
        said: dict[str, set[int]] = {"open": set(), "end": set(), "clear": set()}
        for line in killed(path, seed):
            what, number = line.split()
            said[what].add(int(number))
        with contextlib.closing(InFlightFile(path, line="l", slots=64)) as book:
            found = {body["seq"]: body for body in book.left}
            assert len(found) == len(book.left)
            book.clear([body["event_id"] for body in book.left])
        assert said["open"] - said["clear"] <= set(found), "every frame that is not in the journal is found"
        for seq in set(found) - said["clear"]:
            body = found[seq]
            assert body["decision"] == "reject" or seq not in said["end"], "a verdict that was closed counts"
            assert (body["decision"], body["cause"]) in (("reject", None), ("unjudged", "stopping"))
            assert set(body["source"] or "s") == {"s"}
            assert set(body["detail"] or "d") == {"d"}
            assert set(body) == set(json.loads(a_body(a_frame(1))))
        at_most_one_that_was_not_said = set(found) - said["open"]
        assert len(at_most_one_that_was_not_said) <= 1
        seen += len(found)
    assert seen > rounds * 8, "the kills came while frames were in flight"


def step_by_step(path: Path, told: int, dies_at: int) -> None:
    """A service that uses one slot for two frames, and is killed before it carries out one line of its code."""
    lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        nonlocal lines
        if frame.f_globals["__name__"] != "rejectd.storage.in_flight_file":
            return None
        lines += event == "line"
        if lines == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    book = InFlightFile(path, line="l", slots=1)
    sys.settrace(trace)
    for frame in (a_frame(1), a_frame(2)):
        book.open(frame)
        os.write(told, f"open {frame.seq}\n".encode())
        book.end(frame.event_id, a_body(frame))
        os.write(told, f"end {frame.seq}\n".encode())
        os.write(told, f"clear {frame.seq}\n".encode())
        book.clear([frame.event_id])
    sys.settrace(None)


def test_before_whichever_line_a_service_is_killed_its_frame_has_its_older_or_its_newer_verdict(
    tmp_path: Path,
) -> None:
    path = tmp_path / "in-flight.bin"
    for dies_at in range(1, 1000):
        ours, told = os.pipe()
        child = os.fork()
        if child == 0:
            step_by_step(path, told, dies_at)
            os._exit(0)
        os.close(told)
        with open(ours, "rb") as pipe:  # noqa: PTH123 - a pipe
            said = pipe.read().decode().splitlines()
        _, status = os.waitpid(child, 0)
        with contextlib.closing(InFlightFile(path, line="l", slots=1)) as book:
            found = {body["seq"]: body["decision"] for body in book.left}
        in_flight = [seq for seq in (1, 2) if f"open {seq}" in said and f"clear {seq}" not in said]
        assert set(in_flight) <= set(found), (dies_at, said)
        for seq in in_flight:
            assert found[seq] == "reject" or f"end {seq}" not in said, (dies_at, said)
        assert len(found) <= 1
        if status == 0:
            break
    assert 40 < dies_at < 999, "each line of opening, ending and clearing two frames had its turn"


def torn(path: Path, at: int, count: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0x5A for byte in old))


@pytest.mark.parametrize("at", [16, 18, 20, 22, 30, 400])
def test_a_slot_that_a_power_failure_tore_is_skipped_and_the_others_are_found(
    opened: Callable[..., InFlightFile], tmp_path: Path, at: int
) -> None:
    book = opened(slots=4)
    for seq in range(1, 5):
        book.open(a_frame(seq))
    torn(tmp_path / "state" / "in-flight.bin", 2 * PAGE + at)  # checksum, length or text of the second slot
    assert set(left(opened(slots=4))) == {"run-a-1", "run-a-3", "run-a-4"}


def test_a_slot_whose_mark_makes_no_sense_is_skipped(opened: Callable[..., InFlightFile], tmp_path: Path) -> None:
    book = opened(slots=4)
    book.open(a_frame(1))
    book.open(a_frame(2))
    torn(tmp_path / "state" / "in-flight.bin", PAGE)
    book = opened(slots=4)
    assert set(left(book)) == {"run-a-2"}
    for seq in range(3, 6):
        book.open(a_frame(seq))
    assert book.missed == 0, "the torn slot is used again"


@given(at=st.integers(PAGE, 5 * PAGE - 1), count=st.integers(1, 700), seed=st.binary(min_size=1, max_size=64))
@hypothesis_settings(max_examples=60, deadline=None)
def test_whatever_is_torn_the_in_flight_file_opens_and_tells_no_half_verdict(
    tmp_path_factory: pytest.TempPathFactory, at: int, count: int, seed: bytes
) -> None:
    path = tmp_path_factory.mktemp("book") / "in-flight.bin"
    with contextlib.closing(InFlightFile(path, line="l", slots=4)) as book:
        for seq in range(1, 5):
            book.open(a_frame(seq))
        book.end("run-a-3", a_body(a_frame(3)))
    with path.open("r+b") as file:
        file.seek(at)
        file.write((seed * count)[: min(count, 5 * PAGE - at)])
    with contextlib.closing(InFlightFile(path, line="l", slots=4)) as book:
        assert all(body["event_id"] == f"run-a-{body['seq']}" and body["source"] == "7.png" for body in book.left)
        assert len(book.left) >= 2, "no more than two slots can be hit"


# the file


def test_a_second_service_on_one_directory_is_refused_with_what_to_do(
    opened: Callable[..., InFlightFile], tmp_path: Path
) -> None:
    first = opened()
    first.open(a_frame(1))
    path = tmp_path / "state" / "in-flight.bin"
    start = "InFlightFile(Path(sys.argv[1]), line='l')"
    script = f"import sys; from pathlib import Path; from rejectd.storage.in_flight_file import InFlightFile; {start}"
    second = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == (
        f"rejectd.storage.in_flight_file.InFlightError: {path}: another rejectd uses this state directory; "
        "stop it, or give this line a state_directory of its own"
    )
    first.end("run-a-1", a_body(a_frame(1)))
    assert left(opened())["run-a-1"]["decision"] == "reject", "the first one was not disturbed"


def test_a_service_that_has_ended_leaves_the_directory_to_the_next(tmp_path: Path) -> None:
    for _ in range(3):
        InFlightFile(tmp_path / "in-flight.bin", line="l", slots=2).close()


@pytest.mark.parametrize(
    "content", [b"#!/bin/sh\n", b"SQLite format 3\0" + bytes(2 * PAGE - 16), b"rejectd1" + bytes(100), b"r"]
)
def test_a_damaged_file_is_set_aside_and_the_service_goes_on(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in-flight.bin"
    path.write_bytes(content)
    with contextlib.closing(InFlightFile(path, line="l", slots=2)) as book:
        assert book.left == []
        book.open(a_frame(1))
    (aside,) = tmp_path.glob("in-flight.bin.damaged-*")
    assert aside.read_bytes() == content, "never deleted"
    with contextlib.closing(InFlightFile(path, line="l", slots=2)) as book:
        assert set(left(book)) == {"run-a-1"}


@pytest.mark.parametrize("size", [0, 3 * PAGE])
def test_a_file_that_a_killed_first_start_left_is_no_trouble(tmp_path: Path, size: int) -> None:
    path = tmp_path / "in-flight.bin"
    path.write_bytes(bytes(size))
    with contextlib.closing(InFlightFile(path, line="l", slots=2)) as book:
        assert book.left == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "rejectd-test", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_too_little_memory_is_an_error_at_the_opening_and_never_a_crash_later(small_disk: Path) -> None:
    path = small_disk / "in-flight.bin"
    with pytest.raises(OSError, match="No space left"):
        InFlightFile(path, line="l", slots=100)
    with contextlib.closing(InFlightFile(path, line="l", slots=30)) as book:
        (small_disk / "ballast").write_bytes(bytes(256 * 1024 - 32 * PAGE - 4 * PAGE))
        with contextlib.suppress(OSError), (small_disk / "more").open("wb", buffering=0) as file:
            while file.write(bytes(PAGE)):
                pass
        for seq in range(30):
            book.open(a_frame(seq))
            book.end(f"run-a-{seq}", a_body(a_frame(seq)))
        assert book.missed == 0
    with contextlib.closing(InFlightFile(path, line="l", slots=30)) as book:
        assert len(book.left) == 30


# where it lies


def test_it_lies_in_memory_in_a_folder_of_its_own_whose_memory_is_free_again_when_nothing_is_left(
    tmp_path: Path,
) -> None:
    book = in_flight_file(tmp_path, line="l", slots=4)
    assert isinstance(book, InFlightFile)
    folder = state_folders.in_memory(tmp_path)
    assert folder
    assert [file.name for file in folder.iterdir()] == ["in-flight.bin"]
    assert list(tmp_path.iterdir()) == [], "nothing lies on the disk"
    with pytest.raises(InFlightError, match="another rejectd uses this state directory"):
        in_flight_file(tmp_path, line="l", slots=4)
    book.open(a_frame(1))
    book.close()
    book = in_flight_file(tmp_path, line="l", slots=4)
    assert set(left(book)) == {"run-a-1"}
    book.clear(["run-a-1"])
    book.close()
    assert list(folder.iterdir()) == []


class Writer:
    """A service without a place in memory: its in-flight thread and the file on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.book = WrittenFile(path, line="l", slots=4)
        self.thread = threading.Thread(target=self.book.run)
        self.thread.start()

    def end(self) -> None:
        self.book.close()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def on_disk(self) -> dict[str, Any]:
        copy = self.path.with_name("copy.bin")
        copy.write_bytes(self.path.read_bytes())
        return left(WrittenFile(copy, line="l", slots=4))


def test_without_a_place_in_memory_a_thread_writes_it_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_folders, "in_memory", lambda _directory: None)
    assert isinstance(in_flight_file(tmp_path, line="l"), WrittenFile)
    assert "a kill may cost the journal its last entries" in caplog.text
    writer = Writer(tmp_path / "state" / "in-flight.bin")
    for seq in (1, 2, 3):
        writer.book.open(a_frame(seq))
    writer.book.end("run-a-2", a_body(a_frame(2)))
    writer.book.clear(["run-a-3"])
    writer.end()
    assert {name: body["decision"] for name, body in writer.on_disk().items()} == {
        "run-a-1": "unjudged",
        "run-a-2": "reject",
    }
    again = Writer(writer.path)
    assert set(left(again.book)) == {"run-a-1", "run-a-2"}
    again.book.clear(["run-a-1", "run-a-2"])
    again.end()
    assert again.on_disk() == {}


def test_a_disk_that_does_not_take_it_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inflight_module, "_RETRY_S", 0.01)
    (tmp_path / "state").write_text("a file")
    writer = Writer(tmp_path / "state" / "in-flight.bin")
    writer.book.open(a_frame(1))
    wait_for(lambda: "cannot be written" in caplog.text, "it is said")
    (tmp_path / "state").unlink()
    wait_for(lambda: writer.path.exists() and "run-a-1" in writer.on_disk(), "it is written after all")
    writer.end()
    assert caplog.text.count("cannot be written") == 1
