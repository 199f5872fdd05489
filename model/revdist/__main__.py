"""The command `revdist` from its first moment on: what it needs takes seconds to import, and may be stopped there."""

from __future__ import annotations

import sys

from revdist import console


def main() -> int:
    """Run the command; see `cli`."""
    console.prepare()
    return console.run("revdist", _run)


def _run() -> int:
    from revdist import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
