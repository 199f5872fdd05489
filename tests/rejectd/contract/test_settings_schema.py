"""rejectd.contract.settings_schema: an editor takes what the service takes, and marks what it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from rejectd.contract import settings_file
from rejectd.contract.declaration import SettingsError
from rejectd.contract.settings import Settings

CONFIG = Path(__file__).parents[3] / "config"
PLAIN = "line: l\ncameras: {a: {type: folder, product: p, path: pictures}}\nproducts: {p: {bundle: b}}\n"


def marks(text: str) -> list[str]:
    """Where an editor marks a mistake in this settings file."""
    validator = Draft7Validator(json.loads((CONFIG / "line.schema.json").read_text()))
    return [error.json_path for error in validator.iter_errors(yaml.safe_load(text))]


def is_taken(directory: Path, text: str) -> bool:
    """Whether the service takes it."""
    (directory / "b").mkdir(exist_ok=True)
    (directory / "b" / "bundle.json").write_text("{}")
    (directory / "line.yaml").write_text(text)
    try:
        settings_file.load(directory / "line.yaml")
    except SettingsError:
        return False
    return True


def test_the_example_names_its_schema_in_the_first_line_and_fits_it() -> None:
    text = (CONFIG / "line.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=line.schema.json"
    Draft7Validator.check_schema(json.loads((CONFIG / "line.schema.json").read_text()))
    assert marks(text) == []


def test_every_setting_stands_in_the_schema_with_its_sentence_and_its_default() -> None:
    schema = json.loads((CONFIG / "line.schema.json").read_text())
    assert list(schema["properties"]) == list(Settings.model_fields)
    wait = schema["properties"]["batch"]["properties"]["max_wait_ms"]
    assert wait == {
        "description": "Longest wait for a batch to fill. In ms.", "type": "number", "maximum": 10000, "minimum": 0,
        "default": 20.0,
    }  # fmt: skip
    told = [0]

    def look(group: dict[str, Any]) -> None:
        for name, setting in group.get("properties", {}).items():
            assert setting["description"], name
            told[0] += 1
            look(setting)
            look(setting.get("additionalProperties") or {})
        for rule in group.get("allOf", []):
            look(rule["then"])

    look(schema)
    assert told[0] > len(Settings.model_fields) + 60
    assert "example" not in json.dumps(schema).replace("examples", "")
    assert "pattern_help" not in json.dumps(schema)


@pytest.mark.parametrize(
    "more",
    [
        "",
        "mqtt: {protocol: 5, commands: off}\n",
        'mqtt: {protocol: "3.1.1", commands: true}\n',
        "stations: {s: {cameras: [a], frames: 2, tolerance_ms: 10, pitch_ms: 100}}\n",
        "state_directory: null\nlog_level: debug\n",
    ],
)
def test_an_editor_takes_what_the_service_takes(tmp_path: Path, more: str) -> None:
    text = PLAIN.replace("type: folder,", "type: folder, mode: watch,") + more
    assert is_taken(tmp_path, text)
    assert marks(text) == []


def test_a_name_that_is_a_number_needs_no_quotes_in_an_editor_either(tmp_path: Path) -> None:
    text = PLAIN.replace("line: l", "line: 7").replace("product: p", "product: 3").replace("{p:", "{'3':")
    assert is_taken(tmp_path, text)
    assert marks(text) == []


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (PLAIN.replace("line: l\n", ""), "$"),
        (PLAIN.replace("line: l", "line: a/b"), "$.line"),
        (PLAIN + "colour: red\n", "$"),
        (PLAIN + "batch: {max_batch: 0}\n", "$.batch.max_batch"),
        (PLAIN + "batch: {max_batch: eight}\n", "$.batch.max_batch"),
        (PLAIN + 'batch: {max_batch: "8"}\n', "$.batch.max_batch"),
        (PLAIN + "batch: {max_bach: 8}\n", "$.batch"),
        (PLAIN + "batch:\n", "$.batch"),
        (PLAIN + "mqtt: {tls: 1}\n", "$.mqtt.tls"),
        (PLAIN + 'mqtt: {tls: "yes"}\n', "$.mqtt.tls"),
        (PLAIN + "mqtt: {host: 'mqtt://broker'}\n", "$.mqtt.host"),
        (PLAIN + "mqtt: {protocol: 4}\n", "$.mqtt.protocol"),
        (PLAIN + "mqtt: {username: ''}\n", "$.mqtt.username"),
        (PLAIN + "log_level: loud\n", "$.log_level"),
        (PLAIN + "stations: {}\n", "$.stations"),
        (PLAIN + "stations: {s: {cameras: []}}\n", "$.stations.s.cameras"),
        (PLAIN.replace("type: folder", "type: dslr"), "$.cameras.a.type"),
        (PLAIN.replace("type: folder, ", ""), "$.cameras.a"),
        (PLAIN.replace("path: pictures", "url: x"), "$.cameras.a"),
        (PLAIN.replace("{a:", "{a b:"), "$.cameras"),
        (PLAIN.replace("path: pictures", "path: pictures, region: [0, 0, 5]"), "$.cameras.a.region"),
        (PLAIN.replace("path: pictures", "path: pictures, region: [0, 0, -5, 5]"), "$.cameras.a.region[2]"),
        (PLAIN.replace("path: pictures", "path: ''"), "$.cameras.a.path"),
    ],
)
def test_an_editor_marks_what_the_service_refuses_where_it_stands(tmp_path: Path, wrong: str, place: str) -> None:
    assert not is_taken(tmp_path, wrong)
    assert place in marks(wrong)
