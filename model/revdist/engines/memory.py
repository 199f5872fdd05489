"""Memory that a process keeps for its next batch."""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 512 << 20  # bytes that the process keeps though they are free
_LARGEST = 32 << 20  # bytes: largest piece that is kept; glibc accepts no more


@functools.cache
def keep() -> None:
    """Let glibc keep what a batch has given back, for the whole process.

    Otherwise chance, the order in which maps are freed, decides whether glibc returns memory to the system and asks for
    it again, page by page: 8 pictures of efficientnet_lite0 took 45 or 56 ms, and in int8 26 or 46 ms. With another C
    library nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_THRESHOLD, _LARGEST)
