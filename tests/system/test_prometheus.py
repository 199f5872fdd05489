"""A real Prometheus scrapes the service: its account, every alert's metrics and every panel of the dashboards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from line import Line, Operator
from metric_names import metric_names
from peers import wait_for
from prometheus_server import CONFIG, Prometheus

pytestmark = pytest.mark.system

_RULES = [rule for group in yaml.safe_load((CONFIG / "rules.yml").read_text())["groups"] for rule in group["rules"]]
_DASHBOARDS = [json.loads(path.read_text()) for path in sorted(CONFIG.parent.glob("grafana/dashboards/*.json"))]
_SELECTOR = re.compile(r"\b(?:rejectd[_:][\w:]+|up)(?:\{[^}]*\})?")


@pytest.fixture
def running(line: Line, operator: Operator, cells: list[Path]) -> Line:
    """A line with two cameras and a station of both."""
    for number, camera in enumerate(("left", "right")):
        pictures = cells[20 * number : 20 * number + 20] * 30  # two minutes, each with a number of its own
        line.folder(camera, pictures, rate_hz=5, trigger="name")
    line.settings["stations"] = {"gate": {"cameras": ["left", "right"]}}
    line.start()
    assert not line.ended(), line.log.read_text()
    operator.publish("actuator/left/rejected", 7)
    return line


@pytest.fixture
def prometheus(running: Line, tmp_path: Path) -> Iterator[Prometheus]:
    peer = Prometheus(tmp_path / "prometheus", running.metrics_port, day_before=True)
    yield peer
    peer.close()


def value(prometheus: Prometheus, query: str) -> float:
    """The one value of a query; an empty answer is an error."""
    [series] = prometheus.ask(query)
    return float(series["value"][1])


def as_grafana_asks(query: str) -> str:
    """A query of a panel with its variables filled in."""
    filled = query.replace("$__rate_interval", "20s").replace("$line", "line1")
    assert "$" not in filled
    return filled


def panel_queries() -> list[tuple[str, str]]:
    return [
        (f"{dashboard['title']}: {panel['title']}", as_grafana_asks(target["expr"]))
        for dashboard in _DASHBOARDS
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def test_prometheus_scrapes_the_line_and_its_account_balances(running: Line, prometheus: Prometheus) -> None:
    captured = "sum(rejectd_frames_captured_total) > 60"
    wait_for(lambda: prometheus.ask(captured), "the line is scraped")
    assert value(prometheus, "up") == 1
    balance = "sum(rejectd_frames_captured_total) - sum(rejectd_verdicts_total) - sum(rejectd_frames_in_flight)"
    assert value(prometheus, balance) == 0
    assert value(prometheus, "min(rejectd_camera_up)") == 1
    assert value(prometheus, "rejectd_judging") == 1
    wait_for(lambda: prometheus.ask("rejectd_broker_connected == 1"), "the broker is connected")
    quantile = "histogram_quantile(0.99, sum by (le) (rejectd_capture_to_publish_seconds_bucket))"
    assert value(prometheus, quantile) > 0
    exemplars = prometheus.exemplars("rejectd_capture_to_publish_seconds_bucket")
    events = {row[0] for row in running.journal("SELECT event_id FROM verdict")}
    assert exemplars
    assert {exemplar["labels"]["event_id"] for exemplar in exemplars} & events
    assert running.stop() == 0


def test_every_rule_is_evaluated_and_has_the_metrics_that_it_asks_for(prometheus: Prometheus) -> None:
    def empty() -> list[str]:
        records = [rule["record"] for rule in _RULES if "record" in rule]
        selectors = {selector for rule in _RULES for selector in _SELECTOR.findall(rule["expr"])}
        return [query for query in [*records, *sorted(selectors)] if not prometheus.ask(query)]

    wait_for(lambda: not empty() or None, "no query of the rules is empty", 60)
    assert len(prometheus.rules()) == len(_RULES)
    assert {rule["name"]: rule["lastError"] for rule in prometheus.rules() if rule.get("lastError")} == {}
    assert {rule["health"] for rule in prometheus.rules()} == {"ok"}


def test_no_panel_is_empty_and_changes_of_the_line_are_marked(running: Line, prometheus: Prometheus) -> None:
    queries = panel_queries()
    assert len(queries) > 40
    left = dict.fromkeys(queries)

    def all_answered() -> bool:
        for query in list(left):
            if prometheus.ask(query[1]):
                del left[query]
        return not left

    try:
        wait_for(all_answered, "no panel is empty", 60)
    except AssertionError:
        pytest.fail(f"empty panels: {sorted(left)}")
    assert running.stop() == 0
    running.settings["products"]["cell"]["threshold"] = 123.0
    running.start()
    for dashboard in _DASHBOARDS:
        marks = {mark["name"]: as_grafana_asks(mark["expr"]) for mark in dashboard["annotations"]["list"]}
        assert set(marks) == {"Restart", "Threshold changed", "Changeover", "Bundle changed"}
        for name, query in marks.items():
            wait_for(lambda query=query: prometheus.ask(query), f"the mark {name} is there")  # type: ignore[misc]


def test_the_choice_of_lines_comes_from_a_metric_of_the_service() -> None:
    for dashboard in _DASHBOARDS:
        [variable] = [one for one in dashboard["templating"]["list"] if one["name"] == "line"]
        [metric] = re.findall(r"label_values\((\w+), line\)", variable["query"])
        assert metric in metric_names()
