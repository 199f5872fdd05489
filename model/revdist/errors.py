"""Errors that a person can mend. Each error says what went wrong, with what, and what to do."""

from __future__ import annotations


class RevdistError(Exception):
    """A message for the user, with a hint where there is a way out."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ImageError(RevdistError):
    """A picture cannot be read or has no usable shape."""


class DataError(RevdistError):
    """A data folder is not laid out as it should be."""


class TeacherError(RevdistError):
    """The teacher's weights are missing or are not what they should be."""


class BundleError(RevdistError):
    """A bundle cannot be read, trusted or written."""


class CalibrationError(RevdistError):
    """A threshold cannot be set, or there is none for this engine."""


class TrainError(RevdistError):
    """A training run cannot start, go on or be resumed."""


class RecipeError(RevdistError):
    """A recipe asks for something impossible."""
