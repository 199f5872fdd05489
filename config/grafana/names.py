"""Names of the metrics as queries use them, from `rejectd.metrics` itself: one that is renamed ends the build."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rejectd.ledger import Snapshot
from rejectd.metrics import FRAMES, PARTS, VIEWS, Metrics

_NOTHING = Snapshot(captured={}, verdicts={}, in_flight={})
_METRICS = Metrics(CollectorRegistry(), cameras=(), products=(), snapshot=lambda: _NOTHING)


def _gauge(metric: Gauge) -> str:
    return str(next(iter(metric.describe())).name)


def _counter(metric: Counter) -> str:
    return f"{next(iter(metric.describe())).name}_total"


def _histogram(metric: Histogram) -> str:
    return str(next(iter(metric.describe())).name)


CAPTURED, VERDICTS, IN_FLIGHT = f"{FRAMES.opened[0]}_total", f"{FRAMES.verdicts[0]}_total", FRAMES.in_flight[0]
PART_VERDICTS, PARTS_IN_FLIGHT, PART_VIEWS = f"{PARTS.verdicts[0]}_total", PARTS.in_flight[0], f"{VIEWS}_total"
STAGE, LATENCY = _histogram(_METRICS.stage), _histogram(_METRICS.latency)
BATCH, RATIO = _histogram(_METRICS.batch), _histogram(_METRICS.ratio)
MISSED, UNPUBLISHED, TOO_LATE = (
    _counter(metric) for metric in (_METRICS.missed, _METRICS.unpublished, _METRICS.too_late)
)
UNHEALTHY = _counter(_METRICS.unhealthy)
CAMERA_UP, CAMERA_FAULTS = _gauge(_METRICS.camera_up), _counter(_METRICS.camera_faults)
STREAM = _counter(_METRICS.stream)
REWRITTEN, NOT_SEEN = _counter(_METRICS.rewritten), _counter(_METRICS.not_seen)
BROKER, OUTBOX, JOURNAL = (
    _gauge(metric) for metric in (_METRICS.broker_connected, _METRICS.outbox, _METRICS.journal_available)
)
SACRIFICED, TOO_LARGE, RECOVERED = (
    _counter(metric) for metric in (_METRICS.sacrificed, _METRICS.too_large, _METRICS.recovered)
)
TOLD, ACTUATOR = _counter(_METRICS.told), _counter(_METRICS.actuator)
CAMERA_PRODUCT = _gauge(_METRICS.camera_product)
BUNDLE, THRESHOLD = _gauge(_METRICS.bundle), _gauge(_METRICS.threshold)
STARTED, JUDGING = _gauge(_METRICS.started), _gauge(_METRICS.judging)
CLOCK, CERTIFICATE = _gauge(_METRICS.clock), _gauge(_METRICS.certificate)
EXPECTED = _counter(_METRICS.expected)
DRIFT, DRIFT_EVIDENCE, DRIFT_SKIPPED = (
    _gauge(_METRICS.drift),
    _gauge(_METRICS.drift_evidence),
    _counter(_METRICS.drift_skipped),
)
TELEMETRY_DROPPED = _counter(_METRICS.telemetry_dropped)
BUILD = "rejectd_build_info"
