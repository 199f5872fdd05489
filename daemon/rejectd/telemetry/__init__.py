"""OpenTelemetry: metrics, and a trace for each reject, sent to a collector by OTLP over HTTP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Otel
from rejectd.metrics import Metrics
from rejectd.telemetry.exporter import Exporter

__all__ = ["Exporter", "TelemetryError", "exporter"]


class TelemetryError(RejectdError):
    """Telemetry cannot be sent from this installation."""


def exporter(settings: Otel, registry: CollectorRegistry, metrics: Metrics, **about: str) -> Exporter | None:
    """An exporter, None if no collector is named; `about` says what `line`, `run` and `version` sends.

    Raises:
        TelemetryError: if the extra `otel` is not installed.
    """
    if settings.endpoint is None:
        return None
    try:
        from rejectd.telemetry import encoding  # the extra may not be there
    except ImportError as error:
        hint = "install it: pip install 'rejectd[otel]', or remove otel.endpoint"
        raise TelemetryError(f"otel: the extra `otel` is not installed ({error})", hint=hint) from error
    names = {"line": "rejectd.line", "run": "service.instance.id", "version": "service.version"}
    resource = {"service.name": "rejectd"} | {names[key]: value for key, value in about.items()}
    return Exporter(settings, registry, metrics, resource=resource, encoding=encoding)
