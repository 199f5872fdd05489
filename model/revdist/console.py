"""How a command ends that writes to a terminal, a pipe or a file: both commands of this project end alike."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

FAILED = 2
INTERRUPTED = 128 + signal.SIGINT
READER_LEFT = 128 + signal.SIGPIPE  # what a shell shows for a Unix tool whose reader, such as `head`, has left


def prepare() -> None:
    """Make the standard streams take whatever is printed, or nothing where they are closed.

    A name in Latin-1 is printed with escapes. A closed stream would else be given to the next file that is opened, and
    what a library prints would be written into that file.
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
        status = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _forget_output()
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return READER_LEFT
    except OSError as error:
        if not _is_output(error):
            raise
        _forget_output()
        print(f"{name}: the output cannot be written: {error.strerror}", file=sys.stderr)
        return FAILED
    return status


def _is_output(error: OSError) -> bool:
    """Whether it was standard output that could not be written, and no file: its errors carry no name."""
    if error.filename is not None or sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
    except OSError as again:
        return again.errno == error.errno
    return False


def _forget_output() -> None:
    """Nothing more can be written; else Python tries once more at its end, and complains."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, number)
    os.close(devnull)
