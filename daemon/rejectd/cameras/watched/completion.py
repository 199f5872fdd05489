"""Estimates when a file was complete. The estimate is never later than the true instant, however late we looked.

If a part is thought to be younger than it is, its verdict ejects another part. So the earliest instant counts at which
the file can have been complete: a part may be judged too old, never too young.
"""

from __future__ import annotations

import time
from typing import NamedTuple


class Instant(NamedTuple):
    """The same instant on both clocks: monotonic and wall clock."""

    monotonic_ns: int
    unix_ns: int

    @property
    def offset_ns(self) -> int:
        """By how much the wall clock is ahead of the monotonic one; it changes when somebody sets the wall clock."""
        return self.unix_ns - self.monotonic_ns


def look() -> Instant:
    """Read both clocks."""
    return Instant(time.monotonic_ns(), time.time_ns())


def completed(before: Instant, now: Instant, written_unix_ns: int | None) -> Instant:
    """The earliest instant at which a file can have been completed.

    Args:
        before: when the file was last seen incomplete.
        now: when the file is first seen complete. Far after `before` if the process stood still.
        written_unix_ns: when the file was last written, by its inode; the file was certainly not complete before.
            None if that time comes from another computer's clock, as on a share.
    """
    earliest_ns = before.monotonic_ns
    if written_unix_ns is not None:
        written_ns = written_unix_ns - max(before.offset_ns, now.offset_ns)  # somebody may have set the clock between
        earliest_ns = max(earliest_ns, min(written_ns, now.monotonic_ns))
    return Instant(earliest_ns, now.unix_ns - (now.monotonic_ns - earliest_ns))
