"""A watched folder: every file that another program puts there is one exposure.

inotify (watchdog) says at once when a file was closed after writing or moved in. A rescan finds what it cannot say:
files on network shares, hard links, bursts larger than the kernel's queue, and a folder that was replaced.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver

from rejectd.cameras.contract import CameraError
from rejectd.cameras.reading import Reader
from rejectd.messages import Exposure, PictureError, Pixels
from revdist.pictures import is_picture

RESCAN_S = 1.0
ABANDONED_S = 60.0  # a file that was opened but not closed or touched for so long is taken as it is
_WAITING_MOST = 10_000  # names; the rescan brings what is beyond
_LOOKED_AT_ONCE = 50  # files of a rescan, half a millisecond; a picture that arrives does not wait for the rest
_FORGET_BEYOND = 1_000  # names of files that have gone: about 0.4 MB


class _Stamp(NamedTuple):
    """Tells one content of a file from the next."""

    inode: int
    size: int
    modified_ns: int
    links: int
    arrived_unix_ns: int  # of the inode's last change: closed, renamed or linked

    def same(self, other: _Stamp | None) -> bool:
        return other is not None and self[:3] == other[:3]


class _Arrival(NamedTuple):
    captured_ns: int
    captured_unix_ns: int
    stamp: _Stamp


class Watch(FileSystemEventHandler):
    """Shows each file once, in the order of arrival, and never before it is complete.

    Complete means: closed by its writer, moved in, or, where the kernel says nothing (network shares), unchanged
    between two rescans. Exposure is the instant of the arrival. Files that are there when the camera starts are old
    parts and are not shown; files that arrive while the folder cannot be reached are shown when it is back, with the
    time at which they came, so that they end as late instead of never. A name written again is a new exposure. A file
    that goes away or changes before it was read is a faulty picture.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path = path
        self._reader = reader
        self._root: tuple[int, int] | None = None
        self._observer: InotifyObserver | None = None
        self._condition = threading.Condition()  # guards what follows
        self._waiting: OrderedDict[str, _Arrival] = OrderedDict()
        self._shown: dict[str, _Stamp] = {}
        self._writing: set[str] = set()
        self._lately: set[str] = set()  # names of which something was heard since the rescan began
        self._settling: dict[str, _Stamp] = {}
        self._started = False
        self._scan_at = 0.0
        self._scan: Iterator[None] = iter(())  # a rescan under way

    def open(self) -> None:
        """Watch the folder. Raises CameraError if it cannot be listed."""
        self.close()
        root = self._identity()
        if root is None:
            raise CameraError(f"{self._path}: there is no such folder", hint="create it, or correct `path`")
        observer = InotifyObserver(generate_full_events=True)  # full: a file moved in is told from one being written
        try:
            wanted: list[type[FileSystemEvent]] = [FileClosedEvent, FileCreatedEvent, FileModifiedEvent, FileMovedEvent]
            observer.schedule(self, str(self._path.resolve()), event_filter=wanted)
            observer.start()
        except OSError as error:
            raise CameraError(
                f"{self._path}: the folder cannot be watched: {error.strerror}",
                hint="the service's user must be allowed to read it; see also fs.inotify.max_user_watches",
            ) from None
        self._observer, self._root = observer, root
        if not self._started:
            with contextlib.suppress(OSError):
                self._shown = dict(self._files())
            self._started = True
        self._scan_at = 0.0
        self._scan = iter(())

    def close(self) -> None:
        """Stop watching; what is known of the files is kept for the next open."""
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(1.0)

    def read(self, timeout_s: float) -> Exposure | None:
        """The next file that arrived, yet to be read; None if there is none. Raises CameraError if the folder went."""
        until = time.monotonic() + timeout_s
        while True:
            scanning = next(self._scan, self) is None
            with self._condition:
                if not (self._waiting or scanning):
                    self._condition.wait(max(0.0, min(until, self._scan_at) - time.monotonic()))
                item = self._waiting.popitem(last=False) if self._waiting else None
                if item is not None:
                    self._shown[item[0]] = item[1].stamp
                    self._lately.add(item[0])
            if item is not None:
                return self._exposure(*item)
            if self._identity() != self._root:
                raise CameraError(f"{self._path}: the folder is gone", hint="create it again; new files will be shown")
            if not scanning and time.monotonic() >= self._scan_at:
                self._scan = self._rescan()
            elif time.monotonic() >= until:
                return None

    def on_created(self, event: FileSystemEvent) -> None:
        """A file is about to be written; a hard link looks the same and is found by the rescan."""
        self._busy(os.fsdecode(event.src_path))

    def on_modified(self, event: FileSystemEvent) -> None:
        """A file is being written."""
        if not event.is_directory:
            self._busy(os.fsdecode(event.src_path))

    def on_closed(self, event: FileSystemEvent) -> None:
        """A file was written."""
        self._arrived(os.fsdecode(event.src_path))

    def on_moved(self, event: FileSystemEvent) -> None:
        """A file was moved in, or got its final name. A picture that was shown and is renamed is not a new one."""
        if event.is_directory:
            return
        if event.src_path:
            old = Path(os.fsdecode(event.src_path)).name
            with self._condition:
                self._writing.discard(old)
                stamp, new = self._shown.get(old), Path(os.fsdecode(event.dest_path)).name
                now = self._stamp(new) if stamp else None
                if now is not None and now.same(stamp):
                    self._shown[new] = now
                    self._lately.add(new)
                    return
        if event.dest_path:
            self._arrived(os.fsdecode(event.dest_path))

    def _busy(self, path: str) -> None:
        name = Path(path).name
        if is_picture(name):
            with self._condition:
                self._writing.add(name)
                self._lately.add(name)

    def _arrived(self, path: str) -> None:
        name, monotonic_ns, unix_ns = Path(path).name, time.monotonic_ns(), time.time_ns()
        if not is_picture(name) or Path(path).parent != self._path.resolve():
            return
        stamp = self._stamp(name)
        with self._condition:
            self._writing.discard(name)
            if stamp is None:
                stamp = _Stamp(0, -1, 0, 0, unix_ns)  # already gone again: still an exposure, shown as faulty
            if stamp.same(self._shown.get(name)) or name in self._waiting or len(self._waiting) >= _WAITING_MOST:
                return
            self._waiting[name] = _Arrival(monotonic_ns, unix_ns, stamp)
            self._condition.notify()

    def _exposure(self, name: str, arrival: _Arrival) -> Exposure:
        return Exposure(
            captured_ns=arrival.captured_ns,
            captured_unix_ns=arrival.captured_unix_ns,
            source=name,
            load=lambda timeout_s: self._load(name, arrival.stamp, timeout_s),
        )

    def _load(self, name: str, stamp: _Stamp, timeout_s: float) -> Pixels:
        pixels = self._reader.load(self._path / name, timeout_s)
        now = self._stamp(name)
        if now is None or not now.same(stamp):
            raise PictureError(f"{name}: was written again before it could be read; give each picture its own name")
        return pixels

    def _rescan(self) -> Iterator[None]:
        """Find complete files that no event told of; each step looks at a few."""
        began, looked_s = time.monotonic(), 0.0
        self._scan_at = began + RESCAN_S
        with self._condition:
            self._lately.clear()
        listing: dict[str, _Stamp] = {}
        try:
            for number, (name, stamp) in enumerate(self._files(), 1):
                listing[name] = stamp
                if number % _LOOKED_AT_ONCE == 0:
                    looked_s += time.monotonic() - began
                    yield
                    began = time.monotonic()
        except OSError:  # a folder that cannot be listed is not an empty one; a look at its identity says what is wrong
            return
        self._compare(listing)
        # a huge folder is not listed more than a twentieth of the time
        self._scan_at = time.monotonic() + max(RESCAN_S, 20 * (looked_s + time.monotonic() - began))

    def _compare(self, listing: Mapping[str, _Stamp]) -> None:
        """Show what is new in a listing and is complete."""
        monotonic_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        with self._condition:
            settled = []
            settling: dict[str, _Stamp] = {}
            for name, stamp in listing.items():
                if stamp.same(self._shown.get(name)) or name in self._waiting:
                    continue
                if stamp.same(self._settling.get(name)) and self._complete(name, stamp, unix_ns):
                    settled.append((stamp.arrived_unix_ns, name, stamp))
                else:
                    settling[name] = stamp
            for arrived_unix_ns, name, stamp in sorted(settled)[: _WAITING_MOST - len(self._waiting)]:
                age_ns = max(0, unix_ns - arrived_unix_ns)
                self._waiting[name] = _Arrival(monotonic_ns - age_ns, unix_ns - age_ns, stamp)
            self._settling = settling
            self._forget(listing.keys() | self._lately)

    def _complete(self, name: str, stamp: _Stamp, unix_ns: int) -> bool:
        """Whether nobody is writing; called with the condition held."""
        if name not in self._writing or stamp.links > 1:
            return True
        return unix_ns - max(stamp.modified_ns, stamp.arrived_unix_ns) > ABANDONED_S * 1e9

    def _forget(self, present: Set[str]) -> None:
        """Names of files that have gone, once they are many; called with the condition held."""
        self._writing &= present
        if len(self._shown) > 2 * len(present) + _FORGET_BEYOND:
            self._shown = {name: stamp for name, stamp in self._shown.items() if name in present}

    def _files(self) -> Iterator[tuple[str, _Stamp]]:
        """The pictures that are there. Raises OSError if the folder cannot be listed."""
        with os.scandir(self._path) as entries:
            for entry in entries:
                stamp = self._stamp(entry.name) if is_picture(entry.name) else None
                if stamp is not None:
                    yield entry.name, stamp

    def _stamp(self, name: str) -> _Stamp | None:
        try:
            at = (self._path / name).stat()
        except OSError:
            return None
        return _Stamp(at.st_ino, at.st_size, at.st_mtime_ns, at.st_nlink, at.st_ctime_ns)

    def _identity(self) -> tuple[int, int] | None:
        try:
            at = self._path.stat()
        except OSError:
            return None
        return (at.st_dev, at.st_ino) if self._path.is_dir() else None
