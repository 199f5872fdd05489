"""A real Prometheus scrapes the service."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from line import Line
from peers import free_port, need_peer, wait_for

pytestmark = pytest.mark.system


def _ask(port: int, query: str) -> float | None:
    """The value of an instant query; None as long as it has none."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            result = json.load(page)["data"]["result"]
    except (urllib.error.URLError, OSError):
        return None
    return float(result[0]["value"][1]) if result else None


def test_prometheus_scrapes_the_line_and_its_account_balances(line: Line, cells: list[Path], tmp_path: Path) -> None:
    need_peer(shutil.which("prometheus"), "prometheus")
    line.folder("left", cells[:20], rate_hz=30, loop=True)
    line.folder("right", cells[20:40], rate_hz=30, loop=True)
    line.start()
    port = free_port()
    config = tmp_path / "prometheus.json"
    job = {"job_name": "rejectd", "static_configs": [{"targets": [f"127.0.0.1:{line.metrics_port}"]}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))  # JSON is YAML
    arguments = [
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={tmp_path}/db",
    ]
    with subprocess.Popen(["prometheus", *arguments], stderr=subprocess.DEVNULL) as prometheus:
        try:
            wait_for(lambda: (_ask(port, "sum(rejectd_frames_captured_total)") or 0) > 60, "the line is scraped", 40)
            assert _ask(port, "up") == 1
            balance = "sum(rejectd_frames_captured_total) - sum(rejectd_verdicts_total) - sum(rejectd_frames_in_flight)"
            assert _ask(port, balance) == 0
            assert _ask(port, "min(rejectd_camera_up)") == 1
            wait_for(lambda: _ask(port, "rejectd_broker_connected") == 1, "the broker is connected")
            quantile = "histogram_quantile(0.99, sum by (le) (rejectd_capture_to_publish_seconds_bucket))"
            assert (_ask(port, quantile) or 0) > 0
        finally:
            prometheus.kill()
    assert line.stop() == 0
