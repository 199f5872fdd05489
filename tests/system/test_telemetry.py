"""OpenTelemetry: the real service sends its metrics, and a trace for each reject, to a collector."""

from __future__ import annotations

from pathlib import Path

import pytest
from collector import Collector
from line import LINE, Line, Subscriber
from peers import wait_for

from rejectd.telemetry.rejects import trace_id

pytestmark = pytest.mark.system


def test_each_reject_is_a_trace_and_a_collector_that_stalls_delays_no_verdict(
    line: Line, subscriber: Subscriber, strange: Path
) -> None:
    collector = Collector()
    line.folder("left", [strange] * 20, rate_hz=5, deadline_ms=2000)
    line.settings["otel"] = {"endpoint": collector.endpoint, "interval_s": 1}
    collector.go_on.clear()
    try:
        line.start()
        wait_for(lambda: len(subscriber.of("verdict")) == 20, "all parts have their verdicts", 90)
        assert {verdict["cause"] for verdict in subscriber.of("verdict").values()} <= {None, "late", "overload"}
        collector.go_on.set()
        events = {event for event, verdict in subscriber.of("verdict").items() if verdict["decision"] == "reject"}
        assert events
        expected = {trace_id(event) for event in events}
        wait_for(lambda: {span.trace_id for span in collector.spans} == expected, "a trace of each reject", 60)
        spans = [span for span in collector.spans if span.trace_id == min(expected)]
        assert [span.name for span in spans] == ["reject", "capture", "wait", "inspect", "publish"]
        assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
        wait_for(lambda: "rejectd_verdicts" in collector.metrics, "metrics have come", 60)
        assert collector.resources[0]["rejectd.line"] == LINE
        assert line.stop() == 0
    finally:
        collector.close()
