"""Write folders and files wholly or not at all: beside their place, then synced, then moved there in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from revdist.files import trouble
from revdist.files.trouble import AnyError, Kind, Trouble

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder with these files (relative name -> content), and replace an older one.

    Whatever happens - full disk, kill, power cut - the path holds the whole old folder or the whole new one. Raises
    OSError and leaves nothing behind where the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp gives 0700, but a service under its own user reads what an engineer wrote
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        part.chmod(0o777 & ~_umask())
        for name, content in files.items():
            _write_file(part / name, content)
        for inner in {(part / name).parent for name in files} | {part}:
            _sync(inner)
        if folder.exists():
            _exchange(part, folder)
        else:
            part.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # what is left of the attempt, or the old folder after the exchange


def check_takes_file(path: Path, kind: Kind[AnyError], *, what: str = "no file can", hint: str) -> None:
    """Check that a file can be written, as far as that shows without writing. Raises `kind`."""
    wrong = trouble.why_not_writable(path)
    if wrong is None and path.is_dir():
        wrong = Trouble(cause="Is a directory")
    if wrong:
        raise kind(f"{trouble.shown(path)}: {what} be written there: {wrong.cause}", hint=wrong.hint or hint)


def write_file(path: Path, content: bytes) -> None:
    """Write a file and replace an older one, as `write` does with folders. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        _write_file(part, content)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _exchange(part: Path, folder: Path) -> None:
    """Swap two folders in one step (Linux renameat2); on file systems that cannot, in two steps."""
    libc = ctypes.CDLL(None, use_errno=True)
    swapped = libc.renameat2(_AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(folder), _RENAME_EXCHANGE)
    if swapped == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), str(folder))
    old = part.with_suffix(".old")
    folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
