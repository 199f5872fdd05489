"""Tells people which files of a watched folder are not shown: each once, and as a warning where parts pass unseen."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path, PurePath

from rejectd.cameras.driver import Remark
from rejectd.contract.messages import iso
from revdist.data.pictures import looks_like_a_picture

log = logging.getLogger(__name__)

_KINDS_MOST = 20  # of suffixes, and of subfolders, that are named
_NAMED = 3
_EXACT_NS = 1_000_000  # the journal's times are rounded
_AGAIN_IN_A_ROW = 3  # after so many rewritten files without a new one, the camera seems to use its names again
_EDITED_S = 60.0  # a person edits a picture within this time; a name that is written again later shows another part


class Remarks:
    """The remarks about one folder. `take` hands them on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said: set[str] = set()
        self._any_shown = False
        self._rewritten = 0
        self._in_a_row = 0
        self._pending: deque[Remark] = deque(maxlen=1000)

    def take(self) -> Remark | None:
        """The next remark; None if there is none."""
        return self._pending.popleft() if self._pending else None

    def shown(self) -> None:
        """Note that a picture was shown."""
        self._any_shown = True
        self._in_a_row = 0

    def rewritten(self, name: str, after_s: float) -> None:
        """Note that a file was written again, `after_s` after its part was shown."""
        self._rewritten += 1
        self._in_a_row += 1
        text = (
            f"{self._path / name}: was written again after its part was shown, and is not judged again "
            f"({self._rewritten} such files so far); give each picture its own name, or set `rewrite: new_part`"
        )
        if self._in_a_row == _AGAIN_IN_A_ROW or str(self._rewritten).strip("0") == "1":  # 1, 10, 100, ...
            log.warning("%s", text)
        unseen = self._in_a_row >= _AGAIN_IN_A_ROW or after_s > _EDITED_S
        self._pending.append(Remark(text=text, unseen=unseen, rewritten=1))

    def other(self, name: str) -> None:
        """Note a file that may be a picture, but of a kind that is not shown."""
        suffix = PurePath(name).suffix.lower()
        files = f"files that end in {suffix}" if suffix else "files without a suffix"
        hint = "PNG, JPEG, BMP, TIFF and WebP files are shown, by these suffixes"
        unseen = not suffix or looks_like_a_picture(name)
        self._say(f"suffix {suffix}", f"{self._path / name}: {files} are not shown; {hint}", unseen=unseen)

    def subfolder(self, name: str) -> None:
        """Note that pictures arrived in a subfolder that is not watched."""
        hint = "set `subfolders: true`, or let the pictures be put into the folder itself"
        self._say(f"folder {name}", f"{self._path / name}: pictures in subfolders are not shown; {hint}")

    def unwatched(self, name: str, error: OSError) -> None:
        """Note that a subfolder cannot be watched. Listings still show its files, if the subfolder can be listed."""
        hint = "the service's user must be allowed to read it; see also fs.inotify.max_user_watches"
        text = f"{self._path / name}: cannot be watched: {error.strerror}; {hint}"
        self._say(f"unwatched {name}", text, unseen=False)

    def at_start(self, names: Iterable[tuple[int, str]], since_unix_ns: int | None) -> None:
        """Report the files that arrived before the service started and were not judged.

        Args:
            names: the time of arrival (Unix, ns) and the name of each file that was there before.
            since_unix_ns: when the last judged picture was captured; None if no picture was judged before.
        """
        missed = sorted(at for at in names if since_unix_ns is None or at[0] > since_unix_ns + _EXACT_NS)
        if not missed:
            return
        newest = ", ".join(name for _, name in missed[-_NAMED:])
        came = "came since the last picture that was judged, while the service was down"
        if since_unix_ns is None:
            came = "were there before the service"
        text = (
            f"{self._path}: pictures that {came}, and that are not judged: {len(missed)}, the last at "
            f"{iso(missed[-1][0])}: {'... ' if len(missed) > _NAMED else ''}{newest}"
        )
        log.log(logging.INFO if since_unix_ns is None else logging.WARNING, "%s", text)
        self._pending.append(Remark(text=text, missed=len(missed)))

    def _say(self, key: str, text: str, *, unseen: bool = True) -> None:
        """Log a text once for each `key`. Until a first picture is shown, all parts may pass unseen: then say that."""
        unseen = unseen and not self._any_shown
        if key in self._said:
            if unseen:
                self._pending.append(Remark(text=text, unseen=True))
            return
        if len(self._said) >= _KINDS_MOST:
            return
        self._said.add(key)
        log.warning("%s", text)
        self._pending.append(Remark(text=text, unseen=unseen))
