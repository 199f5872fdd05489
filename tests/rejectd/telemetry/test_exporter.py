"""rejectd.telemetry: what reaches a collector, and that nobody waits for one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from collector import Collector
from peers import wait_for
from prometheus_client import CollectorRegistry

from rejectd.contract.messages import Decision, Policy, Result, Verdict
from rejectd.contract.settings import Otel
from rejectd.ledger import Snapshot
from rejectd.metrics import Metrics
from rejectd.telemetry import Exporter, exporter
from rejectd.telemetry.rejects import trace_id

MS = 1_000_000
DAY_NS = 1_800_000_000 * 10**9
NOTHING = Snapshot(captured={"left": 7}, verdicts={}, in_flight={"left": 7})


def reject(number: int, *, prepared_ns: int = 130 * MS) -> Verdict:
    """Captured at 100 ms, ready at 130, on the device from 150 to 180."""
    return Verdict(
        event_id=f"run-left-{number}",
        camera="left",
        product="cell",
        seq=number,
        captured_ns=100 * MS,
        captured_unix_ns=DAY_NS,
        deadline_ns=1000 * MS,
        decided_ns=180 * MS,
        prepared_ns=prepared_ns,
        decision=Decision.REJECT,
        policy=Policy.REJECT,
        result=Result(score=1.5, threshold=0.5, p_value=0.01, bundle="abc", engine="e", engine_ns=30 * MS),
    )


class Rig:
    """An exporter with its thread."""

    def __init__(self, endpoint: str) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, cameras=["left"], products=["cell"], snapshot=lambda: NOTHING)
        made = exporter(Otel(endpoint=endpoint), self.registry, self.metrics, line="l", run="r1", version="1")
        assert made
        self.exporter: Exporter = made
        self._thread = threading.Thread(target=made.run)

    def start(self) -> None:
        self._thread.start()

    def dropped(self) -> float:
        return self.registry.get_sample_value("rejectd_telemetry_rejects_dropped_total") or 0.0

    def end(self) -> None:
        self.exporter.end()
        if self._thread.ident:
            self._thread.join(30)
            assert not self._thread.is_alive()


@pytest.fixture
def collector() -> Iterator[Collector]:
    peer = Collector()
    yield peer
    peer.close()


@pytest.fixture
def rig(collector: Collector) -> Iterator[Rig]:
    rig = Rig(collector.endpoint)
    yield rig
    rig.end()


def test_a_reject_is_a_trace_of_its_stages_that_its_event_leads_to(collector: Collector, rig: Rig) -> None:
    rig.exporter.put(reject(1), 200 * MS)
    rig.start()
    wait_for(lambda: len(collector.spans) == 5, "the trace has come", 20)
    times = {
        span.name: ((span.start_time_unix_nano - DAY_NS) // MS, (span.end_time_unix_nano - DAY_NS) // MS)
        for span in collector.spans
    }
    assert times == {
        "reject": (0, 100),
        "capture": (0, 30),
        "wait": (30, 50),
        "inspect": (50, 80),
        "publish": (80, 100),
    }
    assert {span.trace_id for span in collector.spans} == {trace_id("run-left-1")}
    [root] = [span for span in collector.spans if not span.parent_span_id]
    assert {span.parent_span_id for span in collector.spans} == {b"", root.span_id}
    assert len({span.span_id for span in collector.spans}) == 5
    about = {item.key: item.value.string_value or item.value.double_value for item in root.attributes}
    assert about["rejectd.event_id"] == "run-left-1"
    assert about["rejectd.score"] == 1.5
    assert collector.resources[0] == {
        "service.name": "rejectd",
        "rejectd.line": "l",
        "service.instance.id": "r1",
        "service.version": "1",
    }


def test_the_part_of_a_station_has_no_capture_of_its_own(collector: Collector, rig: Rig) -> None:
    rig.exporter.put(reject(1, prepared_ns=0), 200 * MS)
    rig.start()
    wait_for(lambda: len(collector.spans) == 4, "the trace has come", 20)
    assert [span.name for span in collector.spans] == ["reject", "wait", "inspect", "publish"]


def test_the_metrics_are_those_of_the_page_for_prometheus(collector: Collector, rig: Rig) -> None:
    for seconds in (0.004, 0.02, 0.02, 99.0):
        rig.metrics.latency.labels("left").observe(seconds)
    rig.metrics.missed.labels("left").inc(3)
    rig.metrics.broker_connected.set(1)
    rig.start()
    wait_for(lambda: "rejectd_telemetry_rejects_dropped" in collector.metrics, "metrics have come", 20)
    assert set(collector.metrics) == {family.name for family in rig.registry.collect()}
    [gauge] = collector.metrics["rejectd_broker_connected"].gauge.data_points
    assert gauge.as_double == 1
    missed = collector.metrics["rejectd_deadlines_missed"].sum
    assert missed.is_monotonic
    assert {point.as_double for point in missed.data_points} == {3, 0}
    captured = collector.metrics["rejectd_frames_captured"].sum.data_points
    assert {point.attributes[0].value.string_value: point.as_double for point in captured}["left"] == 7
    [latency] = [
        point
        for point in collector.metrics["rejectd_capture_to_publish_seconds"].histogram.data_points
        if point.attributes[0].value.string_value == "left"
    ]
    assert latency.count == sum(latency.bucket_counts) == 4
    assert len(latency.bucket_counts) == len(latency.explicit_bounds) + 1
    counts = dict(zip(latency.explicit_bounds, latency.bucket_counts, strict=False))
    assert (counts[0.005], counts[0.02], latency.bucket_counts[-1]) == (1, 2, 1)


def test_while_the_collector_is_away_rejects_wait_and_the_oldest_go_first(
    collector: Collector, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 503
    for number in range(300):
        rig.exporter.put(reject(number), 200 * MS)
    assert rig.dropped() == 300 - 256
    rig.start()
    wait_for(lambda: collector.requests, "an attempt was made", 20)
    collector.status = 200
    wait_for(lambda: len(collector.spans) == 256 * 5, "all others have come", 30)
    assert {span.trace_id for span in collector.spans} == {trace_id(f"run-left-{number}") for number in range(44, 300)}
    assert rig.dropped() == 44
    assert caplog.text.count("telemetry is not taken") == 1


@pytest.mark.parametrize("status", [400, 302])
def test_what_is_refused_for_good_or_sent_elsewhere_is_not_followed(
    collector: Collector, rig: Rig, status: int
) -> None:
    collector.status = status
    rig.exporter.put(reject(1), 200 * MS)
    rig.start()
    wait_for(lambda: collector.requests >= 1, "an attempt was made", 20)
    if status == 400:
        wait_for(lambda: rig.dropped() == 1, "it is given up", 20)
    assert collector.spans == []


def test_a_collector_that_takes_no_traces_gets_metrics_and_is_named_once(
    collector: Collector, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    collector.no_traces = True
    rig.start()
    rig.exporter.put(reject(1), 200 * MS)
    wait_for(lambda: rig.dropped() == 1, "it is given up", 20)
    rig.exporter.put(reject(2), 200 * MS)
    wait_for(lambda: rig.dropped() == 2, "so is the next", 20)
    wait_for(lambda: collector.metrics, "metrics come", 30)
    assert caplog.text.count("telemetry is refused") == 1
    assert "taken again" not in caplog.text


def test_a_collector_that_never_answers_holds_up_neither_rejects_nor_the_end(collector: Collector, rig: Rig) -> None:
    collector.go_on.clear()
    rig.start()
    rig.exporter.put(reject(0), 200 * MS)
    wait_for(lambda: collector.requests, "the thread waits for the collector", 20)
    started = time.monotonic()
    for number in range(10_000):
        rig.exporter.put(reject(number), 200 * MS)
    assert time.monotonic() - started < 3, "0.3 ms each at most"
    rig.end()  # within the timeout of a request, and one more


def test_without_an_endpoint_nothing_is_made() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, cameras=[], products=[], snapshot=lambda: NOTHING)
    assert exporter(Otel(), registry, metrics, line="l", run="r", version="1") is None


def test_without_the_extra_the_service_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from rejectd.contract.settings import Otel\nfrom rejectd import telemetry\n"
        "try:\n    telemetry.exporter(Otel(endpoint='http://127.0.0.1:4318'), None, None)\n"
        "except telemetry.TelemetryError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "pip install 'rejectd[otel]'" in result.stdout, result.stderr
