"""Explain failed file operations in both packages: what failed, with which file, why, and what a person can do.

    try:
        content = path.read_bytes()
    except trouble.FILE_ERRORS as error:
        raise trouble.error(BundleError, error, path, "read", hint="copy the bundle again") from error

Neither torch nor numpy is imported here.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from revdist.files import encodings

FILE_ERRORS = (OSError, ValueError)  # ValueError: a null byte in the name, or text that is no UTF-8
TEXT_BYTES = 16 * 1024**2  # a larger file is no text that a person wrote

_SHARE = (errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET)
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
_ACCESS = {"read": os.R_OK, "listed": os.R_OK | os.X_OK}

AnyError = TypeVar("AnyError", bound=Exception, covariant=True)


class Kind(Protocol[AnyError]):
    """A class of errors that takes a message and a hint, such as RevdistError and RejectdError."""

    def __call__(self, message: str, *, hint: str = ...) -> AnyError: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why an operation failed. With an empty `hint`, the caller knows better what to do."""

    cause: str
    hint: str = ""


def error(kind: Kind[AnyError], cause: Exception, path: Path, operation: str, *, hint: str = "") -> AnyError:
    """Make the error of a failed operation, for a person. `operation`: read, listed, written, made.

    `hint`: what to do if the cause itself does not suggest anything.
    """
    told = explain(cause, path, operation)
    return kind(f"{shown(path)}: cannot be {operation}: {told.cause}", hint=told.hint or hint)


def shown(path: Path | str) -> str:
    """Return a path that can be printed: bytes that are not UTF-8, and terminal commands, are escaped."""
    name = os.fspath(path)
    try:
        text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which no file name holds
        text = name
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def explain(cause: Exception, path: Path, operation: str = "read") -> Trouble:
    """Say why an operation on a path failed: the system's words, which people search for, and their meaning here."""
    if isinstance(cause, UnicodeDecodeError):
        return Trouble(cause=encodings.cause(bytes(cause.object)), hint=encodings.hint(bytes(cause.object)))
    if isinstance(cause, json.JSONDecodeError):
        return Trouble(cause=f"is not JSON: {cause.msg} in line {cause.lineno}")
    if isinstance(cause, UnicodeEncodeError):
        return Trouble(cause="there is a character in its name that no file's name can hold", hint="correct the name")
    if not isinstance(cause, OSError) or cause.errno is None:
        return Trouble(cause="there is a null byte in its name" if "\0" in str(path) else str(cause) or repr(cause))
    meaning = _meaning(cause.errno, path, operation)
    system = os.strerror(cause.errno)
    return Trouble(cause=f"{system}: {meaning.cause}" if meaning.cause else system, hint=meaning.hint)


def _meaning(number: int, path: Path, operation: str) -> Trouble:
    """Say what a system error means for this path; the cause is empty if there is no more to say."""
    if number in (errno.EACCES, errno.EPERM):
        return _denied(path, operation)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return _missing(path)
    if number == errno.ENAMETOOLONG:
        return _too_long(path)
    if number == errno.EISDIR:
        return Trouble(cause="")
    if number == errno.ELOOP:
        return Trouble(cause="links lead in a circle", hint="remove the link")
    if number in (errno.EMFILE, errno.ENFILE):
        return Trouble(cause="", hint="raise the limit (`ulimit -n`, LimitNOFILE=)")
    return _of_the_place(number, _mount(path))


def _of_the_place(number: int, mount: str) -> Trouble:
    """Say what is wrong with a file system."""
    if number == errno.EROFS:
        return Trouble(cause=f"{mount} can only be read", hint="choose another place, or mount it for writing")
    if number == errno.ENOSPC:
        return Trouble(cause=f"{mount} is full", hint=f"make room there: `df -h {mount}; df -i {mount}`")
    if number == errno.EDQUOT:
        return Trouble(cause=f"user {_user()} on {mount}", hint="make room, or raise the quota")
    if number == errno.EIO:
        return Trouble(cause=f"below {mount}", hint="`dmesg` says more about that disk")
    if number in _SHARE:
        return Trouble(cause=f"the share {mount} does not answer", hint="is the file server there? mount it again")
    return Trouble(cause="")


def _denied(path: Path, operation: str) -> Trouble:
    """Say which folder of the path may not be entered, or that the file itself may not be opened."""
    user = _user()
    for folder in reversed(path.absolute().parents):
        if os.path.lexists(folder) and not os.access(folder, os.X_OK, effective_ids=True):
            cause = f"it is below {shown(folder)}, which user {user} may not enter"
            return Trouble(cause=cause, hint=f"let user {user} enter that folder (chmod o+x, chgrp or setfacl)")
    wanted = _ACCESS.get(operation, os.W_OK)
    target = path if wanted != os.W_OK or os.path.lexists(path) else _nearest(path)
    if os.access(target, wanted, effective_ids=True):
        return Trouble(cause="", hint="a security module, or the rules of a file server, forbid it")
    verb = {"read": "read", "listed": "list"}.get(operation, "write")
    if target != path:
        return Trouble(cause=f"user {user} may not write into {shown(target)}", hint="choose another place, or let it")
    return Trouble(cause=f"user {user} may not {verb} it", hint=f"let user {user} {verb} it (chmod, chgrp or setfacl)")


def _missing(path: Path) -> Trouble:
    """Say which part of the path is the first that is missing or is not a folder."""
    whole = path.absolute()
    for part in (*reversed(whole.parents), whole):
        if not os.path.lexists(part):
            return Trouble(cause="" if part == whole else f"there is no folder {shown(part)}")
        if part.is_symlink() and not os.path.exists(part):  # noqa: PTH110 - says False where Path would raise
            target = shown(os.readlink(part))  # noqa: PTH115 - a text
            return Trouble(cause=f"{shown(part)} is a link to {target}, which is not there", hint="mend the link")
        if part != whole and not os.path.isdir(part):  # noqa: PTH112 - says False where Path would raise
            return Trouble(cause=f"{shown(part)} is a file")
    return Trouble(cause="")


def _too_long(path: Path) -> Trouble:
    longest = max(len(os.fsencode(part)) for part in path.parts)
    if longest > 255:
        return Trouble(cause=f"a name in it has {longest} bytes, and a file system takes 255", hint="shorten it")
    return Trouble(cause=f"the path has {len(os.fsencode(path))} bytes, and the system takes 4095", hint="shorten it")


def _nearest(path: Path) -> Path:
    """Return the nearest existing folder above a path."""
    return next((folder for folder in path.absolute().parents if os.path.lexists(folder)), Path("/"))


def _mount(path: Path) -> str:
    """Return where the file system of a path is mounted."""
    whole = path.absolute()
    return shown(next(part for part in (whole, *whole.parents) if os.path.ismount(part)))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def why_not_file(path: Path) -> Trouble | None:
    """Say why a path cannot be read as a regular file; None where it can."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            return None
    except FILE_ERRORS as cause:
        return explain(cause, path)
    return Trouble(cause=f"it is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file")


def why_not_folder(path: Path) -> Trouble | None:
    """Say why a path cannot be listed as a folder; None where it can."""
    try:
        with os.scandir(path):
            pass
    except FILE_ERRORS as cause:
        return explain(cause, path, "listed")
    return None if os.access(path, os.X_OK, effective_ids=True) else explain(_refused(), path, "listed")


def why_not_writable(path: Path) -> Trouble | None:
    """Say why nothing can be written at a path, as far as that shows without writing; None where it can."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except FILE_ERRORS as cause:
        return explain(cause, path, "written")
    folder = _nearest(path)
    if not os.path.isdir(folder):  # noqa: PTH112 - says False where Path would raise
        return explain(OSError(errno.ENOTDIR, ""), path, "written")
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return None
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return explain(OSError(errno.EROFS, "") if read_only else _refused(), path, "written")


def _refused() -> OSError:
    return OSError(errno.EACCES, "")


def read_text(path: Path, kind: Kind[AnyError], *, hint: str = "") -> str:
    """Read a small regular text file in UTF-8, without a byte order mark. Raises `kind`."""
    wrong = why_not_file(path)
    if wrong:
        raise kind(f"{shown(path)}: cannot be read: {wrong.cause}", hint=wrong.hint or hint)
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_BYTES + 1)
    except FILE_ERRORS as cause:
        raise error(kind, cause, path, "read", hint=hint) from cause
    return decode(content, path, kind, hint=hint)


def decode(content: bytes, path: Path, kind: Kind[AnyError], *, hint: str = "") -> str:
    """Decode a file's content as UTF-8, without a byte order mark. Raises `kind`."""
    if len(content) > TEXT_BYTES:
        raise kind(f"{shown(path)}: cannot be read: it has more than {TEXT_BYTES} bytes", hint=hint)
    try:
        return encodings.text(content)
    except UnicodeDecodeError as cause:
        raise error(kind, cause, path, "read", hint=hint) from cause


def parse_json(content: bytes, path: Path, kind: Kind[AnyError], *, hint: str = "") -> Any:
    """Parse a file's content as JSON. Raises `kind`."""
    try:
        return json.loads(encodings.text(content))
    except ValueError as cause:
        raise error(kind, cause, path, "read", hint=hint) from cause
    except RecursionError as cause:
        raise kind(f"{shown(path)}: cannot be read: it is nested too deep", hint=hint) from cause
