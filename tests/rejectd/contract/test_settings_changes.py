"""rejectd.contract.settings_changes: what a reload does not take over is named, without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rejectd.contract import settings_file
from rejectd.contract.settings_changes import needing_restart


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("cell", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").write_text("{}")
    (tmp_path / "secret").write_text("hunter2")
    return tmp_path


def load(directory: Path, **more: Any) -> settings_file.Settings:
    camera = {"type": "video", "product": "cell", "url": "rtsp://192.0.2.7/s?token=hunter1", "deadline_ms": 500}
    settings: dict[str, Any] = {"line": "l", "cameras": {"a": camera}, "products": {"cell": {"bundle": "cell"}}}
    settings |= more
    (directory / "line.yaml").write_text(json.dumps(settings))
    return settings_file.load(directory / "line.yaml")


def test_thresholds_and_the_log_level_need_no_restart(directory: Path) -> None:
    product = {"bundle": "cell", "threshold": 0.5, "threshold_for": "0123abcd"}
    after = load(directory, log_level="debug", products={"cell": product})
    assert needing_restart(load(directory), after) == {}


def test_what_needs_a_restart_is_named_with_both_values(directory: Path) -> None:
    mqtt = {"host": "b", "username": "u", "password_file": "secret"}
    changed = needing_restart(load(directory), load(directory, mqtt=mqtt, metrics={"port": 1234}))
    assert changed["mqtt.host"] == ("127.0.0.1", "b")
    assert changed["mqtt.username"] == ("None", "u")
    assert changed["mqtt.password_file"] == ("None", str(directory / "secret"))
    assert changed["metrics.port"][1] == "1234"
    assert len(changed) == 4
    assert "hunter2" not in str(changed)


def test_cameras_and_products_that_come_and_go_are_named(directory: Path) -> None:
    folder = {"type": "folder", "product": "new", "path": "p"}
    after = load(directory, cameras={"b": folder}, products={"new": {"bundle": "other", "threshold": 0.5}})
    changed = needing_restart(load(directory), after)
    assert changed["cameras.b.path"] == ("absent", str(directory / "p"))
    assert changed["cameras.a.deadline_ms"] == ("500", "absent")
    assert changed["products.new.threshold"] == ("absent", "0.5"), "of a product that the service does not have"
    assert changed["products.cell.bundle"][1] == "absent"


def test_an_address_is_shown_without_what_may_be_a_key(directory: Path) -> None:
    camera = {"type": "video", "product": "cell", "url": "rtsp://192.0.2.8/s?token=hunter3#hunter4", "deadline_ms": 500}
    changed = needing_restart(load(directory), load(directory, cameras={"a": camera}))
    assert changed == {"cameras.a.url": ("rtsp://192.0.2.7/s?...", "rtsp://192.0.2.8/s?...")}
