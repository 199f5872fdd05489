"""Which names are which parts, on a clock that the test sets."""

from __future__ import annotations

import pytest

from rejectd.cameras.watched.completion import Instant
from rejectd.cameras.watched.listing import Stamp
from rejectd.cameras.watched.names import GONE_S, Names, Outcome

S = 1_000_000_000
NEW, SAME, REWRITTEN = Outcome.NEW, Outcome.SAME, Outcome.REWRITTEN


def at(seconds: float) -> Instant:
    return Instant(round(seconds * S), round(seconds * S) + 10**18)


def stamp(inode: int = 1, size: int = 100, modified_s: float = 0) -> Stamp:
    ns = round(modified_s * S)
    return Stamp(inode, size, ns, ns, 1, True)


def names(settle_s: float = 0, *, new_part: bool = False, shared: bool = False) -> Names:
    return Names(settle_ns=round(settle_s * S), new_part=new_part, shared=shared)


def arrive(of: Names, seconds: float, content: Stamp, *, written: bool = True) -> Outcome:
    """A file `part.png` is written and closed at once."""
    if written:
        of.begun("part.png", at(seconds).monotonic_ns)
    return of.arrived("part.png", content, at(seconds))[1]


def test_a_file_that_is_replaced_or_written_in_place_is_the_same_part() -> None:
    parts = names()
    assert arrive(parts, 1, stamp()) is NEW
    assert arrive(parts, 2, stamp(inode=2), written=False) is REWRITTEN  # a rename over it
    assert arrive(parts, 3, stamp(inode=2)) is REWRITTEN  # with as many bytes
    assert arrive(parts, 9, stamp(inode=2, size=70)) is REWRITTEN


def test_within_the_time_to_settle_it_is_not_even_written_again() -> None:
    parts = names(0.5)
    assert arrive(parts, 1, stamp()) is NEW
    assert arrive(parts, 1.4, stamp(inode=2), written=False) is SAME
    assert arrive(parts, 1.6, stamp(inode=3), written=False) is REWRITTEN, "it counts from the first time"


def test_a_write_that_begins_while_it_settles_belongs_to_the_part_however_long_it_takes() -> None:
    parts = names(0.5)
    assert arrive(parts, 1, stamp(size=10)) is NEW
    parts.begun("part.png", at(1.2).monotonic_ns)
    assert parts.arrived("part.png", stamp(size=900), at(7))[1] is SAME
    part, _ = parts.arrived("part.png", stamp(size=900), at(7))
    assert not part.lost
    assert part.at == at(1)


def test_the_content_of_a_part_is_lost_as_soon_as_somebody_writes_to_its_file_later() -> None:
    parts = names(0.5)
    part, _ = parts.arrived("part.png", stamp(), at(1))
    parts.begun("part.png", at(1.7).monotonic_ns)
    assert part.lost


def test_a_file_whose_times_alone_have_changed_is_the_same_on_this_machine() -> None:
    parts = names()
    assert arrive(parts, 1, stamp()) is NEW
    assert arrive(parts, 5, stamp(modified_s=99), written=False) is SAME


def test_on_a_share_a_file_is_the_same_if_its_size_and_time_are_whatever_its_inode() -> None:
    parts = names(shared=True)
    assert arrive(parts, 1, stamp(), written=False) is NEW
    assert arrive(parts, 5, stamp(inode=77), written=False) is SAME
    assert arrive(parts, 6, stamp(modified_s=2), written=False) is REWRITTEN


@pytest.mark.parametrize(("written_s", "outcome"), [(1.2, SAME), (1.8, NEW)])
def test_for_a_camera_that_always_writes_the_same_name_a_later_write_is_the_next_part(
    written_s: float, outcome: Outcome
) -> None:
    parts = names(0.5, new_part=True)
    first, _ = parts.arrived("part.png", stamp(), at(1))
    assert arrive(parts, written_s, stamp(inode=2)) is outcome
    assert first.lost is (outcome is NEW)


@pytest.mark.parametrize(("gone_s", "outcome"), [(GONE_S / 2, REWRITTEN), (GONE_S * 2, NEW)])
def test_a_name_is_free_when_its_file_has_been_gone_for_longer_than_a_tool_needs_to_replace_it(
    gone_s: float, outcome: Outcome
) -> None:
    for written in (True, False):
        parts = names()
        arrive(parts, 1, stamp())
        parts.gone("part.png", at(5).monotonic_ns)
        assert arrive(parts, 5 + gone_s, stamp(inode=2), written=written) is outcome


def test_a_file_that_was_moved_away_and_back_is_the_part_that_it_was() -> None:
    parts = names()
    arrive(parts, 1, stamp())
    parts.gone("part.png", at(5).monotonic_ns)
    assert arrive(parts, 60, stamp(), written=False) is SAME


def test_a_renamed_file_is_the_part_that_it_was_and_its_name_is_free_at_once() -> None:
    parts = names()
    part, _ = parts.arrived("part.png", stamp(), at(1))
    parts.gone("part.png", at(2).monotonic_ns)
    assert parts.renamed("part.png", "archived.png", stamp())
    assert part.name == "archived.png"
    assert not part.lost
    assert arrive(parts, 2.01, stamp(inode=2)) is NEW
    assert parts.arrived("archived.png", stamp(), at(3))[1] is SAME


def test_a_file_that_was_there_before_is_old_unless_an_upload_ends() -> None:
    for grows, outcome in ((False, REWRITTEN), (True, NEW)):
        parts = names(5)
        parts.old("part.png", stamp(size=10), grows=grows)
        assert arrive(parts, 1, stamp(size=10), written=False) is SAME
        assert arrive(parts, 2, stamp(size=50)) is outcome


def test_a_file_of_the_same_name_in_a_new_folder_is_new_and_one_that_came_back_is_not() -> None:
    parts = names()
    parts.old("part.png", stamp(modified_s=1), grows=False)
    parts.renewed()
    assert parts.has("part.png", stamp(modified_s=1))
    assert not parts.has("part.png", stamp(modified_s=2)), "inode numbers are used again"


def test_a_subfolder_that_is_renamed_holds_the_parts_that_it_held() -> None:
    parts = names()
    for name in ("a/1.png", "a/b/2.png", "ab/3.png"):
        parts.old(name, stamp(), grows=False)
    parts.folder_renamed("a", "done/a")
    assert {name for name in ("done/a/1.png", "done/a/b/2.png", "ab/3.png", "a/1.png") if name in parts} == {
        "done/a/1.png",
        "done/a/b/2.png",
        "ab/3.png",
    }
