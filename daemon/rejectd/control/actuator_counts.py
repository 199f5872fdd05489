"""What the PLC says to have rejected: into the journal for the account, and into the metrics for the alert."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from rejectd.metrics import Metrics
from rejectd.mqtt import Incoming
from rejectd.storage.outbox import Reading

log = logging.getLogger(__name__)

_READING_S = 60.0  # a count that has not changed is noted this often


class ActuatorCounts:
    """The counts of a line's actuators, as they come."""

    def __init__(self, metrics: Metrics, note: Callable[[Reading], None]) -> None:
        """`note` takes a reading to the journal."""
        self._metrics = metrics
        self._note = note
        self._readings: dict[str, tuple[int, float]] = {}  # of each camera: count, instant

    def take(self, camera: str, incoming: Incoming) -> None:
        """Note a count. The first is where counting begins; one that is less than before began again at 0."""
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
