"""Names of the metrics as a query uses them, from `rejectd.metrics` itself."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry

from rejectd.ledger import Snapshot
from rejectd.metrics import Metrics


def metric_names() -> set[str]:
    """All names of samples that the service shows."""
    registry = CollectorRegistry()
    nothing = Snapshot(captured={}, verdicts={}, in_flight={})
    metrics = Metrics(
        registry,
        cameras=["camera"],
        products=["product"],
        snapshot=lambda: nothing,
        stations=["station"],
        parts=lambda: nothing,
        views=lambda: {("camera", "used"): 0},
    )
    metrics.actuator.labels("camera")
    metrics.camera_product.labels("camera", "product").set(1)
    metrics.bundle.labels("product", "digest", "engine", "teacher").set(1)
    return {sample.name for family in registry.collect() for sample in family.samples}


def names_in(query: str) -> set[str]:
    """The service's metrics and recorded series that a query asks for."""
    without_strings = re.sub(r'"[^"]*"', "", query)
    return set(re.findall(r"\brejectd[_:][a-zA-Z0-9_:]+", without_strings))
