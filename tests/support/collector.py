"""An OpenTelemetry collector for tests: takes OTLP over HTTP as a collector does, and keeps what it was sent."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Listens on a port of its own. `status` is what it answers; it refuses traces if `no_traces`.

    It answers only while `go_on` is set.
    """

    def __init__(self) -> None:
        self.status = 200
        self.no_traces = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.resources: list[dict[str, str]] = []
        self.spans: list[Span] = []
        self.metrics: dict[str, Metric] = {}  # the latest, by name
        self.requests = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests += 1
                collector.go_on.wait(30)
                status = 404 if collector.no_traces and self.path == "/v1/traces" else collector.status
                if status == 200:
                    assert self.headers["Content-Type"] == "application/x-protobuf"
                    collector.take(self.path, body)
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        """Read a request as the protocol wants it."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({key.key: key.value.string_value for key in resource.resource.attributes})
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for sent in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.resources.append({key.key: key.value.string_value for key in sent.resource.attributes})
                self.metrics |= {metric.name: metric for scope in sent.scope_metrics for metric in scope.metrics}
        else:
            raise AssertionError(path)

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
