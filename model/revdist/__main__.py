"""The command `revdist` from its first moment on: what it needs takes seconds to import, and may be stopped there."""

from __future__ import annotations

import signal
import sys

from revdist.files import console


def main() -> int:
    """Run the command; see `cli`."""
    console.prepare()
    status = console.run("revdist", _run)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torch takes a while to end; Ctrl-C then says nothing either
    return status


def _run() -> int:
    from revdist.cli import command

    return command.main()


if __name__ == "__main__":
    sys.exit(main())
