"""Run a command and end it properly, whether it writes to a terminal, a pipe or a file; for both our commands."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from revdist.files import trouble

FAILED = 2
INTERRUPTED = 128 + signal.SIGINT
READER_LEFT = 128 + signal.SIGPIPE  # what a shell shows for a Unix tool whose reader, such as `head`, has left

_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class ShowVersion(argparse.Action):
    """`--version`: what is installed is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        from importlib.metadata import version

        print(f"{parser.prog} {version('rejectd')}")
        parser.exit()


def prepare() -> None:
    """Make the standard streams take whatever is printed, or nothing where they are closed.

    A name in Latin-1 is printed with escapes. Else the next opened file would get the number of a closed stream,
    and what a library prints would be written into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(name: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit status, also where Ctrl-C ends it or its output cannot be written."""
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        _forget_output()
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return READER_LEFT
    except OSError as error:
        _forget_output()
        print(f"{name}: {_reason(error)}", file=sys.stderr)
        return FAILED


def _reason(error: OSError) -> str:
    """Explain an error that no command has explained: of an unexpected file, or of the output, which has no name."""
    if isinstance(error.filename, str | bytes):
        path = Path(os.fsdecode(error.filename))
        told = trouble.explain(error, path, "used")
        return f"{trouble.shown(path)}: {told.cause}" + (f"; {told.hint}" if told.hint else "")
    return f"the output cannot be written: {error.strerror}" if error.errno in _OUTPUT else str(error)


def _forget_output() -> None:
    """Discard further output; else Python tries to write once more at its end, and complains."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, number)
    os.close(devnull)
