"""The command `rejectd`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit. A service that is about to start has nothing to reload: SIGHUP does not end it."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["run"] and arguments is None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until `Signals` are there, which are a second's import away
    from rejectd.cli import command

    command.main(words)


__all__ = ["main"]
