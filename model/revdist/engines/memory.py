"""Memory that a process keeps for its next batch."""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 512 << 20  # bytes that stay with the process though they are free
_LARGEST = 32 << 20  # bytes in one piece that are kept; glibc takes no more


@functools.cache
def keep() -> None:
    """Let glibc keep what a batch has given back, for the whole process.

    Otherwise it depends on chance, the order in which maps are freed, whether it gives them to the system and asks for
    them again, page by page: 8 pictures of efficientnet_lite0 took 45 ms or 56, and in int8 26 ms or 46. Another C
    library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_THRESHOLD, _LARGEST)
