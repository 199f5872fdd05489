"""rejectd.cli.reference: the example and the reference page are what the code says."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from rejectd.cli import reference
from rejectd.contract import payloads, schemas, settings_file
from rejectd.contract.fields import Group
from rejectd.contract.messages import Cause, Decision
from rejectd.contract.requests import REQUESTS
from rejectd.contract.settings import (
    AravisCamera,
    FolderCamera,
    GentlCamera,
    Product,
    PylonCamera,
    RegionCamera,
    Settings,
    Station,
    V4l2Camera,
    VideoCamera,
)

CONFIG = Path(__file__).parents[3] / "config"
CAMERAS = (FolderCamera, VideoCamera, V4l2Camera, AravisCamera, PylonCamera, GentlCamera, RegionCamera)
GROUPS = [
    hint for hint in typing.get_type_hints(Settings).values() if isinstance(hint, type) and issubclass(hint, Group)
]
SETTINGS = {name for cls in (Settings, Product, Station, *CAMERAS, *GROUPS) for name in cls.model_fields}
COMMENTED = re.compile(r"^((?: *# )+ *)(\w+):(.*)$")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the bundle of the example lies."""
    (tmp_path / "bundles" / "cell").mkdir(parents=True)
    (tmp_path / "bundles" / "cell" / "bundle.json").write_text("{}")
    return tmp_path


def load(directory: Path, text: str) -> Settings:
    (directory / "line.yaml").write_text(text)
    return settings_file.load(directory / "line.yaml")


def uncommented(line: str) -> str:
    """A line of the example with its setting switched on; a sentence stays a comment."""
    found = COMMENTED.match(line)
    if not found or found[2] not in SETTINGS | {"type", "part"} | {
        f"camera{number}" for number in range(2, len(CAMERAS) + 1)
    }:
        return line
    return f"{found[1].replace('# ', '')}{found[2]}:{found[3]}"


def stations(lines: list[str]) -> range:
    """Where the stations stand, which change what the cameras may say."""
    start = lines.index("# stations:")
    return range(start, lines.index("", start))


def test_the_files_under_config_are_up_to_date() -> None:
    assert reference.stale(CONFIG) == [], "run: rejectd reference --write config"


def test_a_changed_or_missing_file_is_stale(tmp_path: Path) -> None:
    shapes = [f"mqtt/schemas/{name}.schema.json" for name in schemas.schemas()]
    assert reference.stale(tmp_path) == ["line.yaml", "line.schema.json", "reference.md", "mqtt/asyncapi.yaml", *shapes]
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == []
    (tmp_path / "reference.md").write_text("else")
    (tmp_path / "mqtt" / "schemas" / "verdict.schema.json").unlink()
    assert reference.stale(tmp_path) == ["reference.md", "mqtt/schemas/verdict.schema.json"]


def test_the_example_is_a_valid_file_with_nothing_but_defaults(directory: Path) -> None:
    settings = load(directory, reference.example())
    camera = FolderCamera(product="cell", path=directory / "pictures")
    product = Product(bundle=directory / "bundles" / "cell")
    assert settings == Settings(line="line1", cameras={"camera1": camera}, products={"cell": product})


def test_the_example_with_everything_switched_on_means_the_same(directory: Path) -> None:
    lines = reference.example().splitlines()
    apart = stations(lines)
    everything = "\n".join(line if number in apart else uncommented(line) for number, line in enumerate(lines))
    settings = load(directory, everything)
    assert [type(camera) for camera in settings.cameras.values()] == list(CAMERAS)
    plain = load(directory, reference.example())
    assert settings.model_copy(update={"cameras": plain.cameras}) == plain
    assert settings.cameras["camera1"] == plain.cameras["camera1"]


def test_the_stations_of_the_example_can_be_switched_on(directory: Path) -> None:
    lines = reference.example().splitlines()
    others = range(lines.index("  # camera2:"), lines.index("# The products by name."))
    wanted = [
        uncommented(line) if number in stations(lines) or (number in others and "deadline_ms" not in line) else line
        for number, line in enumerate(lines)
    ]
    part = Station(cameras=("camera2", "camera3"), tolerance_ms=100, pitch_ms=1000)
    assert load(directory, "\n".join(wanted)).stations == {"part": part}


def test_each_setting_of_the_example_can_be_switched_on_alone(directory: Path) -> None:
    lines = reference.example().splitlines()
    plain = load(directory, reference.example())
    switched = 0
    for number, line in enumerate(lines):
        changed = uncommented(line)
        if changed == line or changed.endswith(":") or "type:" in changed or number in stations(lines):
            continue
        if changed.startswith("  ") and line.startswith("#"):  # within a group that is commented out itself
            group = max(i for i in range(number) if re.match(r"# \w+:$", lines[i]))
            text = [*lines[:group], lines[group][2:], *lines[group + 1 : number], changed, *lines[number + 1 :]]
        elif line.startswith("  #"):
            continue  # within a camera that is commented out: all of it is switched on in the test above
        else:
            text = [*lines[:number], changed, *lines[number + 1 :]]
        assert load(directory, "\n".join(text)) == plain, line
        switched += 1
    assert switched >= 30


def test_every_setting_is_in_the_reference_and_in_the_example() -> None:
    page, example = reference.reference(), reference.example()
    assert len(SETTINGS) > 50
    for name in SETTINGS - {"cameras", "products"} - set(Settings.model_fields):
        assert f"| `{name}` |" in page, name
        assert f"{name}: " in example, name
    for name in Settings.model_fields:
        assert f"| `{name}` |" in page or re.search(rf"^### {name}", page, re.MULTILINE), name
        assert f"{name}:" in example, name


def test_every_decision_and_cause_is_in_the_reference() -> None:
    page = reference.reference()
    for decision in Decision:
        assert f"/verdict/{decision}`" in page
    for cause in Cause:
        assert f"`{cause}`" in page


def test_every_command_with_its_fields_and_every_topic_is_in_the_reference() -> None:
    page = reference.reference()
    for command, cls in REQUESTS.items():
        section = page.partition(f"### {command}\n")[2].partition("\n##")[0]
        assert schemas.request(command)["description"] in section
        for name in cls.model_fields:
            assert f"| `{name}` |" in section, name
        for name in schemas.result(command)["properties"]:
            assert f"`{name}`" in section, name
    for topic in (
        payloads.answer_topic("LINE"),
        payloads.command_topic("LINE", "NAME"),
        payloads.actuator_topic("LINE", "CAMERA"),
    ):
        assert f"`{topic}`" in page


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    cells = rows = 0
    for line in reference.reference().splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        cells = cells or line.count("|")
        rows += 1
        assert line.count("|") == cells, line
    assert rows > len(SETTINGS)


def test_what_is_commented_out_is_the_default_in_the_form_that_the_file_wants() -> None:
    shown = [found for line in reference.example().splitlines() if (found := COMMENTED.match(line))]
    defaults = {found[2]: found[3].strip() for found in shown if found[2] in SETTINGS}
    assert len(defaults) > 20
    assert not {"None", "True", "False"} & set(defaults.values()), defaults
