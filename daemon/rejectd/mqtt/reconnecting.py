"""Decides when to connect to the broker again, and explains why it keeps closing the connection."""

from __future__ import annotations

import random

from rejectd.mqtt.exchange import LostError
from rejectd.mqtt.reasons import TAKEN_OVER

_FIRST_S = 0.2
_HELD_S = 5.0  # a connection that lasted so long was a good one
_SHOWN_S = 120.0  # how long a line's problems name the reason of lost connections
_UNEXPLAINED = (
    "without a reason; perhaps another client uses this identifier, {client_id}, or a message is larger than it takes"
)


class Patience:
    """Chooses the pause before the next attempt: longer after each failed attempt and each connection that broke soon.

    Two services with the same client identifier take the session from each other, and each has it while the other
    pauses. So a connection counts as good only if it lasted three times as long as the last pause.
    """

    def __init__(self, longest_s: float, *, client_id: str) -> None:
        self._longest_s = longest_s
        self._client_id = client_id
        self._failures = 0
        self._last_pause_s = 0.0
        self._broken = 0  # how many connections in a row the broker closed soon
        self._problem = ""
        self._problem_at = 0.0

    def failed(self) -> float:
        """Note that an attempt failed. Returns how many seconds to wait before the next."""
        self._failures = min(self._failures + 1, 16)
        longest_s = min(_FIRST_S * 2 ** (self._failures - 1), self._longest_s)
        self._last_pause_s = longest_s * random.uniform(0.7, 1)
        return self._last_pause_s

    def ended(self, error: LostError, held_s: float, now: float) -> float:
        """Note that a connection is lost after `held_s`. Returns how many seconds to wait before the next attempt."""
        taken_over = error.reason == TAKEN_OVER
        lasted = held_s >= max(_HELD_S, 3 * self._last_pause_s) and not taken_over
        self._broken = 0 if lasted else self._broken + error.closed
        if taken_over:
            self._note(str(error), now)
        elif error.closed and self._broken > 1:
            why = "" if error.reason else f", {_UNEXPLAINED.format(client_id=self._client_id)}"
            self._note(f"{error}, again and again{why}", now)
        if lasted:
            self._failures, self._last_pause_s = 0, 0.0
            return 0.0
        return self.failed()

    def problem(self, now: float) -> str:
        """Why the broker keeps closing connections; empty if it has not done so for `_SHOWN_S`."""
        return self._problem if self._problem and now < self._problem_at + _SHOWN_S else ""

    def _note(self, problem: str, now: float) -> None:
        self._problem, self._problem_at = problem, now
