"""The command `rejectd`."""

from rejectd.cli.command import main

__all__ = ["main"]
