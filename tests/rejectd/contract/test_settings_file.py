"""rejectd.contract.settings_file: files that hold no settings or cannot be read, anchors, and where state lies."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from settings_texts import CAMERAS, GOOD, NO_GROUP, PRODUCTS, REST, camera, complaints, group, load

from rejectd.contract import settings_file
from rejectd.contract.declaration import SettingsError

GIVE = "give the path of a settings file, such as config/line.yaml"
LATIN = "is not UTF-8 text, but probably CP1252 or Latin-1 (line 1); save it as UTF-8"
ICONV = "iconv -f CP1252 -t UTF-8"
SAVE = "save it as UTF-8"
WRONG_FILES = {
    "empty file": ("", "1: file: is empty; start from the example config/line.yaml"),
    "comments only": ("# line: l\n", "1: file: is empty; start from the example config/line.yaml"),
    "a list": ("- line\n", f"1: file: a list {NO_GROUP}"),
    "prose is cut short": (
        "This is the readme of our new line.\nIt is about cameras.\n",
        f"1: file: 'This is the readme of our new line. It i...' {NO_GROUP}",
    ),
    "no space after the colon": (
        "line:l\n",
        "1: file: 'line:l' is not a group of settings; put a space after the colon",
    ),
    "control character": (
        GOOD + "batch: {}\x00\n",
        "4: syntax: holds the character #x0000; is this a text file? remove it",
    ),
    "tab": (
        group("mqtt:\n\tport: 1883"),
        "5: syntax: not YAML: found character '\\t' that cannot start any token; indent with spaces, not tabs",
    ),
    "bracket left open": (
        "line: [a\n",
        "2: syntax: not YAML: expected ',' or ']', but got '<stream end>'; is a bracket or quote left open in or above "
        "this line?",
    ),
    "colon in a value": (
        "line: a: b\n" + REST,
        "1: syntax: not YAML: mapping values are not allowed here; is the line indented right? "
        "put a text with a colon in quotes",
    ),
    "unknown anchor": (
        "line: *name\n" + REST,
        "1: syntax: not YAML: found undefined alias 'name'; see the example config/line.yaml",
    ),
    "second document": (
        GOOD + "---\nline: m\n",
        "4: syntax: not YAML: but found another document; remove the line ---",
    ),
    "nested too deeply": ("line: " + "[" * 1000, "1: syntax: nested too deeply; see the example config/line.yaml"),
    "merged number": ("<<: 5\n" + GOOD, "1: <<: merges what is not a group; name an anchor, `<<: *name`"),
    "list as a key": ("? [a, b]\n: 3\n" + GOOD, "1: file: a list is not a name; write `name: value`"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_holds_no_settings_is_named_with_its_line_and_what_to_do(directory: Path, name: str) -> None:
    text, message = WRONG_FILES[name]
    assert complaints(directory, text) == [f"line.yaml:{message}"]


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda file: None, f"No such file or directory; {GIVE}"),
        (lambda file: file.mkdir(), f"Is a directory; {GIVE}"),
        (lambda file: file.symlink_to("/dev/zero"), f"it has more than 16777216 bytes; {GIVE}"),
        (lambda file: file.write_bytes("line: T\xfcr\n".encode("latin-1")), f"{LATIN}, such as with `{ICONV}`"),
        (lambda file: file.write_bytes(bytes(range(256))), f"is not UTF-8 text, but holds null bytes (line 2); {SAVE}"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause(directory: Path, make: object, cause: str) -> None:
    make(directory / "other.yaml")  # type: ignore[operator]
    with pytest.raises(SettingsError) as caught:
        settings_file.load(directory / "other.yaml")
    assert str(caught.value) == f"{directory}/other.yaml:1: file: cannot be read: {cause}"


def test_a_file_from_windows_may_begin_with_a_byte_order_mark(directory: Path) -> None:
    assert load(directory, "\ufeff" + GOOD).line == "l"


@pytest.mark.parametrize(
    "text",
    [
        camera("", start='type: folder, product: cell, path: "p\\ud800"'),
        group('state_directory: "s\\ud800"'),
        group('evidence: {directory: "e\\ud800"}'),
        group('mqtt: {username: "u\\ud800"}'),
        group('mqtt: {username: u, password_file: "q\\ud800"}'),
    ],
)
def test_half_a_character_is_refused_where_it_stands(directory: Path, text: str) -> None:
    (told,) = complaints(directory, text)
    assert "\\ud800' is not allowed; " in told


@pytest.mark.parametrize("name", ["bundles/cell", "w.pth", "ca.pem", "broker.password"])
def test_what_lies_below_a_closed_folder_is_named_with_that_folder(name: str) -> None:
    texts = {
        "bundles/cell": "line: l\n" + CAMERAS + "products: {cell: {bundle: shut/bundles/cell}}\n",
        "w.pth": group("engine: {teacher_weights: shut/w.pth}"),
        "ca.pem": group("mqtt: {tls: true, tls_ca: shut/ca.pem}"),
        "broker.password": group("mqtt: {username: u, password_file: shut/broker.password}"),
    }
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        directory.chmod(0o777)
        (directory / "pictures").mkdir()
        (directory / "cell").mkdir()
        (directory / "cell" / "bundle.json").write_text("{}")
        (directory / "shut").mkdir(mode=0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            told = "\n".join(complaints(directory, texts[name]))
        finally:
            if root:
                os.seteuid(0)
    assert f"shut/{name} cannot be read: Permission denied: it is below shut, which user " in told


def test_a_file_without_permission_is_named_with_the_cause(directory: Path) -> None:
    file = directory / "line.yaml"
    file.write_text(GOOD)
    file.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(SettingsError, match="cannot be read: Permission denied"):
            settings_file.load(file)
    finally:
        if root:
            os.seteuid(0)


def test_an_anchor_is_merged_into_other_cameras_and_may_be_overridden(directory: Path) -> None:
    text = (
        "line: l\n"
        "cameras:\n"
        "  a: &camera\n"
        "    type: folder\n"
        "    product: cell\n"
        "    path: left\n"
        "    deadline_ms: 300\n"
        "  b:\n"
        "    <<: *camera\n"
        "    path: right\n"
        "  c: {<<: [*camera, {loop: true}], deadline_ms: 400}\n"
        "  d: *camera\n" + PRODUCTS
    )
    cameras = load(directory, text).cameras
    found = {name: (each.path.name, each.deadline_ms, each.loop) for name, each in cameras.items()}  # type: ignore[union-attr]
    assert found == {
        "a": ("left", 300, False),
        "b": ("right", 300, False),
        "c": ("left", 400, True),
        "d": ("left", 300, False),
    }


def test_a_mistake_in_a_merged_group_is_named_at_the_line_of_the_anchor(directory: Path) -> None:
    text = (
        "line: l\n"
        "cameras:\n"
        "  a: &camera {type: folder, product: cell, path: x,\n"
        "     lop: true}\n"
        "  b: {<<: *camera, path: y}\n" + PRODUCTS
    )
    hint = "unknown setting; did you mean loop?"
    assert complaints(directory, text) == [f"line.yaml:4: cameras.a.lop: {hint}", f"line.yaml:4: cameras.b.lop: {hint}"]


def test_windows_line_ends_and_a_byte_order_mark_are_read(directory: Path) -> None:
    assert load(directory, "\ufeff" + GOOD.replace("\n", "\r\n")) == load(directory, GOOD)


def test_a_group_that_contains_itself_ends(directory: Path) -> None:
    assert complaints(directory, "line: l\ncameras: &a {a: *a}\n" + PRODUCTS) == [
        "line.yaml:2: cameras.a.type: is missing; add `type:`, one of folder, video, v4l2, aravis, pylon, gentl, region"
    ]


def test_state_lies_where_the_file_says_or_systemd_or_beside_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = directory / "line.yaml"
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert settings_file.state_directory(load(directory, GOOD), file) == directory / "state"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/rejectd/l:/var/lib/other")
    assert settings_file.state_directory(load(directory, GOOD), file) == Path("/var/lib/rejectd/l")
    given = load(directory, GOOD + "state_directory: here\n")
    assert settings_file.state_directory(given, file) == directory / "here"


@pytest.mark.parametrize("path", ["/etc/rejectd/line1.yaml", "/etc/rejectd/../rejectd/line1.yaml"])
def test_a_person_finds_the_state_of_a_service_that_systemd_runs(
    directory: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert settings_file.state_directory(load(directory, GOOD), Path(path)) == Path("/var/lib/rejectd/line1")
    unit = (Path(__file__).parents[3] / "systemd" / "rejectd@.service").read_text()
    assert "ExecStart=/opt/rejectd/bin/rejectd run /etc/rejectd/%i.yaml" in unit
    assert "StateDirectory=rejectd/%i" in unit
    given = load(directory, GOOD + "state_directory: here\n")
    assert settings_file.state_directory(given, Path(path)) == directory / "here"
