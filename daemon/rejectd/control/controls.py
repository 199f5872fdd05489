"""The parts of a line that commands act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rejectd.contract.settings import Settings
from rejectd.control.changeover import Changeover
from rejectd.control.orders import Orders
from rejectd.control.self_test import GoldenCheck
from rejectd.inspector import Inspector
from rejectd.mqtt import Message
from rejectd.pipeline import Pipeline
from rejectd.storage.evidence import Evidence
from rejectd.storage.outbox import Outbox
from rejectd.storage.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The parts of a line that commands act on."""

    settings: Settings
    pipeline: Pipeline
    inspector: Inspector
    golden: GoldenCheck
    changeover: Changeover
    orders: Orders
    recorder: Recorder
    outbox: Outbox
    evidence: Evidence | None
    answer: Callable[[Message], None]
    largest_packet: Callable[[], int | None]  # largest packet in bytes that the broker takes; None if unknown
    more_events: Callable[[], None]
    models_changed: Callable[[], None]
