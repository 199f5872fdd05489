"""The kernel's word of what happens in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rejectd.cameras.watched.inotify import Event, Inotify


@pytest.fixture
def kernel() -> Iterator[Inotify]:
    inotify = Inotify()
    yield inotify
    inotify.close()


def everything(kernel: Inotify) -> list[Event]:
    events: list[Event] = []
    while more := kernel.read():
        events += more
    return events


def test_it_tells_of_writing_closing_renaming_and_deleting_in_order(kernel: Inotify, tmp_path: Path) -> None:
    kernel.watch(tmp_path, "")
    assert kernel.read() == []
    with (tmp_path / "a.tmp").open("wb", buffering=0) as file:
        file.write(b"1")
    (tmp_path / "a.tmp").rename(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    created, modified, closed, away, there, deleted = everything(kernel)
    assert (created.created, modified.modified, closed.closed) == (True, True, True)
    assert (away.moved_away, there.moved_in, deleted.deleted) == (True, True, True)
    assert away.cookie == there.cookie != 0
    assert [event.name for event in (created, away, there, deleted)] == ["a.tmp", "a.tmp", "a.png", "a.png"]


def test_events_of_a_subfolder_carry_its_name_also_after_it_was_renamed(kernel: Inotify, tmp_path: Path) -> None:
    (tmp_path / "day" / "hour").mkdir(parents=True)
    for name in ("", "day", "day/hour"):
        kernel.watch(tmp_path / name, name)
    kernel.renamed("day", "yesterday")
    (tmp_path / "day" / "hour" / "x.png").touch()
    assert {event.folder for event in everything(kernel)} == {"yesterday/hour"}
    assert kernel.folders == {"", "yesterday", "yesterday/hour"}


def test_a_folder_that_goes_away_is_told_and_forgotten(kernel: Inotify, tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    kernel.watch(tmp_path / "day", "day")
    (tmp_path / "day").rmdir()
    assert any(event.lost_some for event in everything(kernel))
    assert kernel.folders == frozenset()


def test_a_queue_that_ran_over_is_told(kernel: Inotify, tmp_path: Path) -> None:
    kernel.watch(tmp_path, "")
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip(f"a queue of {most} events takes too long to fill")
    one, other = tmp_path / "1", tmp_path / "2"
    one.touch()
    for _ in range(most // 2 + 10):
        one.rename(other)
        one, other = other, one
    assert any(event.lost_some for event in everything(kernel))


@pytest.mark.parametrize("name", ["absent", "file"])
def test_what_is_no_folder_cannot_be_watched(kernel: Inotify, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        kernel.watch(tmp_path / name, "")
