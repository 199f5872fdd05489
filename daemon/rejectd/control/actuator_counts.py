"""Takes the PLC's counts of rejected parts into the journal, for the account, and into the metrics, for the alert."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from rejectd.metrics import Metrics
from rejectd.mqtt import Incoming
from rejectd.storage.outbox import Reading

log = logging.getLogger(__name__)

_READING_S = 60.0  # how often a count that has not changed is noted


class ActuatorCounts:
    """The latest counts of a line's actuators."""

    def __init__(self, metrics: Metrics, note: Callable[[Reading], None]) -> None:
        """`note(reading)` hands a reading to the journal."""
        self._metrics = metrics
        self._note = note
        self._readings: dict[str, tuple[int, float]] = {}  # by camera: count, and the instant at which it was noted

    def take(self, camera: str, incoming: Incoming) -> None:
        """Note a count. The first count is the start; a count that is smaller than before began again at 0."""
        try:
            body = json.loads(incoming.payload)
            count = body["count"] if isinstance(body, dict) else body
            if type(count) is not int or not 0 <= count < 2**63:
                raise ValueError(f"{count!r} is not a count")  # noqa: TRY301 - told apart from nothing else
        except (ValueError, KeyError, RecursionError) as error:
            log.warning("%s: not a count of rejected parts: %r", incoming.topic, error)
            return
        before, noted_s = self._readings.get(camera, (count, float("-inf")))
        self._metrics.actuator.labels(camera).inc(count - before if count >= before else count)
        if before != count or time.monotonic() - noted_s > _READING_S:
            self._readings[camera] = count, time.monotonic()
            self._note(Reading(camera=camera, at_unix_ns=time.time_ns(), rejected=count))
