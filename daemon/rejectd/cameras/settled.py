"""The picture of a part from its file: after it has settled, whole, and not that of another part."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from rejectd.cameras.incoming import Incoming
from rejectd.cameras.listing import stamp_of
from rejectd.cameras.names import Part
from rejectd.cameras.reading import Reader
from rejectd.messages import PictureError, Pixels

_PAUSE_S = 0.02
_TRIES = 5  # for a file that changes while it is read, and of which the kernel says nothing


class Settled:
    """Reads the files of one watched folder, in another thread than the one that waits for them."""

    def __init__(self, root: Path, incoming: Incoming, reader: Reader, *, settle_ns: int) -> None:
        self._root = root
        self._incoming = incoming
        self._reader = reader
        self._settle_ns = settle_ns
        self._wait = threading.Event().wait

    def load(self, part: Part, timeout_s: float) -> Pixels:
        """uint8 (H, W, 3) RGB. Raises PictureError if the file cannot be read, or not within the time."""
        until = time.monotonic() + timeout_s
        settled = (part.at.monotonic_ns + self._settle_ns) / 1e9
        self._wait(max(0.0, min(settled, until) - time.monotonic()))
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
            self._wait(_PAUSE_S)

    def _read(self, name: str, part: Part, until: float) -> Pixels | PictureError | None:
        """The picture, or what is wrong with it; None if the file changed meanwhile."""
        path = self._root / name
        before = stamp_of(path)
        picture: Pixels | PictureError
        try:
            picture = self._reader.load(path, until - time.monotonic())
        except PictureError as error:
            picture = error
        self._incoming.drain()
        after = stamp_of(path)
        if before is None or after is None:
            return picture
        same = before[:3] == after[:3] and after.same(part.stamp, shared=self._incoming.shared)
        return picture if same else None
