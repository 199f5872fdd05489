"""rejectd.contract.settings: stations, and what is said about a mistake in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_texts import CAMERAS, GOOD, PRODUCTS, complaints, group, load

from rejectd.contract.messages import Policy
from rejectd.contract.settings import (
    Station,
)


def station(text: str, cameras: str = "") -> str:
    """A good file with three cameras, of which some have more settings, and stations, in line 6."""
    more = {name: f", {text}" for name, text in (each.split("=") for each in cameras.split(";") if each)}
    start = "type: folder, product: cell, trigger: name"
    lines = [f"  {name}: {{{start}, path: {name}{more.get(name, '')}}}\n" for name in "abc"]
    return f"line: l\ncameras:\n{''.join(lines)}stations: {text}\n{PRODUCTS}"


def paired(*cameras: str, more: str = "") -> str:
    """A good file but for its station of these cameras, in line 4."""
    rows = ", ".join(camera.replace("{", "{product: cell, ") for camera in cameras)
    names = ", ".join(camera[0] for camera in cameras)
    return f"line: l\ncameras: {{{rows}}}\n{PRODUCTS}stations: {{s: {{cameras: [{names}]{more}}}}}\n"


WATCHED = ("a: {type: folder, path: a, mode: watch}", "b: {type: folder, path: b, mode: watch}")


WRONG_STATIONS = {
    "stations without any": (station("{}"), "6: stations: is missing; name at least one"),
    "station without cameras": (
        station("{s: {frames: 2}}"),
        "6: stations.s.cameras: is missing; add `cameras:`. Cameras that see the part. Pictures with the same trigger "
        "number show one part; of pictures without a number, those whose exposures lie within `tolerance_ms` of each "
        "other.",
    ),
    "station of one name": (
        station("{s: {cameras: a}}"),
        "6: stations.s.cameras: 'a' is not allowed; give names of cameras, such as [left, right]",
    ),
    "unknown camera": (
        station("{s: {cameras: [a, d]}}"),
        "6: stations.s.cameras: 'd' is not a camera; known cameras: a, b, c",
    ),
    "camera twice in a station": (
        station("{s: {cameras: [a, a]}}"),
        "6: stations.s.cameras: [a, a] is not allowed; give each name once",
    ),
    "camera in two stations": (
        station("{s: {cameras: [a, b]}, t: {cameras: [b, c]}}"),
        "6: stations.t.cameras: 'b' belongs to stations.s already; a camera sees the parts of one station",
    ),
    "station with the name of a camera": (
        station("{c: {cameras: [a, b]}}"),
        "6: stations.c: has the name of a camera; give the station a name of its own",
    ),
    "station with a reserved name": (
        station("{status: {cameras: [a, b]}}"),
        "6: stations.status: is a reserved name; choose another than actuator, answer, check, command, golden, status",
    ),
    "station with a name that is none": (
        station("{left gate: {cameras: [a, b]}}"),
        "6: stations.left gate: is not a usable name; use 1 to 64 letters, digits, - and _",
    ),
    "deadline of a camera in a station": (
        station("{s: {cameras: [a, b]}}", "b=deadline_ms: 500"),
        "4: cameras.b.deadline_ms: has no effect in a station; remove it; stations.s.deadline_ms counts",
    ),
    "no time to inspect a part": (
        station("{s: {cameras: [a, b], deadline_ms: 20}}"),
        "6: stations.s.deadline_ms: 20 leaves no time to inspect; give more than mqtt.publish_margin_ms (20)",
    ),
    "replays that are counted": (
        paired("a: {type: folder, path: a}", "b: {type: folder, path: b, trigger: name}"),
        "4: stations.s.cameras: 'a' replays a recording: counted pictures do not tell which part they show; give "
        "cameras.a `trigger: name`",
    ),
    "video files": (
        paired("a: {type: video, url: a.mp4}", "b: {type: folder, path: b, trigger: name}"),
        "4: stations.s.cameras: 'a' replays a recording: counted pictures do not tell which part they show; use a "
        "folder of pictures with `trigger: name`",
    ),
    "cameras without numbers and tolerance": (
        paired("a: {type: folder, path: a, mode: watch}", "b: {type: v4l2, device: /dev/video0}"),
        "4: stations.s.tolerance_ms: is missing: pictures of one part are told by their time; add it and `pitch_ms`, "
        "or let each picture bring its number (`trigger: name` of a folder)",
    ),
    "one camera without numbers": (
        paired("a: {type: folder, path: a, trigger: name}", "b: {type: video, url: 'rtsp://c/s'}"),
        "4: stations.s.tolerance_ms: is missing: pictures of one part are told by their time; add it and `pitch_ms`, "
        "or let each picture bring its number (`trigger: name` of a folder)",
    ),
    "several frames of a live camera": (
        paired("a: {type: v4l2, device: /dev/video0}", more=", frames: 3"),
        "4: stations.s.tolerance_ms: is missing: pictures of one part are told by their time; add it and `pitch_ms`, "
        "or let each picture bring its number (`trigger: name` of a folder)",
    ),
    "tolerance without pitch": (
        paired(*WATCHED, more=", tolerance_ms: 50"),
        "4: stations.s.pitch_ms: is missing: tolerance_ms is checked by it; add `pitch_ms:`",
    ),
    "tolerance that mixes parts": (
        paired(*WATCHED, more=", tolerance_ms: 601, pitch_ms: 1200"),
        "4: stations.s.tolerance_ms: 601 would mix the views of two parts; give at most half of pitch_ms (600), or "
        "number the pictures",
    ),
    "tolerance of single pictures": (
        paired("a: {type: v4l2, device: /dev/video0}", more=", tolerance_ms: 5, pitch_ms: 100"),
        "4: stations.s.tolerance_ms: has no effect: each picture is a part; remove it",
    ),
    "pitch without tolerance": (
        station("{s: {cameras: [a, b], pitch_ms: 1200}}"),
        "6: stations.s.pitch_ms: has no effect without tolerance_ms; add `tolerance_ms:`, or remove it",
    ),
    "no frames of a part": (
        station("{s: {cameras: [a], frames: 0}}"),
        "6: stations.s.frames: 0 is not allowed; give 1 to 1000 frames",
    ),
    "no digest": (
        "line: l\n" + CAMERAS + "products: {cell: {bundle: cell, threshold: 1, threshold_for: cell}}\n",
        "3: products.cell.threshold_for: 'cell' is not allowed; 8 to 64 digits of the bundle's digest, as `revdist "
        "show` prints it",
    ),
    "digest without a threshold": (
        "line: l\n" + CAMERAS + "products: {cell: {bundle: cell, threshold_for: 0123abcd}}\n",
        "3: products.cell.threshold_for: has no effect without a threshold; add `threshold:`, or remove it",
    ),
    "commands": (
        group("mqtt: {commands: maybe}"),
        "4: mqtt.commands: 'maybe' is not allowed; choose auto, anonymous, off",
    ),
}


@pytest.mark.parametrize("name", WRONG_STATIONS)
def test_a_mistake_about_a_station_is_named_with_its_line_and_what_to_do(directory: Path, name: str) -> None:
    text, message = WRONG_STATIONS[name]
    assert complaints(directory, text) == [f"line.yaml:{message}"]


@pytest.mark.parametrize("name", ["actuator", "answer", "command", "golden", "status"])
def test_no_camera_or_station_speaks_on_a_topic_of_the_line_itself(directory: Path, name: str) -> None:
    cameras = f"line: l\ncameras: {{{name}: {{type: folder, product: cell, path: x}}}}\n{PRODUCTS}"
    assert [f"cameras.{name}: is a reserved name" in each for each in complaints(directory, cameras)] == [True]
    stations = station(f"{{{name}: {{cameras: [a]}}}}")
    assert [f"stations.{name}: is a reserved name" in each for each in complaints(directory, stations)] == [True]


def test_all_mistakes_about_stations_are_reported_at_once(directory: Path) -> None:
    text = station("{a: {cameras: [a, x], deadline_ms: 5}, golden: {cameras: [a, b, y]}}", "b=deadline_ms: 500")
    reported = complaints(directory, text)
    assert [line.split(": ")[1] for line in reported] == [
        "cameras.b.deadline_ms",
        "stations.a.deadline_ms",
        "stations.golden",
        "stations.golden.cameras",
    ], "what could not be read is not judged further"


def test_stations_are_read_and_their_defaults_are_those_of_the_documentation(directory: Path) -> None:
    text = station("{s: {cameras: [c, a]}, t: {cameras: [b], frames: 4, deadline_ms: 300, policy: stop}}")
    settings = load(directory, text)
    assert settings.stations == {
        "s": Station(cameras=("c", "a"), frames=1, deadline_ms=1000, policy=Policy.REJECT),
        "t": Station(cameras=("b",), frames=4, deadline_ms=300, policy=Policy.STOP),
    }
    assert load(directory, GOOD).stations == {}


LIVE = ("a: {type: v4l2, device: /dev/video0}", "b: {type: video, url: 'rtsp://c/s'}")


@pytest.mark.parametrize(
    ("cameras", "more"),
    [
        (WATCHED, ", tolerance_ms: 600, pitch_ms: 1200"),
        (WATCHED, ", frames: 3, tolerance_ms: 600, pitch_ms: 1200"),
        (LIVE, ", tolerance_ms: 5, pitch_ms: 10"),
        ((WATCHED[0], "b: {type: folder, path: b, trigger: name}"), ", tolerance_ms: 5, pitch_ms: 10"),
        (("a: {type: folder, path: a}",), ", frames: 3"),
        ((WATCHED[0],), ""),
        ((WATCHED[0],), ", frames: 2, tolerance_ms: 5, pitch_ms: 10"),
    ],
)
def test_a_station_whose_views_can_be_told_apart_is_accepted(
    directory: Path, cameras: tuple[str, ...], more: str
) -> None:
    assert load(directory, paired(*cameras, more=more)).stations["s"]


def test_a_deadline_that_comes_from_an_anchor_has_no_effect_in_a_station_either(directory: Path) -> None:
    text = (
        "line: l\n"
        "cameras:\n"
        "  a: &camera {type: folder, product: cell, path: x, deadline_ms: 300}\n"
        "  b: {<<: *camera, path: y}\n"
        "stations: {s: {cameras: [b]}}\n" + PRODUCTS
    )
    (reported,) = complaints(directory, text)
    assert "cameras.b.deadline_ms: has no effect in a station" in reported
