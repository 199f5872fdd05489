"""What arrives in a watched folder: what the kernel says is put together with what listings show."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejectd.cameras.watched import incoming
from rejectd.cameras.watched.incoming import Incoming
from rejectd.cameras.watched.inotify import Inotify
from rejectd.cameras.watched.listing import Stamp, walk
from rejectd.cameras.watched.names import Names
from rejectd.cameras.watched.remarks import Remarks


class Folder:
    """A folder that is listened to, and listed when the test says so."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self.incoming = Incoming(path, Names(settle_ns=0, new_part=False, shared=shared), Remarks(path))
        self.inotify = Inotify()
        self.inotify.watch(path, "")
        self.incoming.listen(self.inotify)

    def look(self, settled_s: float = 0) -> None:
        """A listing."""
        began = self.incoming.begin_listing()
        listing: dict[str, Stamp] = {
            entry.name: entry.stamp for entry in walk(self.path, subfolders=False) if entry.stamp
        }
        self.incoming.compare(listing, began, settled_s)

    def parts(self) -> list[str]:
        """The names of the parts that have come."""
        self.incoming.drain()
        names = []
        while part := self.incoming.next():
            names.append(part.name)
        return names


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    watched = Folder(tmp_path)
    yield watched
    watched.inotify.close()


def test_a_file_that_is_held_open_is_taken_as_it_is_when_nobody_has_written_to_it_for_long(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder.path / "held.png").open("wb", buffering=0) as held:
        held.write(b"whole")
        assert folder.parts() == []
        folder.look()
        folder.look()
        assert folder.parts() == []
        monkeypatch.setattr(incoming, "ABANDONED_S", 0)
        folder.look()
        assert folder.parts() == ["held.png"]
    assert folder.parts() == [], "that it is closed at last makes no other part"


def test_what_the_kernel_did_not_tell_is_shown_by_two_listings_that_agree(folder: Folder) -> None:
    folder.incoming.listen(None, listed=True)
    (folder.path / "1.png").write_bytes(b"half")
    folder.look()
    (folder.path / "1.png").write_bytes(b"the whole")
    folder.look()
    assert folder.parts() == []
    folder.look()
    folder.look()
    assert folder.parts() == ["1.png"]


def test_on_a_share_it_takes_as_long_as_a_writer_may_pause(tmp_path: Path) -> None:
    share = Folder(tmp_path, shared=True)
    share.incoming.listen(None, listed=True)
    (tmp_path / "1.png").write_bytes(b"whole")
    for _ in range(3):
        share.look(settled_s=30)
    assert share.parts() == []
    share.look(settled_s=0)
    assert share.parts() == ["1.png"]
    share.inotify.close()


def test_a_part_that_a_listing_shows_is_as_old_as_the_listing_that_did_not_at_most(folder: Folder) -> None:
    folder.incoming.listen(None, listed=True)
    folder.look()
    before_ns = time.monotonic_ns()
    (folder.path / "1.png").write_bytes(b"whole")
    after_ns = time.monotonic_ns()
    folder.look()
    folder.look()
    part = folder.incoming.next()
    assert part is not None
    assert before_ns - 12_000_000 < part.at.monotonic_ns <= after_ns  # a kernel's tick before


def test_more_parts_than_there_is_room_for_are_left_to_listings(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "_WAITING_MOST", 2)
    for number in range(5):
        (folder.path / f"{number}.png").write_bytes(b"whole")
    assert folder.parts() == ["0.png", "1.png"]
    assert folder.incoming.lost_some
    collected = []
    for _ in range(4):
        folder.look()
        collected += folder.parts()
    assert sorted(collected) == ["2.png", "3.png", "4.png"]


def test_who_reads_does_not_wait_for_a_thread_that_is_stuck_on_a_share(folder: Folder) -> None:
    stuck, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        with folder.incoming.lock:
            stuck.set()
            goes_on.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    stuck.wait(10)
    began = time.monotonic()
    folder.incoming.drain()
    assert time.monotonic() - began < 5
    goes_on.set()
    thread.join()
