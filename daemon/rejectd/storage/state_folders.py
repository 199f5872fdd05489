"""The folders of a service's state: claims them for one service, finds one in memory, sets damaged files aside."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rejectd.contract.messages import RejectdError

log = logging.getLogger(__name__)

_IN_MEMORY = ("tmpfs", "ramfs")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it, and checked


class StateError(RejectdError):
    """The state directory cannot be used, or another service uses it."""


class TakenError(StateError):
    """Another service uses the state directory."""


class Claim:
    """Makes sure that only one service uses a state directory. The claim ends with the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: int | None = None
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Make the folder and claim it, unless that has been done. May wait for the disk.

        Raises:
            TakenError: if another service has claimed the folder.
            StateError: if the folder cannot be made or opened.
        """
        with self._lock:
            if self._file is not None:
                return
            file = None
            try:
                make(self._directory)
                file = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # writes nothing
                self._lock_file(file)
            except OSError as error:
                if file is not None:
                    os.close(file)
                if isinstance(error, BlockingIOError):
                    hint = "stop it, or give this line a state_directory of its own"
                    raise TakenError(
                        f"{self._directory}: another rejectd uses this state directory", hint=hint
                    ) from None
                hint = "let the service's user write there, or set state_directory"
                raise StateError(f"{self._directory}: cannot be used: {error.strerror}", hint=hint) from error
            self._file = file

    def _lock_file(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # some network file systems lock no folders
            log.warning("%s: cannot be locked: %s; see that no other rejectd uses it", self._directory, error.strerror)

    def ensure_within(self, patience_s: float) -> None:
        """Claim the folder, if the disk answers within `patience_s`. If it does not, the line runs without its state.

        Raises:
            TakenError: if another service has claimed the folder.
        """
        try:
            within(patience_s, self.ensure)
        except TimeoutError:
            log.error("%s: the disk has not answered for %g s; the line starts without it", self._directory, patience_s)
        except TakenError:
            raise
        except StateError as error:
            log.error("%s; the line runs without what it keeps there", error)

    def close(self) -> None:
        """Leave the folder to the next service."""
        if self._lock.acquire(timeout=1):  # a disk that does not answer ends with the process
            if self._file is not None:
                os.close(self._file)
            self._file = None
            self._lock.release()


def within(patience_s: float, work: Callable[[], None]) -> None:
    """Do work that may wait for a disk, in a thread that is left behind if the work takes too long.

    Raises:
        TimeoutError: if the work has not ended within `patience_s`; the thread goes on with it.
    """
    errors: list[BaseException] = []

    def carry_out() -> None:
        try:
            work()
        except BaseException as error:  # whoever waits is told
            errors.append(error)

    thread = threading.Thread(target=carry_out, name="state", daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise errors[0]


def make(directory: Path) -> None:
    """Make a folder where there is none; `mkdir` waits for a frozen file system even where there is one."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)


def in_memory(state: Path) -> Path | None:
    """A private folder in memory that belongs to a state directory; None if this machine offers none.

    Files in it outlive a killed process, and no write to them waits for a disk. A power failure deletes them.
    """
    name = hashlib.sha256(os.fsencode(state.absolute())).hexdigest()[:16]
    for base in _bases():
        try:
            base.mkdir(mode=0o700, exist_ok=True)
            if not _is_private(base) or _file_system(base) not in _IN_MEMORY:
                continue
            (base / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            log.warning("%s: cannot be used: %s", base, error.strerror)
        else:
            return base / name
    return None


def set_aside(path: Path, companions: tuple[str, ...] = ()) -> Path:
    """Rename a damaged file to a name with the time, and its companions (such as `-wal`) too. Nothing is deleted.

    Raises:
        OSError: if the disk does not take it.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside, number = path.with_name(f"{path.name}.damaged-{stamp}"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    path.rename(aside)
    for ending in companions:
        companion = path.with_name(path.name + ending)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + ending))
    return aside


def _bases() -> Iterator[Path]:
    """Yield where a folder in memory may be made: the same places at each start, so that the next start finds it."""
    systemd_directory = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if systemd_directory:
        yield Path(systemd_directory)
    yield _SHARED_MEMORY / f"rejectd-{os.geteuid()}"


def _is_private(directory: Path) -> bool:
    """Whether only this user can write to a folder: in /dev/shm anybody could have made it."""
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _file_system(directory: Path) -> str:
    """The kind of file system that a folder lies on; empty if unknown."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for row in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = row.partition(" - ")
        if before.split()[2] == number:
            return after.split()[0]
    return ""
