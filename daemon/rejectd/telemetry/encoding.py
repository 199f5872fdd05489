"""Makes OTLP requests of what the service knows: of the page for Prometheus, and of rejects. Pure.

The messages are those of opentelemetry-proto, which the extra `otel` installs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from prometheus_client import Metric
from prometheus_client.samples import Sample

from rejectd.telemetry.rejects import Reject, Span

_CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE
_SCOPE = InstrumentationScope(name="rejectd")


def metrics_request(
    families: Iterable[Metric], resource: Mapping[str, str], started_unix_ns: int, now_unix_ns: int
) -> bytes:
    """A request with all metrics of the page for Prometheus, under the same names."""
    scope = otlp.ScopeMetrics(scope=_SCOPE)
    for family in families:
        metric = otlp.Metric(name=family.name, description=family.documentation)
        times = started_unix_ns, now_unix_ns
        if family.type == "histogram":
            metric.histogram.aggregation_temporality = _CUMULATIVE
            metric.histogram.data_points.extend(_histograms(family.samples, times))
        elif family.type == "counter":
            metric.sum.aggregation_temporality = _CUMULATIVE
            metric.sum.is_monotonic = True
            metric.sum.data_points.extend(_numbers(family.samples, times, "_total"))
        else:
            metric.gauge.data_points.extend(_numbers(family.samples, (0, now_unix_ns)))
        scope.metrics.append(metric)
    sent = otlp.ResourceMetrics(resource=_resource(resource), scope_metrics=[scope])
    return bytes(ExportMetricsServiceRequest(resource_metrics=[sent]).SerializeToString())


def traces_request(rejects: Sequence[Reject], resource: Mapping[str, str]) -> bytes:
    """A request with a trace for each reject."""
    spans = [span for reject in rejects for span in _spans(reject)]
    scope = trace_pb2.ScopeSpans(scope=_SCOPE, spans=spans)
    sent = trace_pb2.ResourceSpans(resource=_resource(resource), scope_spans=[scope])
    return bytes(ExportTraceServiceRequest(resource_spans=[sent]).SerializeToString())


def _numbers(samples: Sequence[Sample], times: tuple[int, int], ending: str = "") -> list[otlp.NumberDataPoint]:
    return [
        otlp.NumberDataPoint(
            attributes=_attributes(sample.labels),
            as_double=sample.value,
            start_time_unix_nano=times[0],
            time_unix_nano=times[1],
        )
        for sample in samples
        if sample.name.endswith(ending)
    ]


def _histograms(samples: Sequence[Sample], times: tuple[int, int]) -> list[otlp.HistogramDataPoint]:
    """Prometheus counts what is at or below each bound, OTLP what is between two."""
    points: dict[tuple[tuple[str, str], ...], otlp.HistogramDataPoint] = {}
    for sample in samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = tuple(sorted(labels.items()))
        if key not in points:
            points[key] = otlp.HistogramDataPoint(
                attributes=_attributes(labels), start_time_unix_nano=times[0], time_unix_nano=times[1]
            )
        point = points[key]
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            point.bucket_counts.append(int(sample.value) - sum(point.bucket_counts))
            if math.isfinite(bound):
                point.explicit_bounds.append(bound)
        elif sample.name.endswith("_count"):
            point.count = int(sample.value)
        elif sample.name.endswith("_sum"):
            point.sum = sample.value
    return list(points.values())


def _spans(reject: Reject) -> Iterable[trace_pb2.Span]:
    root = reject.trace_id[:8]
    about: dict[str, str | float] = {
        "rejectd.event_id": reject.event_id,
        "rejectd.camera": reject.camera,
        "rejectd.product": reject.product,
        "rejectd.bundle": reject.bundle,
        "rejectd.score": reject.score,
        "rejectd.threshold": reject.threshold,
    }
    yield _span(reject.whole, reject.trace_id, root, b"", about)
    for number, stage in enumerate(reject.stages, 1):
        yield _span(stage, reject.trace_id, root[:7] + bytes([(root[7] + number) % 256]), root, {})


def _span(
    span: Span, trace_id: bytes, span_id: bytes, parent: bytes, about: Mapping[str, str | float]
) -> trace_pb2.Span:
    return trace_pb2.Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.started_ns,
        end_time_unix_nano=span.ended_ns,
        attributes=_attributes(about),
    )


def _resource(attributes: Mapping[str, str]) -> Resource:
    return Resource(attributes=_attributes(attributes))


def _attributes(values: Mapping[str, str | float]) -> list[KeyValue]:
    return [
        KeyValue(
            key=name, value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(double_value=value)
        )
        for name, value in values.items()
    ]
