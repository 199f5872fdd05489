"""Reads password files: of the broker and of cameras. Read at each attempt, so that a new password needs no restart."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from rejectd.messages import RejectdError

_LONGEST = 65_535  # bytes: MQTT can send no more


class PasswordError(RejectdError):
    """A password file cannot be used. Nothing of what it holds is in the message."""


def read_password(file: Path) -> str:
    """What a password file holds, without a byte order mark and without the end of its line.

    Raises:
        PasswordError: if it cannot be read, or is no UTF-8 text.
    """
    content = _content(file)
    if len(content) > _LONGEST:
        raise PasswordError(f"{file}: has more than {_LONGEST} bytes", hint="give a file that holds a password alone")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise PasswordError(f"{file}: is UTF-16, not UTF-8", hint=f"save it as UTF-8: iconv -f UTF-16 -t UTF-8 {file}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = f"save it as UTF-8; from Windows: iconv -f CP1252 -t UTF-8 {file}"
        raise PasswordError(f"{file}: is not UTF-8 text", hint=hint) from None  # the cause would show its bytes
    return text.strip("\r\n")


def _content(file: Path) -> bytes:
    """At most one byte more than a password may have. Does not wait for the other side of a pipe."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PasswordError(f"{file}: is not a file", hint="give the path of a file that holds the password")
            return opened.read(_LONGEST + 1)
    except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
        hint = "let the service's user read the file, and enter the folders above it"
        raise PasswordError(f"{file}: the password cannot be read: {error.strerror}", hint=hint) from error
    except OSError as error:
        raise PasswordError(
            f"{file}: the password cannot be read: {error.strerror}", hint="copy it to another place"
        ) from error
