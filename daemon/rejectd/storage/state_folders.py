"""The folders of a service's state: claimed for one service, in memory, and what is damaged in them set aside."""

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
    """That one service alone uses a state directory. Ends with the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: int | None = None
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Make the folder and claim it, unless that has been done. May wait for the disk.

        Raises:
            TakenError: if another service has it.
            StateError: if it cannot be made or opened.
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
        """Claim it as far as the disk answers in time. The line runs without what cannot be opened.

        Raises:
            TakenError: if another service has it.
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
    """Do work that may wait for a disk, and leave it behind if that takes too long.

    Raises:
        TimeoutError: if it goes on without us.
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
    """A private folder in memory for what belongs to a state directory; None where this machine offers none.

    What lies there outlives a killed process, and no write to it waits for a disk. A power failure ends it.
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
    """Give a damaged file another name with the time, and what belongs to it (`-wal`) too. Nothing is deleted.

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
    """Where a folder in memory may be made: the same places at each start, so that the next one finds it."""
    systemd_directory = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if systemd_directory:
        yield Path(systemd_directory)
    yield _SHARED_MEMORY / f"rejectd-{os.geteuid()}"


def _is_private(directory: Path) -> bool:
    """Whether nobody but this user can write there: in /dev/shm anybody could have made it."""
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
