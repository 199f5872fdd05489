"""The error that a person can mend. Imports nothing, so that `rejectd --help` is quick."""

from __future__ import annotations


class RejectdError(Exception):
    """An error that a person can mend: the message says what went wrong with which object, the hint what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message
