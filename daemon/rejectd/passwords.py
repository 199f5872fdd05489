"""Reads password files: of the broker and of cameras. Read at each attempt, so that a new password needs no restart."""

from __future__ import annotations

from pathlib import Path

from rejectd.contract.messages import RejectdError
from revdist.files import trouble

_LONGEST = 65_535  # bytes: MQTT can send no more


class PasswordError(RejectdError):
    """A password file cannot be used. Nothing of what it holds is in the message."""


def read_password(file: Path) -> str:
    """What a password file holds, without a byte order mark and without the end of its line.

    Raises:
        PasswordError: if it cannot be read, or is no UTF-8 text.
    """
    try:
        text = trouble.read_text(file, PasswordError, hint="give the path of a file that holds the password")
    except PasswordError as error:
        raise PasswordError(error.args[0], hint=error.hint) from None  # the cause would show its bytes in a traceback
    password = text.strip("\r\n")
    if len(password.encode()) > _LONGEST:
        raise PasswordError(f"{trouble.shown(file)}: has more than {_LONGEST} bytes", hint="is it another file?")
    return password
