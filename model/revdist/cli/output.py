"""Prints the lines and writes the files of the commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from revdist.errors import RevdistError
from revdist.files import folders, trouble


def show(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def write(file: Path, content: bytes) -> None:
    try:
        folders.write_file(file, content)
    except trouble.FILE_ERRORS as error:
        raise trouble.error(RevdistError, error, file, "written", hint="choose another place") from error
