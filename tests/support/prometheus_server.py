"""A real Prometheus with the rules and the scrape of config/prometheus, and the answers to its queries."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from peers import free_port, need_peer, wait_for

CONFIG = Path(__file__).parents[2] / "config" / "prometheus"


class Prometheus:
    """Scrapes a line every second and evaluates the rules as often."""

    def __init__(self, directory: Path, metrics_port: int, *, day_before: bool = False) -> None:
        """`day_before`: there were judged frames in the 26 hours before, 1 % of them rejects."""
        need_peer(shutil.which("prometheus"), "prometheus")
        self.port = free_port()
        self._target = f"127.0.0.1:{metrics_port}"
        directory.mkdir()
        config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [self._target]
        del config["alerting"]
        rules = yaml.safe_load((CONFIG / "rules.yml").read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        (directory / "rules.yml").write_text(yaml.safe_dump(rules))
        if day_before:
            self._write_day_before(directory)
        arguments = [f"--config.file={directory}/prometheus.yml", f"--web.listen-address=127.0.0.1:{self.port}"]
        arguments += [f"--storage.tsdb.path={directory}/db", "--enable-feature=exemplar-storage"]
        self._process = subprocess.Popen(["prometheus", *arguments], stderr=subprocess.DEVNULL)
        try:
            wait_for(self._answers, "Prometheus answers")
        except AssertionError:
            self.close()
            raise

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What an instant query finds now; an error of the query is one of the test."""
        result: list[dict[str, Any]] = self._get("query", query=query)["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """State of each rule."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def exemplars(self, query: str) -> list[dict[str, Any]]:
        """Exemplars of the last minutes."""
        now = time.time()
        found = self._get("query_exemplars", query=query, start=str(now - 600), end=str(now + 60))
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def close(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Prometheus has ended"
        try:
            self._get("query", query="vector(1)")
        except OSError:
            return False
        return True

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as page:
            return json.load(page)["data"]

    def _write_day_before(self, directory: Path) -> None:
        labels = f'instance="{self._target}",job="rejectd",line="line1",product="cell"'
        name, now = "rejectd_score_threshold_ratio", int(time.time())
        steps = list(enumerate(range(now - 26 * 3600, now - 600, 300)))
        lines = [f"# TYPE {name} histogram"]
        lines += [f'{name}_bucket{{{labels},le="1.0"}} {297 * number} {at}' for number, at in steps]
        lines += [f'{name}_bucket{{{labels},le="+Inf"}} {300 * number} {at}' for number, at in steps]
        lines += [f"{name}_count{{{labels}}} {300 * number} {at}" for number, at in steps]
        (directory / "day-before").write_text("\n".join([*lines, "# EOF", ""]))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "day-before", "db"]
        subprocess.run(command, check=True, capture_output=True, cwd=directory)
