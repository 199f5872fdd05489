"""Runs `rejectd` with a time of day that the test sets: seconds in a file are added to it. Monotonic time goes on.

No machine here lets a test set its clock. Usage: python stepping_clock.py FILE ARGUMENTS-OF-REJECTD...
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_STEP = Path(sys.argv[1])
_time_ns = time.time_ns


def _stepped_ns() -> int:
    return _time_ns() + int(_STEP.read_text() or 0) * 10**9


time.time_ns = _stepped_ns
time.time = lambda: _stepped_ns() / 1e9

if __name__ == "__main__":
    from rejectd.cli import main

    main(sys.argv[2:])
