"""The log has what does not change once in a while; each time is in the counters."""

from __future__ import annotations

import logging
import time

_AGAIN_S = 60.0


class Rarely:
    """Logs each subject once a minute at most. Not shared between threads."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._until: dict[str, float] = {}  # by subject

    def say(self, level: int, about: str, text: str, *values: object) -> None:
        """Have it in the log, if the log has not had this subject lately."""
        now = time.monotonic()
        if now < self._until.get(about, now):
            return
        self._until = {subject: until for subject, until in self._until.items() if now < until}
        self._until[about] = now + _AGAIN_S
        self._log.log(level, text, *values)
