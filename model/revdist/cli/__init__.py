"""The command `revdist`."""

from revdist.cli.command import main

__all__ = ["main"]
