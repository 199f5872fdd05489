"""rejectd.mqtt.feed: reading the outbox in a thread of its own. With a real outbox."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import wait_for

from rejectd.mqtt import feed as feed_module
from rejectd.mqtt.feed import Feed
from rejectd.storage.outbox import Entries, NewEvent, Outbox, OutboxError
from rejectd.storage.outbox_reader import Event


class Rig:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.outbox = Outbox(path, keep_ns=10**18, max_bytes=10**12)
        self.answers: list[tuple[int, list[int]]] = []
        self.told: list[str] = []
        self.feed = Feed(
            path,
            answer=self._take,
            again=lambda: self.told.append("again"),
            damaged=lambda: self.told.append("damaged"),
        )
        self.thread = threading.Thread(target=self.feed.run)
        self.thread.start()

    def _take(self, question: int, events: list[Event]) -> None:
        self.answers.append((question, [event.event_seq for event in events]))

    def write(self, *numbers: int) -> None:
        self.outbox.write(Entries(events=[NewEvent(event_id=f"e{n}", topic="a", payload={}) for n in numbers]))

    def ask(self, question: int) -> list[int]:
        self.feed.ask(question, 10, [], [])
        wait_for(lambda: self.answers and self.answers[-1][0] == question, "an answer")
        return self.answers[-1][1]

    def end(self) -> None:
        self.feed.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.outbox.close()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(feed_module, "_PAUSE_S", 0.01)
    made = Rig(tmp_path / "state" / "journal.sqlite")
    yield made
    made.end()


def test_an_outbox_whose_tables_are_still_being_made_is_empty_and_no_trouble(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.path.parent.mkdir()
    rig.path.touch()
    assert rig.ask(1) == []
    rig.write(1)
    assert rig.ask(2) == [1]
    assert (rig.told, caplog.text) == ([], "")


def test_an_outbox_that_has_not_been_made_yet_is_empty_and_is_not_made(rig: Rig) -> None:
    assert rig.ask(1) == []
    assert not rig.path.parent.exists()
    rig.write(1, 2)
    assert rig.ask(2) == [1, 2]


def test_a_new_file_in_the_place_of_a_damaged_one_is_read_and_its_numbers_go_on(rig: Rig) -> None:
    rig.write(1, 2)
    assert rig.ask(1) == [1, 2]
    rig.outbox._db().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rig.outbox.close()
    garbage = rig.path.with_name("garbage")
    garbage.write_bytes(b"?" * 4096 * 4)
    garbage.rename(rig.path)  # pages that the reader has seen would hide what lies on the disk now
    assert rig.ask(2) == []
    assert "damaged" in rig.told
    rig.outbox.open()
    rig.write(3)
    assert rig.ask(3) == [3], "no number comes twice in one run"
    assert Path(rig.outbox.aside).read_bytes() == b"?" * 4096 * 4


def test_an_outbox_that_cannot_be_read_is_said_once_and_there_is_an_answer_all_the_same(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.write(1)
    rig.outbox._db().execute("ALTER TABLE event RENAME TO elsewhere")
    assert rig.ask(1) == []
    wait_for(lambda: "again" in rig.told, "it is to be asked again after a pause")
    assert rig.ask(2) == []
    assert caplog.text.count("the outbox cannot be read") == 1
    rig.outbox._db().execute("ALTER TABLE elsewhere RENAME TO event")
    assert rig.ask(3) == [1]


def test_a_file_that_somebody_moved_away_is_made_anew(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.write(1)
    rig.path.rename(rig.path.with_name("elsewhere.sqlite"))
    rig.write(2)
    assert rig.ask(1) == [2]
    assert "somebody has moved the journal away; a new one begins" in caplog.text


def test_a_newer_file_is_no_damage(rig: Rig) -> None:
    rig.write(1)
    rig.outbox._db().execute("PRAGMA user_version=99")
    rig.outbox.close()
    with pytest.raises(OutboxError, match="newer rejectd"):
        rig.outbox.open()
    assert not list(rig.path.parent.glob("*.damaged-*"))
