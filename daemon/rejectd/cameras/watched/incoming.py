"""Finds the files that arrive in a watched folder, from the kernel's events and from listings of the folder.

A file is complete when its writer closed it, or when it was moved or linked in. Where the kernel reports nothing (on
network shares), a file is complete when it has not changed for a while. An empty file is no exposure yet. A file that
stays empty becomes an exposure, so that its part has an end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rejectd.cameras.watched.completion import Instant, completed, look
from rejectd.cameras.watched.inotify import Event, Inotify
from rejectd.cameras.watched.listing import Kind, Stamp, kind_of, stamp_of
from rejectd.cameras.watched.names import Names, Outcome, Part
from rejectd.cameras.watched.remarks import Remarks

EMPTY_S = 10.0  # a file that was closed empty and stays empty for so long becomes an exposure without a picture
ABANDONED_S = 60.0  # a file that was opened, and neither closed nor written for so long, is taken as it is
_WAITING_MOST = 10_000  # parts; later listings find the files beyond that
_READS_MOST = 100  # of the kernel's queue in one go
_STUCK_S = 0.1
_PROMPT_S = 0.1  # from one look at the kernel's queue to the next, if nothing holds us up
_GONE = Stamp(0, -1, 0, 0, 0, False)


class _Settling(NamedTuple):
    """A file that a listing found and no event reported. It is complete once it no longer changes."""

    stamp: Stamp
    at: Instant  # the earliest instant at which the file can have been complete
    since: Instant  # when a listing first showed this content


class Incoming:
    """Parts in the order of their arrival. Safe for two threads: one waits for parts, one reads them."""

    def __init__(self, root: Path, names: Names, remarks: Remarks) -> None:
        self.lock = threading.RLock()
        self.waiting: deque[Part] = deque()
        self.new_folders: deque[str] = deque(maxlen=_WAITING_MOST)  # to be watched as well
        self.closed = threading.Event()  # set while nobody listens
        self.lost_some = False  # events were lost: a listing must show what happened
        self._root = root
        self._names = names
        self._remarks = remarks
        self._inotify: Inotify | None = None
        self._before = look()  # when the kernel's queue was last seen empty
        self._listed = self._before  # when the last complete listing began
        self._away: tuple[int, str] = (0, "")  # the first half of a rename
        self._writing: set[str] = set()
        self._lately: set[str] = set()  # names with an event since the listing began
        self._settling: dict[str, _Settling] = {}
        self._empty: OrderedDict[str, Instant] = OrderedDict()

    @property
    def shared(self) -> bool:
        """Whether the folder is on a share."""
        return self._names.shared

    def listen(self, inotify: Inotify | None, *, listed: bool = False) -> None:
        """Listen to `inotify` from now on, or to nothing if it is None; `listed`: listings alone watch the folder."""
        with self.lock:
            self._inotify = inotify
            self._before = look()
        if inotify or listed:
            self.closed.clear()
        else:
            self.closed.set()

    def drain(self) -> None:
        """Take in the kernel's events. Takes none if the other thread holds the lock, for example stuck on a share."""
        if not self.lock.acquire(timeout=_STUCK_S):
            return
        try:
            for _ in range(_READS_MOST if self._inotify else 0):
                looked_at = look()
                events = self._inotify.read() if self._inotify else []
                if not events:
                    self._before = looked_at
                    break
                now = look()
                for event in events:
                    self._take(event, now)
            self._give_up_empty(look())
        finally:
            self.lock.release()

    def next(self) -> Part | None:
        """The next part that has arrived; None if there is none."""
        with self.lock:
            return self.waiting.popleft() if self.waiting else None

    def begin_listing(self) -> Instant:
        """Note that a listing begins; call this before the folder is listed for `compare`."""
        with self.lock:
            self._lately.clear()
            return look()

    def compare(self, listing: Mapping[str, Stamp], began: Instant, settled_s: float) -> None:
        """Take in the new files of a listing that have not changed for `settled_s`, at least since the last listing."""
        with self.lock:
            now = look()
            settling: dict[str, _Settling] = {}
            settled: list[tuple[Instant, str, Stamp]] = []
            for name, stamp in listing.items():
                if self._names.has(name, stamp):
                    continue
                completed_at = completed(self._listed, now, self._written(stamp))
                if stamp.is_file and not stamp.size:
                    self._take_empty(name, completed_at)
                    continue
                candidate = self._settling.get(name)
                if candidate is None or candidate.stamp[:3] != stamp[:3]:
                    candidate = _Settling(stamp, completed_at, now)
                elif self._complete(name, stamp, now.monotonic_ns - candidate.since.monotonic_ns, settled_s):
                    settled.append((candidate.at, name, stamp))
                    continue
                settling[name] = candidate
            for completed_at, name, stamp in sorted(settled):
                self._show(name, stamp, completed_at)
            self._settling = settling
            self._writing &= listing.keys() | self._lately
            self._names.listed(listing, self._lately, now.monotonic_ns)
            self._listed = began

    def _complete(self, name: str, stamp: Stamp, unchanged_ns: int, settled_s: float) -> bool:
        if name in self._writing and stamp.links == 1:
            return unchanged_ns > ABANDONED_S * 1e9
        return unchanged_ns >= settled_s * 1e9

    def _take(self, event: Event, now: Instant) -> None:
        if event.lost_some:
            self.lost_some = True
            return
        name = f"{event.folder}/{event.name}" if event.folder else event.name
        if event.is_folder:
            self._folder(event, name)
            return
        kind = kind_of(name)
        if kind is Kind.OTHER and (event.closed or event.moved_in):
            self._remarks.other(name)
        if kind is Kind.PICTURE:
            self._lately.add(name)
            self._happened(event, name, now)
        elif event.moved_away:
            self._away = (0, "")

    def _folder(self, event: Event, name: str) -> None:
        if event.moved_away:
            self._away = (event.cookie, name)
        elif event.moved_in and event.cookie == self._away[0] and self._inotify:
            self._inotify.renamed(self._away[1], name)
            self._names.folder_renamed(self._away[1], name)
        elif event.created or event.moved_in:
            self.new_folders.append(name)

    def _happened(self, event: Event, name: str, now: Instant) -> None:
        if event.moved_away or event.deleted:
            self._names.gone(name, now.monotonic_ns)
            self._writing.discard(name)
            self._empty.pop(name, None)
            self._away = (event.cookie, name)
        elif event.moved_in:
            cookie, old = self._away
            stamp = stamp_of(self._root / name) if event.cookie == cookie else None
            if stamp is None or not self._names.renamed(old, name, stamp):
                self._arrived(name, now)
        elif event.closed:
            self._arrived(name, now)
        elif event.created:
            stamp = stamp_of(self._root / name)
            if stamp and (stamp.links > 1 or not stamp.is_file or (self._root / name).is_symlink()):
                self._arrived(name, now)
            elif not (stamp and stamp.size):  # else it may have been linked in whole, a listing will tell
                self._begun(name, now)
        elif event.modified:
            self._begun(name, now)

    def _begun(self, name: str, now: Instant) -> None:
        self._writing.add(name)
        earliest = completed(self._before, now, None)
        self._names.written_again(name, earliest)
        self._names.begun(name, earliest.monotonic_ns)

    def _arrived(self, name: str, now: Instant) -> None:
        self._writing.discard(name)
        stamp = stamp_of(self._root / name) or _GONE  # already gone again: still an exposure
        at = completed(self._before, now, self._finished(stamp, now))
        if stamp.is_file and not stamp.size:
            self._take_empty(name, at)
        else:
            if not self._names.has(name, stamp):
                self._names.written_again(name, completed(self._before, now, None))
            self._show(name, stamp, at)

    def _take_empty(self, name: str, at: Instant) -> None:
        if name in self._names:
            self._names.begun(name, at.monotonic_ns)
        elif len(self._empty) < _WAITING_MOST:
            self._empty.setdefault(name, at)

    def _give_up_empty(self, now: Instant) -> None:
        while self._empty:
            name, at = next(iter(self._empty.items()))
            if now.monotonic_ns - at.monotonic_ns < EMPTY_S * 1e9:
                return
            stamp = stamp_of(self._root / name)
            del self._empty[name]
            if stamp and not stamp.size:
                self._show(name, stamp, at)

    def _show(self, name: str, stamp: Stamp, at: Instant) -> None:
        self._empty.pop(name, None)
        part, outcome = self._names.arrived(name, stamp, at)
        if outcome is Outcome.REWRITTEN:
            self._remarks.rewritten(name, (at.monotonic_ns - part.at.monotonic_ns) / 1e9)
        elif outcome is Outcome.NEW and len(self.waiting) < _WAITING_MOST:
            self.waiting.append(part)
            self._remarks.shown()
        elif outcome is Outcome.NEW:
            self._names.unlearn(name)
            self.lost_some = True

    def _finished(self, stamp: Stamp, now: Instant) -> int | None:
        """When a file that has just arrived was closed or renamed, by its inode; None if unknown.

        The inode's last change is the closing or the renaming, unless somebody changed the file since. After a
        standstill of this process nobody can know that, and only the time of the last write counts.
        """
        if stamp is _GONE or now.monotonic_ns - self._before.monotonic_ns > _PROMPT_S * 1e9:
            return None if stamp is _GONE else self._written(stamp)
        return None if self.shared else stamp.changed_ns

    def _written(self, stamp: Stamp) -> int | None:
        return None if self._names.shared else stamp.written_unix_ns
