"""rejectd.page.store: users, labels and what people did, in the page's own file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejectd.page.access import AccessError, Role
from rejectd.page.store import Store, StoreError, write_secret


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "page")
    yield opened
    opened.close()


def test_a_user_is_found_by_name_and_password_also_after_a_restart(store: Store) -> None:
    store.add_user("anna", Role.OPERATOR, "quiet green lathe")
    again = Store(store.directory)
    user = again.log_in("anna", "quiet green lathe")
    again.close()
    assert user is not None
    assert (user.role, user.one_time) == (Role.OPERATOR, True)
    assert store.log_in("anna", "another") is None
    assert store.log_in("nobody", "quiet green lathe") is None


def test_the_last_engineer_stays(store: Store) -> None:
    store.add_user("anna", Role.ENGINEER, "quiet green lathe")
    with pytest.raises(AccessError, match="last engineer"):
        store.remove_user("anna")
    store.add_user("bert", Role.ENGINEER, "quiet green lathe")
    store.remove_user("anna")
    assert [user.name for user in store.users()] == ["bert"]


def test_the_latest_label_of_a_part_holds_and_can_be_taken_back(store: Store) -> None:
    store.label("e1", "false", "dust", "anna")
    store.label("e1", "right", "", "bert")
    store.label("e2", "escape", "scratch", "anna")
    assert {event: row["kind"] for event, row in store.labels(["e1", "e2", "e3"]).items()} == {
        "e1": "right",
        "e2": "escape",
    }
    store.label("e1", None, "", "bert")
    assert list(store.labels(["e1", "e2"])) == ["e2"]
    assert store.labelled(None, 10) == ["e2"]
    assert store.labelled("right", 10) == []


def test_what_people_did_is_told_the_latest_first(store: Store) -> None:
    store.audit("anna", "log in", "127.0.0.1")
    store.audit("bert", "threshold", "cell 0.6", ok=False)
    assert [(row["who"], row["what"], row["ok"]) for row in store.audited()] == [
        ("bert", "threshold", 0),
        ("anna", "log in", 1),
    ]


def test_the_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "page.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="newer rejectd"):
        Store(tmp_path)


def test_the_file_and_secrets_can_be_read_by_their_owner_alone(store: Store) -> None:
    write_secret(store.directory / "secret", "x")
    for name in ("secret", "page.sqlite"):
        assert (store.directory / name).stat().st_mode & 0o077 == 0
