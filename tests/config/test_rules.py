"""config/prometheus: every alert fires when it should and not on a healthy line; the files are valid."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from metric_names import metric_names, names_in
from peers import need_peer

PROMETHEUS = Path(__file__).parents[2] / "config" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
RECORDS = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
_LINE = 'line="l1",instance="i"'


class Case(NamedTuple):
    """Series, one value a minute: with `trouble` the alert fires at `minute`, with `health` it does not."""

    minute: int
    trouble: dict[str, str]
    health: dict[str, str]


def _verdicts(passed: str, late: str = "0x200", paused: str = "0x200") -> dict[str, str]:
    ends = {("pass", ""): passed, ("unjudged", "late"): late, ("unjudged", "paused"): paused}
    return {
        f'rejectd_verdicts_total{{camera="left",decision="{decision}",cause="{cause}"}}': values
        for (decision, cause), values in ends.items()
    }


def _captured(left: str, right: str) -> dict[str, str]:
    name = "rejectd_frames_captured_total"
    return {f'{name}{{camera="left"}}': left, f'{name}{{camera="right"}}': right, f'{name}{{camera="golden"}}': "0x200"}


def _account(captured: str, passed: str, in_flight: str) -> dict[str, str]:
    return {
        'rejectd_frames_captured_total{camera="left"}': captured,
        'rejectd_verdicts_total{camera="left",decision="pass",cause=""}': passed,
        'rejectd_frames_in_flight{camera="left"}': in_flight,
    }


def _ratios(judged: str, passed: str) -> dict[str, str]:
    name = "rejectd_score_threshold_ratio"
    return {f'{name}_count{{product="cell"}}': judged, f'{name}_bucket{{product="cell",le="1.0"}}': passed}


def _bundle(digest: str) -> str:
    return f'rejectd_bundle_info{{product="cell",digest="{digest}",engine="torch",teacher="t"}}'


def _engine(took: str) -> dict[str, str]:
    return {'rejectd_stage_seconds_sum{stage="inspect"}': took, "rejectd_engine_expected_seconds_total": "0+10x200"}


_COUNTED, _TOLD = (f'rejectd_{name}_total{{camera="left"}}' for name in ("actuator_rejects", "reject_orders"))
CASES = {
    "RejectdGone": Case(3, {'up{job="rejectd"}': "1 0x10"}, {'up{job="rejectd"}': "1 0 1x10"}),
    "RejectdRestartLoop": Case(
        25,
        {"rejectd_start_time_seconds": "1x5 2x5 3x5 4x20"},
        {"rejectd_start_time_seconds": "1x10 2x30"},
    ),
    "RejectdNoProgress": Case(
        10, _account("0+10x5 50x20", "0+10x4 40x20", "10x30"), _account("0+10x30", "0+10x30", "10x30")
    ),
    "RejectdNotJudging": Case(5, {"rejectd_judging": "1 0x20"}, {"rejectd_judging": "1x2 0 1x20"}),
    "RejectdAccountNotBalanced": Case(
        5, _account("5+10x20", "2+10x20", "2x20"), _account("4+10x20", "2+10x20", "2x20")
    ),
    "RejectdLateVerdicts": Case(
        20,
        {'rejectd_deadlines_missed_total{camera="left"}': "0+1x30", **_verdicts("0+100x30")},
        {'rejectd_deadlines_missed_total{camera="left"}': "0x15 1x15", **_verdicts("0+1x30")},
    ),
    "RejectdUnjudged": Case(30, _verdicts("0+95x60", late="0+5x60"), _verdicts("0+99x60", "0+1x60", paused="0+900x60")),
    "RejectdNoFrames": Case(30, _captured("0+10x60", "7x60"), _captured("0x60", "7x60")),
    "RejectdLineSilent": Case(
        40, _captured("0+10x20 200x40", "7x60"), {**_captured("0x60", "7x60"), "rejectd_judging": "1x60"}
    ),
    "RejectdCameraDown": Case(
        5, {'rejectd_camera_up{camera="left"}': "1 0x20"}, {'rejectd_camera_up{camera="left"}': "1x3 0 1x20"}
    ),
    "RejectdActuatorDisagrees": Case(
        60, {_COUNTED: "0+1x20 20x60", _TOLD: "0+1x90"}, {_COUNTED: "0 0+1x90", _TOLD: "0+1x90"}
    ),
    "RejectdBrokerAway": Case(5, {"rejectd_broker_connected": "1x3 0x20"}, {"rejectd_broker_connected": "1x20"}),
    "RejectdOutboxGrowing": Case(
        40, {"rejectd_outbox_events": "0x5 1+3x60"}, {"rejectd_outbox_events": "0x5 200-2x60 0x20"}
    ),
    "RejectdJournalUnavailable": Case(
        5, {"rejectd_journal_available": "1 0x20"}, {"rejectd_journal_available": "1x2 0 1x20"}
    ),
    "RejectdRecordsSacrificed": Case(
        20,
        {'rejectd_records_sacrificed_total{what="journal"}': "0x15 3x30"},
        {'rejectd_records_sacrificed_total{what="journal"}': "3x45"},
    ),
    "RejectdCertificateEnds": Case(
        5,
        {'rejectd_certificate_expiry_timestamp_seconds{certificate="broker"}': "1209000x20"},  # 14 days: 1209600
        {
            'rejectd_certificate_expiry_timestamp_seconds{certificate="broker"}': "1210200x20",
            'rejectd_certificate_expiry_timestamp_seconds{certificate="client"}': "0x20",
        },
    ),
    "RejectdClockUnsynchronised": Case(
        20, {"rejectd_clock_synchronised": "0x30"}, {"rejectd_clock_synchronised": "NaN NaN 0x5 1x30"}
    ),
    # 1 % of rejects the day before; then 3 % in an hour, which chance hardly makes, or 1.2 %, which it does
    "RejectdRejectRateHigh": Case(
        1500, _ratios("0+60x1500", "0+59.4x1440 85594+58.2x60"), _ratios("0+60x1500", "0+59.4x1440 85594+59.28x60")
    ),
    "RejectdRejectRateLow": Case(
        1500, _ratios("0+60x1500", "0+59.4x1440 85596+60x60"), _ratios("0+60x1500", "0+59.4x1440 85594+59.52x60")
    ),
    "RejectdThresholdChanged": Case(
        12, {'rejectd_threshold{product="cell"}': "0.5x10 0.6x10"}, {'rejectd_threshold{product="cell"}': "0.5x30"}
    ),
    "RejectdBundleChanged": Case(
        25, {_bundle("a"): "1x20 _x20", _bundle("b"): "_x20 1x20"}, {_bundle("a"): "_x20 1x20"}
    ),
    "RejectdDrift": Case(
        10,
        {
            'rejectd_drift{camera="left",cause="dirt"}': "0x4 1x20",
            'rejectd_drift{camera="left",cause="light"}': "0x30",
        },
        {
            'rejectd_drift{camera="left",cause="dirt"}': "0x8 1 0x20",
            'rejectd_drift_evidence_ratio{camera="left",sign="place"}': "0.9x30",
        },
    ),
    "RejectdEngineSlow": Case(40, _engine("0+25x60"), _engine("0+15x60")),
}


def with_line(series: str) -> str:
    """A series with the labels that every scrape gives."""
    name, _, labels = series.partition("{")
    return f"{name}{{{_LINE},{labels}" if labels else f"{name}{{{_LINE}}}"


def unit_test(alert: str, case: Case, series: dict[str, str], firing: int) -> dict[str, Any]:
    """As promtool wants it: how many of the alert fire then."""
    count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples = [{"labels": "{}", "value": firing}] if firing else []
    return {
        "interval": "1m",
        "input_series": [{"series": with_line(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": count, "eval_time": f"{case.minute}m", "exp_samples": samples}],
    }


def promtool(*arguments: object) -> None:
    need_peer(shutil.which("promtool"), "prometheus")
    result = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def run_unit_test(directory: Path, test: dict[str, Any]) -> None:
    document = {"rule_files": [str(PROMETHEUS / "rules.yml")], "evaluation_interval": "1m", "tests": [test]}
    (directory / "test.json").write_text(json.dumps(document))  # JSON is YAML
    promtool("test", "rules", directory / "test.json")


@pytest.mark.parametrize("alert", CASES)
def test_the_alert_fires_when_there_is_trouble(alert: str, tmp_path: Path) -> None:
    run_unit_test(tmp_path, unit_test(alert, CASES[alert], CASES[alert].trouble, 1))


@pytest.mark.parametrize("alert", CASES)
def test_the_alert_does_not_fire_without_trouble(alert: str, tmp_path: Path) -> None:
    run_unit_test(tmp_path, unit_test(alert, CASES[alert], CASES[alert].health, 0))


def test_every_alert_has_its_case_and_says_what_it_means_and_what_to_do_first() -> None:
    assert set(CASES) == set(ALERTS)
    for alert in ALERTS.values():
        assert set(alert["annotations"]) == {"summary", "meaning", "action"}
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_prometheus_and_alertmanager_take_the_files() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    need_peer(shutil.which("amtool"), "prometheus-alertmanager")
    routes = ["config", "routes", "test", f"--config.file={PROMETHEUS / 'alertmanager.yml'}"]
    for severity, receiver in (("critical", "shift"), ("warning", "maintenance"), ("info", "record")):
        result = subprocess.run(["amtool", *routes, f"severity={severity}"], capture_output=True, text=True)
        assert (result.returncode, result.stdout.strip()) == (0, receiver), result.stderr
    check = ["amtool", "check-config", str(PROMETHEUS / "alertmanager.yml")]
    assert subprocess.run(check, capture_output=True).returncode == 0


def test_inhibition_names_only_alerts_that_there_are() -> None:
    rules = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())["inhibit_rules"]
    matchers = [matcher for rule in rules for matcher in rule["source_matchers"] + rule["target_matchers"]]
    assert {name for matcher in matchers for name in re.findall(r"Rejectd\w+", matcher)} <= set(ALERTS)


def test_the_rules_use_only_metrics_that_the_service_has() -> None:
    used = {name for group in RULES["groups"] for rule in group["rules"] for name in names_in(rule["expr"])}
    assert len(used) > 15
    assert used - metric_names() - RECORDS == set()


def test_the_runbook_is_up_to_date() -> None:
    script = PROMETHEUS / "runbook.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
