"""Whether the system's clock follows a time server, as the kernel knows it. See adjtimex(2)."""

from __future__ import annotations

import ctypes
import math

_UNSYNCHRONISED = 5  # TIME_ERROR
_TIMEX_BYTES = 256  # struct timex has 208; zeroes ask and set nothing


def clock_synchronised() -> float:
    """1 or 0; NaN where this process may not ask, as under systemd's `ProtectClock`."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return math.nan
    state = ask(ctypes.create_string_buffer(_TIMEX_BYTES))
    return math.nan if state < 0 else float(state != _UNSYNCHRONISED)
