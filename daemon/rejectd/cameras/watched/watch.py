"""A watched folder: every file that another program puts there is one exposure.

The kernel reports at once when a file was closed after writing or moved in (incoming.py). Listings find what the kernel
does not report: files on network shares, bursts larger than the kernel's queue, and a folder that was replaced.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from itertools import islice

from rejectd.cameras.driver import CameraError, Remark
from rejectd.cameras.watched.incoming import Incoming
from rejectd.cameras.watched.inotify import Inotify
from rejectd.cameras.watched.listing import Kind, Stamp, file_system, is_share, walk
from rejectd.cameras.watched.names import Names, Part
from rejectd.cameras.watched.remarks import Remarks
from rejectd.cameras.watched.settled import Settled
from rejectd.contract.messages import Exposure
from rejectd.contract.settings import FolderCamera, Rewrite
from revdist.files import trouble

log = logging.getLogger(__name__)

RESCAN_S = 1.0
RESCAN_SHARE_S = 0.25  # on a share, a listing is the only way to see a file
SETTLED_SHARE_S = 1.0  # a file that nobody has written to for so long is complete
_SOON_S = 0.1  # until a folder is listed again after events were lost
_LISTING_FAILS_S = 3.0
_POLL_S = 0.05  # a part may be thought to be older than it is by so much
_LOOKED_AT_ONCE = 50  # files of a listing, half a millisecond; a picture that arrives does not wait for the rest
_LOOKED_INTO = 100  # files of a subfolder that is not watched
_FOLDERS_MOST = 10_000
_GROWING_S = 60.0  # a file that was written so shortly before the start may be the beginning of an upload


class Watch:
    """Shows each file once, in the order of arrival, and never before it is complete.

    The exposure is the instant at which the file was complete. If that is not known, it is the last instant at which
    the file was seen incomplete. Files that are there when the camera starts are old parts and are not shown. Files
    that arrive while the folder cannot be reached are shown when the folder is back, with their time of arrival, so
    that their parts end as late instead of never. A name that is written again is the same part (names.py). A file
    that goes away before it was read is a faulty picture.
    """

    def __init__(self, settings: FolderCamera, *, since_unix_ns: int | None = None) -> None:
        """`since_unix_ns`: files that are there at the start and are younger arrived while the service was down."""
        self._path = settings.path
        self._subfolders = settings.subfolders
        self._settle_ns = settings.settle_ms * 1_000_000
        self._names = Names(settle_ns=self._settle_ns, new_part=settings.rewrite is Rewrite.NEW_PART)
        self._remarks = Remarks(self._path)
        self._incoming = Incoming(self._path, self._names, self._remarks)
        self._settled = Settled(settings, self._incoming)
        self._root: tuple[int, int] | None = None
        self._inotify: Inotify | None = None
        self._since_unix_ns = since_unix_ns
        self._started = False
        self._scan_at = 0.0
        self._scan: Iterator[None] = iter(())  # a listing under way
        self._hurried = 0  # listings that follow each other soon
        self._listed_at = 0.0  # when a listing last succeeded
        self._folders: dict[str, int] = {}  # subfolders that are not watched, and when they changed

    def open(self) -> None:
        """Watch the folder. Raises CameraError if it cannot be listed, or there is none."""
        self.close()
        try:
            root = self._identity()
        except (FileNotFoundError, NotADirectoryError):
            raise CameraError(f"{self._path}: there is no such folder", hint="create it, or correct `path`") from None
        except OSError as error:
            raise self._closed_to_us(error.strerror or "unknown") from None
        if not os.access(self._path, os.R_OK | os.X_OK, effective_ids=True):
            raise self._closed_to_us("Permission denied")
        kind = file_system(self._path)
        self._names.shared = is_share(kind)
        try:
            self._listen()
            if not self._started:
                self._take_stock()
                log.info("%s: %s", self._path, whose_clock(kind))
            else:
                next(iter(walk(self._path, subfolders=False)), None)
        except OSError as error:
            self.close()
            raise self._closed_to_us(error.strerror or "unknown") from None
        if self._root != root:
            self._names.renewed()
        self._started, self._root = True, root
        self._listed_at, self._scan_at, self._scan = time.monotonic(), 0.0, iter(())

    def _listen(self) -> None:
        """Have the kernel report events of the folder; on a share that reports none, listings alone must do."""
        inotify: Inotify | None = None
        try:
            inotify = Inotify()
            inotify.watch(self._path.resolve(), "")
        except OSError as error:
            if inotify is not None:
                inotify.close()
            if not self._names.shared:
                raise
            log.info("%s: the kernel does not tell what arrives (%s); listings do", self._path, error.strerror)
            inotify = None
        self._inotify = inotify
        self._incoming.listen(inotify, listed=inotify is None)

    def close(self) -> None:
        """Stop watching. Which files were seen is remembered for the next `open`."""
        inotify, self._inotify = self._inotify, None
        self._incoming.listen(None)
        if inotify is not None:
            inotify.close()

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """The next arrived file, or a remark; None if none. Raises CameraError if the folder is gone or closed."""
        until = time.monotonic() + timeout_s
        while True:
            scanning = next(self._scan, self) is None
            self._incoming.drain()
            self._watch_new_folders()
            part = self._incoming.next()
            if part is not None:
                return self._exposure(part)
            if remark := self._remarks.take():
                return remark
            self._look_for_root()
            now = time.monotonic()
            if self._incoming.lost_some:
                self._incoming.lost_some, self._hurried = False, 2  # to be complete, a file must be the same in both
                self._scan_at = min(self._scan_at, now + _SOON_S)
            if not scanning and now >= self._scan_at:
                self._scan = self._rescan()
            elif now >= until:
                return None
            elif not scanning:
                pause_s = min(until - now, self._scan_at - now, _POLL_S)
                self._inotify.wait(pause_s) if self._inotify else time.sleep(max(0.0, pause_s))

    def _exposure(self, part: Part) -> Exposure:
        return Exposure(
            captured_ns=part.at.monotonic_ns,
            captured_unix_ns=part.at.unix_ns,
            source=part.name,
            ready_ns=part.at.monotonic_ns + self._settle_ns if self._settle_ns else 0,
            load=lambda timeout_s: self._settled.load(part, timeout_s),
        )

    def _take_stock(self) -> None:
        """Take in the files that are there when the camera starts: they are old, and are not shown."""
        now_ns = time.time_ns()
        old = []
        for entry in walk(self._path, subfolders=self._subfolders):
            if entry.kind is Kind.FOLDER:
                self._take_folder(entry.name, at_start=True)
            elif entry.stamp and (entry.stamp.size or not entry.stamp.is_file):
                written_ns = entry.stamp.written_unix_ns
                grows = written_ns > max(now_ns - _GROWING_S * 1e9, self._since_unix_ns or 0)
                self._names.old(entry.name, entry.stamp, grows=grows)
                old.append((entry.stamp.written_unix_ns, entry.name))
        self._remarks.at_start(old, self._since_unix_ns)

    def _rescan(self) -> Iterator[None]:
        """Find complete files that no event reported; each step looks at a few files."""
        began, looked_s = time.monotonic(), 0.0
        self._scan_at = began + RESCAN_S
        listing_began = self._incoming.begin_listing()
        listing: dict[str, Stamp] = {}
        try:
            for number, entry in enumerate(walk(self._path, subfolders=self._subfolders), 1):
                if entry.stamp:
                    listing[entry.name] = entry.stamp
                elif entry.kind is Kind.FOLDER:
                    self._take_folder(entry.name, at_start=False)
                if number % _LOOKED_AT_ONCE == 0:
                    looked_s += time.monotonic() - began
                    yield
                    began = time.monotonic()
        except OSError as error:  # a folder that cannot be listed is not an empty one
            self._cannot_list(error)
            return
        shared = self._names.shared
        self._incoming.compare(listing, listing_began, SETTLED_SHARE_S if shared else 0.0)
        self._listed_at = time.monotonic()
        # a huge folder is not listed more than a twentieth of the time
        self._hurried = max(0, self._hurried - 1)
        pause_s = _SOON_S if self._hurried else RESCAN_SHARE_S if shared else RESCAN_S
        self._scan_at = self._listed_at + max(pause_s, 20 * (looked_s + self._listed_at - began))

    def _cannot_list(self, error: OSError) -> None:
        """Bear a failed listing of a local folder for `_LISTING_FAILS_S`: the kernel still reports most arrivals."""
        bearable = not self._names.shared and not isinstance(error, PermissionError)
        if bearable and time.monotonic() - self._listed_at < _LISTING_FAILS_S:
            return
        self._look_for_root()
        raise self._closed_to_us(error.strerror or "unknown")

    def _closed_to_us(self, why: str) -> CameraError:
        obstacle = trouble.why_not_folder(self._path)  # it says which folder on the way is closed
        return CameraError(
            f"{self._path}: the folder cannot be watched: {obstacle.cause if obstacle else why}",
            hint="the service's user must be allowed to list it and to read its files; see also "
            "fs.inotify.max_user_watches and max_user_instances",
        )

    def _take_folder(self, name: str, *, at_start: bool) -> None:
        """Watch a subfolder. If subfolders are not watched, tell people that pictures arrive there."""
        if self._subfolders:
            if self._inotify and name not in self._inotify.folders:
                self._incoming.new_folders.append(name)
            return
        try:
            changed_ns = (self._path / name).stat().st_mtime_ns
            if self._folders.get(name) != changed_ns and len(self._folders) < _FOLDERS_MOST:
                self._folders[name] = changed_ns
                entries = islice(walk(self._path / name, subfolders=False), _LOOKED_INTO)
                if not at_start and any(entry.kind is Kind.PICTURE for entry in entries):
                    self._remarks.subfolder(name)
        except OSError:
            return

    def _watch_new_folders(self) -> None:
        """Watch new subfolders. Each is listed soon, since pictures may have arrived before it was watched."""
        while self._subfolders and self._inotify and self._incoming.new_folders:
            name = self._incoming.new_folders.popleft()
            try:
                self._inotify.watch((self._path / name).resolve(), name)
                self._incoming.lost_some = True
            except OSError as error:
                if (self._path / name).is_dir():
                    self._remarks.unwatched(name, error)

    def _look_for_root(self) -> None:
        """Raises CameraError if the folder is not the one that is watched, or cannot be reached."""
        try:
            if self._identity() == self._root:
                return
        except PermissionError as error:
            raise self._closed_to_us(error.strerror or "unknown") from None
        except OSError:
            pass
        self._root = None  # a new one may look the same
        raise CameraError(f"{self._path}: the folder is gone", hint="create it again; new files will be shown")

    def _identity(self) -> tuple[int, int]:
        status = self._path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(self._path)
        return status.st_dev, status.st_ino


def whose_clock(kind: str) -> str:
    """How it is known when a picture was made, by the file system that holds it."""
    if is_share(kind):
        return (
            f"on a share ({kind or 'of an unknown kind'}), whose clock is not ours: the time of a picture is that of "
            f"the last listing which did not show it whole; a picture is known to be whole after {SETTLED_SHARE_S:g} s"
        )
    return f"on this machine ({kind}): the time of a picture is that at which its file was complete"
