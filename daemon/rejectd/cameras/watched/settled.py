"""Reads the picture of a part from its file, so that the picture is whole and not that of another part."""

from __future__ import annotations

import time
from pathlib import Path

from rejectd.cameras import reading
from rejectd.cameras.depth import Depth
from rejectd.cameras.watched.incoming import Incoming
from rejectd.cameras.watched.listing import Stamp, stamp_of
from rejectd.cameras.watched.names import Part
from rejectd.contract.messages import PictureError, Pixels
from rejectd.contract.settings import FolderCamera
from revdist.data.pictures import Limits

_PAUSE_S = 0.02
_TRIES = 5  # for a file that changes while it is read, although the kernel reports no write


class Settled:
    """Reads the files of one watched folder. Another thread waits for new files meanwhile."""

    def __init__(self, settings: FolderCamera, incoming: Incoming) -> None:
        self._root = settings.path
        self._incoming = incoming
        self._reader = reading.Reader(settings, read=self._read_stamped)
        self._depth = Depth()
        self._stamps: dict[Path, tuple[Stamp | None, Stamp | None]] = {}  # before and after the last reading

    def load(self, part: Part, timeout_s: float) -> Pixels:
        """uint8 (H, W, 3) RGB. Raises PictureError if the file cannot be read, or not within the time."""
        until = time.monotonic() + timeout_s
        changed = 0
        while True:
            self._incoming.drain()
            name, writing = part.name, part.writing
            picture = None if writing else self._read(name, part, until)
            if part.lost:
                raise PictureError(
                    f"{name}: was written again before it could be read", hint="give each picture its own name"
                )
            if picture is not None and not part.writing and part.name == name:
                if isinstance(picture, PictureError):
                    raise picture
                return picture
            changed += not writing and part.name == name
            if time.monotonic() > until or changed > _TRIES:
                raise PictureError(
                    f"{name}: was still being written when it had to be read",
                    hint="let it be written under a temporary name, and renamed when it is whole",
                )
            self._wait(part, _PAUSE_S)

    def _wait(self, part: Part, seconds: float) -> None:
        if seconds > 0 and self._incoming.closed.wait(seconds):
            raise PictureError(f"{part.name}: the folder was closed before it was read")

    def _read(self, name: str, part: Part, until: float) -> Pixels | PictureError | None:
        """The picture, or why it cannot be read; None if the file changed meanwhile."""
        path = self._root / name
        picture: Pixels | PictureError
        self._stamps.clear()
        try:
            picture = self._reader.load(path, until - time.monotonic())
        except PictureError as error:
            picture = error
        self._incoming.drain()
        if path not in self._stamps:
            return picture if isinstance(picture, PictureError) else None
        before, after = self._stamps[path]
        if before is None or after is None:
            return picture
        unchanged = before[:3] == after[:3] and after.same(part.stamp, shared=self._incoming.shared)
        return picture if unchanged else None

    def _read_stamped(self, path: Path, limits: Limits) -> Pixels:
        """Read a picture, and its stamp before and after. Runs in the reader's thread, since a share may not answer."""
        before = stamp_of(path)
        try:
            return reading.read_picture(path, limits, self._depth)
        finally:
            self._stamps[path] = before, stamp_of(path)
