"""Tells which file names of a watched folder stand for which parts.

A name that is written again within `settle_ms` is the same part. A name that is written again later is the same part
too, but that is counted. A name is free for the next part when its file has been gone for `GONE_S`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import Enum

from rejectd.cameras.watched.completion import Instant
from rejectd.cameras.watched.listing import Stamp

GONE_S = 0.25  # tools that replace a file by deleting it first are quicker
_FORGET_BEYOND = 1_000  # names of files that have gone: about 0.4 MB
_LONG_AGO = Instant(-(2**62), 0)


class Part:
    """One file that shows one part."""

    __slots__ = ("at", "gone_ns", "grows", "lost", "name", "stamp", "touched", "writing")

    def __init__(self, name: str, stamp: Stamp, at: Instant) -> None:
        self.name = name
        self.stamp = stamp
        self.at = at  # when the file was complete for the first time
        self.gone_ns: int | None = None  # when the file was deleted or moved away
        self.grows = False  # the file was there before the service, and its upload may still be under way
        self.lost = False  # the file may show another part by now
        self.touched = False  # the file was written to since it was complete
        self.writing = False  # a write that began while the file settled is under way


class Outcome(Enum):
    """Whether a completed file shows a new part, the same part, or was written again."""

    NEW = "new"
    SAME = "same"
    REWRITTEN = "rewritten"


class Names:
    """The parts by the names of their files. The caller holds a lock."""

    def __init__(self, *, settle_ns: int, new_part: bool, shared: bool = False) -> None:
        """`new_part`: a name that is written again after `settle_ns` is another part."""
        self._settle_ns = settle_ns
        self._new_part = new_part
        self.shared = shared
        self._parts: dict[str, Part] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def has(self, name: str, stamp: Stamp) -> bool:
        """Whether the file `name` with this content has been taken in already."""
        part = self._parts.get(name)
        if part is None or not stamp.same(part.stamp, shared=self.shared):
            return False
        return part.gone_ns is None or stamp.modified_ns == part.stamp.modified_ns  # inode numbers are used again

    def old(self, name: str, stamp: Stamp, *, grows: bool) -> None:
        """Take in a file that was there before the service; `grows`: somebody may still be writing it."""
        part = self._parts[name] = Part(name, stamp, _LONG_AGO)
        part.grows = grows

    def written_again(self, name: str, earliest: Instant) -> None:
        """Note that a file was written again. Its inode has the time of the later write, so `earliest` counts."""
        part = self._parts.get(name)
        if part is not None and part.at > earliest:
            part.at = earliest

    def begun(self, name: str, now_ns: int) -> None:
        """Note that somebody writes to a file."""
        part = self._parts.get(name)
        if part is None:
            return
        if self._is_free(part, now_ns):
            part.lost = True
            del self._parts[name]
            return
        part.touched = True
        if self._settles(part, now_ns):
            part.writing = True
        elif not part.writing:
            part.lost = True

    def arrived(self, name: str, stamp: Stamp, at: Instant) -> tuple[Part, Outcome]:
        """Note that a file is complete. Returns its part, and whether the part is new."""
        part = self._parts.get(name)
        if part is not None and not part.touched and stamp[:3] == part.stamp[:3]:
            part.gone_ns = None  # it was moved away and back, or closed again
            return part, Outcome.SAME
        if part is None or self._is_free(part, at.monotonic_ns) or self._was_growing(part, stamp):
            return self._new(name, stamp, at), Outcome.NEW
        changed = part.touched or not stamp.same(part.stamp, shared=self.shared)
        same_part = not changed or part.writing or self._settles(part, at.monotonic_ns)
        part.touched, part.writing, part.gone_ns = False, False, None
        if not same_part and self._new_part:
            return self._new(name, stamp, at), Outcome.NEW
        part.stamp = stamp
        part.lost = part.lost or not same_part
        return part, Outcome.SAME if same_part else Outcome.REWRITTEN

    def renamed(self, old: str, new: str, stamp: Stamp) -> bool:
        """Note that a file got another name. Returns whether the file shows a part that has been taken in.

        True also if the file was renamed before it could be read, as by cameras that write `tmp1.png` first.
        """
        part = self._parts.pop(old, None)  # the old name is free at once
        if part is None:
            return False
        part.name, part.stamp, part.gone_ns = new, stamp, None
        self._replace(new, part)
        return True

    def folder_renamed(self, old: str, new: str) -> None:
        """Note that a subfolder got another name; its files show the same parts as before."""
        moved = {name: part for name, part in self._parts.items() if name.startswith(f"{old}/")}
        for name, part in moved.items():
            del self._parts[name]
            part.name = f"{new}{name.removeprefix(old)}"
            self._replace(part.name, part)

    def renewed(self) -> None:
        """Note that the folder was replaced by another: a file that arrives in it is a new part, whatever its name."""
        for part in self._parts.values():
            part.gone_ns = _LONG_AGO.monotonic_ns

    def unlearn(self, name: str) -> None:
        """Forget a part for which there was no room, so that a later listing finds it again."""
        self._parts.pop(name, None)

    def gone(self, name: str, now_ns: int) -> None:
        """Note that a file was deleted or moved away."""
        part = self._parts.get(name)
        if part is not None and part.gone_ns is None:
            part.gone_ns = now_ns

    def listed(self, listing: Mapping[str, Stamp], lately: Set[str], now_ns: int) -> None:
        """Note which files are there. Forget files that have gone, once they are many.

        `lately`: names with an event since the listing began; the listing may not show them as they are now.
        """
        for name, part in self._parts.items():
            if name in lately:
                continue
            if name not in listing:
                part.gone_ns = now_ns if part.gone_ns is None else part.gone_ns
            elif part.gone_ns is not None and self.has(name, listing[name]):
                part.gone_ns = None
        if len(self._parts) > 2 * len(listing) + _FORGET_BEYOND:
            current_names = listing.keys() | lately
            self._parts = {
                name: part
                for name, part in self._parts.items()
                if name in current_names and not self._is_free(part, now_ns)
            }

    def _new(self, name: str, stamp: Stamp, at: Instant) -> Part:
        part = Part(name, stamp, at)
        self._replace(name, part)
        return part

    def _replace(self, name: str, part: Part) -> None:
        before = self._parts.get(name)
        if before is not None and before is not part:
            before.lost = True
        self._parts[name] = part

    def _settles(self, part: Part, now_ns: int) -> bool:
        return now_ns - part.at.monotonic_ns <= self._settle_ns

    @staticmethod
    def _is_free(part: Part, now_ns: int) -> bool:
        return part.gone_ns is not None and now_ns - part.gone_ns > GONE_S * 1e9

    @staticmethod
    def _was_growing(part: Part, stamp: Stamp) -> bool:
        return part.grows and stamp.inode == part.stamp.inode and stamp.size > part.stamp.size
