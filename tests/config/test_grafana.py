"""config/grafana: the dashboards are what the generator writes, and ask for nothing that the service does not have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from metric_names import metric_names, names_in

GRAFANA = Path(__file__).parents[2] / "config" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


def check(before: str = "") -> subprocess.CompletedProcess[str]:
    """`build.py --check`, after some other code."""
    build = GRAFANA / "build.py"
    code = (
        f"{before}\nimport runpy, sys\nsys.argv = [{str(build)!r}, '--check']\nsys.path.insert(0, {str(GRAFANA)!r})\n"
    )
    code += f"runpy.run_path({str(build)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def queries(dashboard: dict[str, Any]) -> list[str]:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [mark["expr"] for mark in dashboard["annotations"]["list"]]


def test_the_dashboards_are_up_to_date() -> None:
    result = check()
    assert (result.returncode, result.stderr) == (0, "")


def test_a_renamed_metric_breaks_the_check() -> None:
    result = check("import rejectd.metrics\nrejectd.metrics.VIEWS = 'rejectd_views'")
    assert result.returncode == 1
    assert "cameras.json: out of date" in result.stderr


def test_a_metric_that_is_gone_breaks_the_build() -> None:
    gone = (
        "import rejectd.metrics as m\nbegin = m.Metrics.__init__\n"
        "def init(self, *args, **options):\n    begin(self, *args, **options)\n    del self.outbox\n"
        "m.Metrics.__init__ = init"
    )
    result = check(gone)
    assert result.returncode == 1
    assert "has no attribute 'outbox'" in result.stderr


def test_there_is_one_each_for_line_cameras_model_and_fleet() -> None:
    assert [path.stem for path in DASHBOARDS] == ["cameras", "fleet", "line", "model"]
    uids = {json.loads(path.read_text())["uid"] for path in DASHBOARDS}
    assert uids == {"rejectd-cameras", "rejectd-fleet", "rejectd-line", "rejectd-model"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_asks_for_metrics_of_the_service_or_recorded_ones(path: Path) -> None:
    rules = yaml.safe_load((GRAFANA.parent / "prometheus" / "rules.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    used = {name for query in queries(json.loads(path.read_text())) for name in names_in(query)}
    assert used
    assert used - metric_names() - recorded == set()


def test_every_metric_of_the_service_is_shown_somewhere() -> None:
    shown = {name for path in DASHBOARDS for query in queries(json.loads(path.read_text())) for name in names_in(query)}
    parts = ("_bucket", "_count", "_sum", "_created")
    families = {name for name in metric_names() if not name.endswith(parts)}
    assert families - shown == {"rejectd_parts_seen_total"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows_and_has_a_place_of_its_own(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert all(panel["title"] and panel["description"].endswith(".") for panel in panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)


def test_the_provisioning_files_name_a_data_source_and_a_folder_of_dashboards() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/rejectd.yml").read_text())["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", "rejectd")
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/rejectd.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"]
