"""Reads password files: of the broker and of cameras. Read at each attempt, so that a new password needs no restart."""

from __future__ import annotations

from pathlib import Path

from rejectd.contract.messages import RejectdError
from revdist.files import trouble

_LONGEST = 65_535  # bytes: MQTT can send no more


class PasswordError(RejectdError):
    """A password file cannot be used. The message holds nothing of its content."""


def read_password(file: Path) -> str:
    """The password in a file, without byte order mark and line end.

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
