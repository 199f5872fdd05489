"""rejectd.contract.regions: what a region takes from its camera, and mistakes about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rejectd.contract import regions, settings_file
from rejectd.contract.declaration import SettingsError
from rejectd.contract.settings import FolderCamera


def _file(directory: Path, top: dict[str, Any], side: dict[str, Any]) -> Path:
    (directory / "cell").mkdir()
    (directory / "cell" / "bundle.json").write_text("{}")
    cameras = {
        "top": {"type": "folder", "product": "cell", "path": "pictures"} | top,
        "side": {"type": "region", "of": "top", "product": "cell", "region": [0, 0, 5, 5]} | side,
    }
    settings = {
        "line": "l",
        "cameras": cameras,
        "products": {"cell": {"bundle": "cell"}},
        "mqtt": {"commands": "anonymous"},
    }
    (directory / "line.yaml").write_text(json.dumps(settings))
    return directory / "line.yaml"


def test_a_region_of_a_folder_is_read_as_that_folder(tmp_path: Path) -> None:
    settings = settings_file.load(_file(tmp_path, {"bits": 12}, {"deadline_ms": 300}))
    side = regions.resolved(settings.cameras)["side"]
    assert isinstance(side, FolderCamera)
    assert (side.bits, side.deadline_ms, side.region) == (12, 300, (0, 0, 5, 5))


@pytest.mark.parametrize(
    ("top", "side", "told"),
    [
        ({}, {"of": "bottom"}, "cameras.side.of: 'bottom' is not a camera; known cameras: top, side"),
        ({}, {"of": "side"}, "cameras.side.of: 'side' is itself a region"),
        ({}, {"region": None}, "cameras.side.region: 'null' is not allowed"),
        (
            {},
            {"trigger_offset": 1},
            "cameras.side.trigger_offset: has no effect: the pictures of 'top' bring no numbers",
        ),
    ],
)
def test_a_mistake_about_a_region_is_told(tmp_path: Path, top: dict[str, Any], side: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_file.load(_file(tmp_path, top, side))
    assert told in str(caught.value)


def test_a_station_of_regions_of_a_numbered_camera_needs_no_tolerance(tmp_path: Path) -> None:
    file = _file(tmp_path, {"trigger": "name"}, {"trigger_offset": -1})
    settings = json.loads(file.read_text())
    settings["stations"] = {"part": {"cameras": ["top", "side"]}}
    file.write_text(json.dumps(settings))
    assert settings_file.load(file).stations["part"].cameras == ("top", "side")
