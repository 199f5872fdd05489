"""The dashboards: one line, its cameras, its models, and all lines of a plant."""

from __future__ import annotations

import names
from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import Query, buckets, graph, number, page, rows, states

_LINE = 'line=~"$line"'
_RATE = "[$__rate_interval]"


def _rate(metric: str, by: str, *also: str) -> str:
    """Events a second."""
    return f"sum by ({by}) (rate({metric}{{{','.join((_LINE, *also))}}}{_RATE}))"


def _count(metric: str, by: str, *also: str) -> str:
    """Events in the last hour."""
    return f"sum by ({by}) (increase({metric}{{{','.join((_LINE, *also))}}}[1h]))"


def _now(metric: str) -> str:
    return f"{metric}{{{_LINE}}}"


def _quantile(share: float, histogram: str, by: str) -> Query:
    query = f"histogram_quantile({share}, {_rate(f'{histogram}_bucket', f'{by}, le')})"
    return query, f"p{share * 100:g} {{{{{by}}}}}"


def _mean(histogram: str, by: str) -> str:
    return f"{_rate(f'{histogram}_sum', by)} / {_rate(f'{histogram}_count', by)}"


def line() -> Dashboard:
    """Is the line judged in time, and is it all recorded?"""
    open_frames = f"sum({_now(names.CAPTURED)}) - sum({_now(names.VERDICTS)}) - sum({_now(names.IN_FLIGHT)})"
    ends = 'decision="unjudged"'
    panels = [
        number("Parts are judged", "1 while they are; else see `problems` of the line's status.", "short",
               (_now(names.JUDGING), ""), good=1),
        number("Broker", "0: no verdict reaches the ejector.", "short", (_now(names.BROKER), ""), good=1),
        number("Journal", "0: the disk is full or does not answer.", "short", (_now(names.JOURNAL), ""), good=1),
        number("Frames without an end", "Captured less verdicts less in flight; anything but 0 is a fault.", "short",
               (open_frames, "")),
        number("Clock", "0: it follows no time server. NaN: the service may not ask.", "short",
               (_now(names.CLOCK), "")),
        number("Running since", "The start of this run.", "dateTimeFromNow", (f"{_now(names.STARTED)} * 1000", "")),
        graph("Frames", "Frames captured in a second.", "short", (_rate(names.CAPTURED, "camera"), "{{camera}}")),
        graph("Verdicts", "How frames ended.", "short", (_rate(names.VERDICTS, "decision"), "{{decision}}"),
              stacked=True),
        graph("Unjudged", "Why frames were not judged.", "short", (_rate(names.VERDICTS, "cause", ends), "{{cause}}"),
              stacked=True),
        graph("Parts of stations", "How parts of several views ended.", "short",
              (_rate(names.PART_VERDICTS, "station, decision"), "{{station}} {{decision}}"), stacked=True),
        buckets("Exposure to acknowledgement", "Latency of verdicts; a dot leads to its event.", "s",
                _rate(f"{names.LATENCY}_bucket", "le")),
        graph("Late", "Verdicts in an hour that missed the deadline, were never sent, or whose result came too late.",
              "short", (_count(names.MISSED, "line"), "missed"), (_count(names.UNPUBLISHED, "line"), "never sent"),
              (_count(names.TOO_LATE, "line"), "result too late")),
        graph("Stages", "Mean time in each stage.", "s", (_mean(names.STAGE, "stage"), "{{stage}}")),
        graph("In flight", "Frames, and parts of stations, without a verdict yet.", "short",
              (f"sum by (camera) ({_now(names.IN_FLIGHT)})", "{{camera}}"),
              (f"sum by (station) ({_now(names.PARTS_IN_FLIGHT)})", "{{station}}")),
        graph("Outbox", "Defect events that the broker has not acknowledged.", "short", (_now(names.OUTBOX), "events")),
        graph("Given up", "Records given up in an hour, and messages that were too large.", "short",
              (_count(names.SACRIFICED, "what"), "{{what}}"), (_count(names.TOO_LARGE, "what"), "message {{what}}"),
              (_count(names.RECOVERED, "line"), "recovered after a kill"),
              (_count(names.TELEMETRY_DROPPED, "line"), "trace for OpenTelemetry")),
        number("Certificates", "When they end; 1970 means that there is none.", "dateTimeFromNow",
               (f"{_now(names.CERTIFICATE)} * 1000", "{{certificate}}")),
    ]  # fmt: skip
    return page("rejectd-line", "rejectd: line", (line.__doc__ or ""), one_line=True, panels=panels)


def cameras() -> Dashboard:
    """Does each camera see its parts?"""
    faults = 'cause="camera_fault"'
    panels = [
        states("Up", "Red: lost, frozen, paused or ended.", (_now(names.CAMERA_UP), "{{camera}}")),
        graph("Frames", "Frames captured in a second.", "short", (_rate(names.CAPTURED, "camera"), "{{camera}}")),
        graph("Times down", "Times in an hour that a camera went down or froze.", "short",
              (_count(names.CAMERA_FAULTS, "camera"), "{{camera}}")),
        graph("Faulty pictures", "Exposures that brought no usable picture.", "short",
              (_rate(names.VERDICTS, "camera", faults), "{{camera}}"),
              (_rate(names.UNHEALTHY, "camera, fault"), "{{camera}} {{fault}}")),
        graph("Latency", "Exposure to acknowledgement.", "s", _quantile(0.5, names.LATENCY, "camera"),
              _quantile(0.99, names.LATENCY, "camera")),
        graph("Deadlines missed", "In an hour.", "short", (_count(names.MISSED, "camera"), "{{camera}}")),
        graph("Share of rejects", "Rejects of judged frames.", "percentunit",
              (f'{_rate(names.VERDICTS, "camera", _decision("reject"))}'
               f' / {_rate(names.VERDICTS, "camera", _decision("pass|reject"))}', "{{camera}}")),
        graph("Rejects at the ejector", "In an hour: what the line was told, and what the PLC counted.", "short",
              (_count(names.TOLD, "camera"), "{{camera}} told"),
              (_count(names.ACTUATOR, "camera"), "{{camera}} counted")),
        rows("Products", "What passes each camera now.", _now(names.CAMERA_PRODUCT)),
        graph("Views of parts", "What became of the pictures that belong to stations.", "short",
              (_rate(names.PART_VIEWS, "camera, fate"), "{{camera}} {{fate}}"), stacked=True),
        graph("Streams of industrial cameras", "In an hour: packets and pictures lost, or asked for again.",
              "short", (_count(names.STREAM, "camera, event"), "{{camera}} {{event}}")),
        graph("Files not judged", "Of watched folders, in an hour: written again, or there before the start.", "short",
              (_count(names.REWRITTEN, "camera"), "{{camera}} again"),
              (_count(names.NOT_SEEN, "camera"), "{{camera}} before")),
        graph("Packets and buffers", "Of GigE and USB3 Vision, in an hour. Some resent packets are healthy.",
              "short", (_count(names.STREAM, "camera, event"), "{{camera}} {{event}}")),
    ]  # fmt: skip
    return page("rejectd-cameras", "rejectd: cameras", (cameras.__doc__ or ""), one_line=True, panels=panels)


def model() -> Dashboard:
    """Are rejects as many as they should be, has anything changed, and is the engine as fast as at its start?"""
    slowness = f"{_rate(f'{names.STAGE}_sum', 'line', _STAGE)} / {_rate(names.EXPECTED, 'line')}"
    panels = [
        rows("Bundles in use", "Digest, engine and teacher of each product.", _now(names.BUNDLE)),
        graph("Thresholds", "Score above which a part is rejected.", "short", (_now(names.THRESHOLD), "{{product}}")),
        graph("Rejects and their control limits", "In an hour, against the day before (binomial, three sigma).",
              "short", (_now("rejectd:product_rejects:increase1h"), "{{product}}"),
              (_now("rejectd:product_rejects_limit:upper1h"), "upper {{product}}"),
              (_now("rejectd:product_rejects_limit:lower1h"), "lower {{product}}")),
        graph("Judged", "Judged frames in an hour.", "short",
              (_count(f"{names.RATIO}_count", "product"), "{{product}}")),
        buckets("Scores", "Score as a multiple of the threshold; above 1 is a reject.", "short",
                _rate(f"{names.RATIO}_bucket", "le")),
        graph("Median score", "As a multiple of the threshold: one that moves is drift.", "short",
              _quantile(0.5, names.RATIO, "product"), _quantile(0.95, names.RATIO, "product")),
        graph("Engine against its start", "How many times as long as at the warm-up a batch takes.", "short",
              (slowness, "times")),
        graph("Batches", "Mean number of frames in a batch.", "short", (_mean(names.BATCH, "line"), "frames")),
        graph("Drift", "1: this has changed; `problems` of the line's status says what to do.", "short",
              (_now(names.DRIFT), "{{camera}} {{cause}}")),
        graph("Evidence of drift", "How near each sign is to an alarm, which is at 1.", "short",
              (_now(names.DRIFT_EVIDENCE), "{{camera}} {{sign}}")),
        graph("Frames that drift skipped", "In an hour: too many waited.", "short",
              (_count(names.DRIFT_SKIPPED, "camera"), "{{camera}}")),
    ]  # fmt: skip
    return page("rejectd-model", "rejectd: model", (model.__doc__ or ""), one_line=True, panels=panels)


def fleet() -> Dashboard:
    """Which line needs somebody?"""
    lost = 'decision="unjudged",cause!~"paused|stopping"'
    every = _rate(names.VERDICTS, "line")
    panels = [
        states("Service", "Red: Prometheus gets no page.", (f'up{{job="rejectd",{_LINE}}}', "{{line}}")),
        states("Judging", "Red: parts are not judged.", (_now(names.JUDGING), "{{line}}")),
        states("Broker", "Red: no verdict reaches the ejector.", (_now(names.BROKER), "{{line}}")),
        states("All cameras up", "Red: at least one is not.",
               (f"min by (line) ({_now(names.CAMERA_UP)})", "{{line}}")),
        graph("Frames", "Frames in a second.", "short", (_rate(names.CAPTURED, "line"), "{{line}}")),
        graph("Share of rejects", "Rejects of judged frames.", "percentunit",
              (f'{_rate(names.VERDICTS, "line", _decision("reject"))}'
               f' / {_rate(names.VERDICTS, "line", _decision("pass|reject"))}', "{{line}}")),
        graph("Share unjudged", "Frames that nobody wanted to be unjudged.", "percentunit",
              (f"{_rate(names.VERDICTS, 'line', lost)} / {every}", "{{line}}")),
        graph("Latency", "Exposure to acknowledgement.", "s", _quantile(0.99, names.LATENCY, "line")),
        graph("Deadlines missed", "In an hour.", "short", (_count(names.MISSED, "line"), "{{line}}")),
        rows("Versions", "What runs where.", _now(names.BUILD)),
    ]  # fmt: skip
    return page("rejectd-fleet", "rejectd: lines", (fleet.__doc__ or ""), one_line=False, panels=panels)


def _decision(pattern: str) -> str:
    return f'decision=~"{pattern}"'


_STAGE = 'stage="inspect"'
ALL = {"line": line, "cameras": cameras, "model": model, "fleet": fleet}
