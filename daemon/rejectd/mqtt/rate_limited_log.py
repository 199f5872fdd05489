"""Logs a message that repeats itself only once in a while. The counters have every occurrence."""

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
        """Log a text about a subject, unless that subject was logged within the last minute."""
        now = time.monotonic()
        if now < self._until.get(about, now):
            return
        self._until = {subject: until for subject, until in self._until.items() if now < until}
        self._until[about] = now + _AGAIN_S
        self._log.log(level, text, *values)
