"""rejectd.contract.settings: what a person may write, what it means, and what is said about a mistake."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from rejectd.contract import settings_file
from rejectd.contract.declaration import SettingsError
from rejectd.contract.messages import Policy, RejectdError
from rejectd.contract.settings import (
    Device,
    FolderCamera,
    FolderMode,
    LogLevel,
    Numbering,
    Protocol,
    Runtime,
    Station,
    V4l2Camera,
    VideoCamera,
)

CAMERAS = "cameras: {a: {type: folder, product: cell, path: pictures}}\n"
PRODUCTS = "products: {cell: {bundle: cell}}\n"
REST = CAMERAS + PRODUCTS  # two lines
GOOD = "line: l\n" + REST


def camera(more: str, start: str = "type: folder, product: cell, path: pictures") -> str:
    """A good file but for what is added to its camera, in line 2."""
    return f"line: l\ncameras: {{a: {{{start}, {more}}}}}\n{PRODUCTS}"


def video(url: str, more: str = "") -> str:
    return camera(f"url: '{url}'{more}", start="type: video, product: cell")


def group(text: str) -> str:
    """A good file with one more group, in line 4."""
    return GOOD + text + "\n"


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


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder with a bundle, a password and a certificate."""
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "bundle.json").write_text("{}")
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "ca.pem").write_text("-")
    return tmp_path


def load(directory: Path, text: str) -> settings_file.Settings:
    file = directory / "line.yaml"
    file.write_bytes(text.encode())
    return settings_file.load(file)


def complaints(directory: Path, text: str) -> list[str]:
    """What a person reads, one line for each mistake, without the folder's name."""
    with pytest.raises(SettingsError) as caught:
        load(directory, text)
    return str(caught.value).replace(f"{directory}/", "").splitlines()


HAS_LOGIN = "holds a user or password; use `username` and `password_file`, so that the password stays out of logs"
NOT_TEXT = "YAML does not read this as text; put it in quotes"
NO_GROUP = "is not a group of settings; write `name: value` lines, indented below the key"
WHOLE = "give 4 whole numbers, [x, y, width, height]"
GIVE = "give the path of a settings file, such as config/line.yaml"
LATIN = "is not UTF-8 text, but probably CP1252 or Latin-1 (line 1); save it as UTF-8"
ICONV = "iconv -f CP1252 -t UTF-8"
SAVE = "save it as UTF-8"
NOT_A_FILE = "is not a file; give the path of a file, relative to this settings file"
KNOWN = (
    "known here: line, cameras, products, stations, batch, engine, judging, drift, mqtt, metrics, evidence, journal, "
    "memory_mb, state_directory, stop_timeout_s, log_level"
)

WRONG = {
    # not a settings file at all
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
    # names of settings
    "unknown, with a suggestion": (
        group("log_levl: info"),
        "4: log_levl: unknown setting; did you mean log_level?",
    ),
    "unknown, without one": (group("xyz: 1"), f"4: xyz: unknown setting; {KNOWN}"),
    "unknown in a group": (
        group("metrics: {prot: 9000}"),
        "4: metrics.prot: unknown setting; did you mean port?",
    ),
    "password in the file": (
        group("mqtt: {username: u, password: hunter2}"),
        "4: mqtt.password: unknown setting; did you mean password_file?",
    ),
    "twice": ("line: a\n" + GOOD, "2: line: is given twice, first in line 1; keep one of the two"),
    "twice in a group": (
        group("batch:\n  max_batch: 1\n  max_batch: 2"),
        "6: batch.max_batch: is given twice, first in line 5; keep one of the two",
    ),
    # text
    "required text missing": (REST, "1: line: is missing; add `line:`. Name of the line; part of every topic."),
    "no means false": ("line: no\n" + REST, f"1: line: 'no' is not allowed; {NOT_TEXT}: \"no\""),
    "null": ("line: null\n" + REST, f"1: line: 'null' is not allowed; {NOT_TEXT}: \"null\""),
    "no value": (
        "line:\n" + REST,
        "1: line: an empty value is not allowed; Name of the line; part of every topic.",
    ),
    "name with a slash": (
        "line: a/b\n" + REST,
        "1: line: 'a/b' is not allowed; use 1 to 64 letters, digits, - and _",
    ),
    "name with a wildcard": ("line: a+\n" + REST, "1: line: 'a+' is not allowed; use 1 to 64 letters, digits, - and _"),
    "name too long": (
        f"line: {'a' * 65}\n" + REST,
        f"1: line: '{'a' * 40}...' is not allowed; use 1 to 64 letters, digits, - and _",
    ),
    "list for one value": (
        group("mqtt: {port: [1883]}"),
        "4: mqtt.port: a group or list is not allowed; give one value. Port of the broker; 8883 is usual with TLS.",
    ),
    "one of a choice": (
        group("log_level: loud"),
        "4: log_level: 'loud' is not allowed; choose debug, info, warning, error",
    ),
    "choice read as false": (
        camera("policy: no"),
        "2: cameras.a.policy: 'no' is not allowed; choose reject, pass, stop",
    ),
    # numbers and truth
    "quoted number": (
        group("mqtt: {port: '1883'}"),
        "4: mqtt.port: '1883' is not allowed; give a whole number without quotes, 1 to 65535",
    ),
    "number with unit": (
        camera("deadline_ms: 200ms"),
        "2: cameras.a.deadline_ms: '200ms' is not allowed; give a whole number, 10 to 600000 ms",
    ),
    "fraction of a frame": (
        group("batch: {max_batch: 8.0}"),
        "4: batch.max_batch: '8.0' is not allowed; give a whole number, 1 to 256 frames",
    ),
    "decimal comma": (
        camera("rate_hz: '2,5'"),
        "2: cameras.a.rate_hz: '2,5' is not allowed; give a number without quotes, 0.01 to 1000 Hz",
    ),
    "yes for a number": (
        group("batch: {max_batch: yes}"),
        "4: batch.max_batch: 'yes' is not allowed; give a whole number, 1 to 256 frames",
    ),
    "empty number": (
        group("mqtt: {port: }"),
        "4: mqtt.port: an empty value is not allowed; give a whole number, 1 to 65535",
    ),
    "not a number": (
        "line: l\n" + CAMERAS + "products: {cell: {bundle: cell, threshold: .nan}}\n",
        "3: products.cell.threshold: '.nan' is not allowed; give a number, 0 to 1000",
    ),
    "nan": (
        "line: l\n" + CAMERAS + "products: {cell: {bundle: cell, threshold: nan}}\n",
        "3: products.cell.threshold: nan is not allowed; give 0 to 1000",
    ),
    "infinity": (group("stop_timeout_s: inf"), "4: stop_timeout_s: inf is not allowed; give 0.5 to 600 s"),
    "infinity in YAML": (
        group("stop_timeout_s: .inf"),
        "4: stop_timeout_s: '.inf' is not allowed; give a number, 0.5 to 600 s",
    ),
    "too small": (group("batch: {max_batch: 0}"), "4: batch.max_batch: 0 is not allowed; give 1 to 256 frames"),
    "too large": (group("mqtt: {port: 65536}"), "4: mqtt.port: 65536 is not allowed; give 1 to 65535"),
    "negative": (
        group("batch: {max_wait_ms: -1}"),
        "4: batch.max_wait_ms: -1 is not allowed; give 0 to 10000 ms",
    ),
    "quoted truth": (
        group('mqtt: {tls: "true"}'),
        "4: mqtt.tls: 'true' is not allowed; give true or false, without quotes",
    ),
    "number for truth": (
        group("mqtt: {tls: 1}"),
        "4: mqtt.tls: '1' is not allowed; give true or false, without quotes",
    ),
    # groups and names
    "group without content": (group("batch:"), f"4: batch: an empty value {NO_GROUP}"),
    "value for a group": (group("mqtt: 127.0.0.1"), f"4: mqtt: '127.0.0.1' {NO_GROUP}"),
    "list of cameras": ("line: l\ncameras: [a]\n" + PRODUCTS, f"2: cameras: a list {NO_GROUP}"),
    "no camera": ("line: l\ncameras: {}\n" + PRODUCTS, "2: cameras: is missing; name at least one"),
    "camera name with a space": (
        "line: l\ncameras: {left one: {type: folder, product: cell, path: x}}\n" + PRODUCTS,
        "2: cameras.left one: is not a usable name; use 1 to 64 letters, digits, - and _",
    ),
    # cameras
    "type missing": (
        "line: l\ncameras: {a: {product: cell, path: x}}\n" + PRODUCTS,
        "2: cameras.a.type: is missing; add `type:`, one of folder, video, v4l2",
    ),
    "type unknown": (
        "line: l\ncameras: {a: {type: gige, product: cell}}\n" + PRODUCTS,
        "2: cameras.a.type: 'gige' is not known; choose one of folder, video, v4l2",
    ),
    "type is a list": (
        "line: l\ncameras: {a: {type: [folder], product: cell}}\n" + PRODUCTS,
        "2: cameras.a.type: a list is not known; choose one of folder, video, v4l2",
    ),
    "setting of another type": (
        camera("url: x.mp4"),
        (
            "2: cameras.a.url: unknown setting; known here: product, deadline_ms, policy, region, retry_max_s, "
            "path, mode, rate_hz, loop, trigger, "
            "max_file_mb, max_megapixels, bits, subfolders, settle_ms, rewrite"
        ),
    ),
    "path missing": (
        "line: l\ncameras: {a: {type: folder, product: cell}}\n" + PRODUCTS,
        "2: cameras.a.path: is missing; add `path:`. The folder.",
    ),
    "home of nobody": (
        "line: l\ncameras: {a: {type: folder, product: cell, path: ~nobody-here/x}}\n" + PRODUCTS,
        "2: cameras.a.path: '~nobody-here/x' is not allowed; write the path out",
    ),
    "product not defined": (
        "line: l\ncameras: {a: {type: folder, product: cel, path: x}}\n" + PRODUCTS,
        "2: cameras.a.product: 'cel' is not a product; known products: cell",
    ),
    "three numbers for a region": (
        camera("region: [0, 0, 5]"),
        f"2: cameras.a.region: [0, 0, 5] is not allowed; {WHOLE}",
    ),
    "one number for a region": (camera("region: 5"), f"2: cameras.a.region: '5' is not allowed; {WHOLE}"),
    "fractions in a region": (
        camera("region: [0, 0, 0.5, 1]"),
        f"2: cameras.a.region: [0, 0, 0.5, 1] is not allowed; {WHOLE}",
    ),
    "hexadecimal region": (
        camera("region: [0, 0, 0x10, 1]"),
        f"2: cameras.a.region: [0, 0, 0x10, 1] is not allowed; {WHOLE}",
    ),
    "negative region": (
        camera("region: [-1, 0, 5, 5]"),
        "2: cameras.a.region: [-1, 0, 5, 5] is not allowed; no number may be negative",
    ),
    "region without area": (
        camera("region: [0, 0, 0, 5]"),
        "2: cameras.a.region: has no area; give [x, y, width, height] with width and height over 0",
    ),
    "no time to inspect": (
        camera("deadline_ms: 20"),
        "2: cameras.a.deadline_ms: 20 leaves no time to inspect; give more than mqtt.publish_margin_ms (20)",
    ),
    "no time left by the margin": (
        group("mqtt: {publish_margin_ms: 2000}"),
        "2: cameras.a.deadline_ms: 1000 leaves no time to inspect; give more than mqtt.publish_margin_ms (2000)",
    ),
    "rate of a watched folder": (
        camera("mode: watch, rate_hz: 5"),
        "2: cameras.a.rate_hz: has no effect with mode watch; remove it, or use mode: replay",
    ),
    "watching of a replay": (
        camera("settle_ms: 5"),
        "2: cameras.a.settle_ms: has no effect on a replay; remove it, or use mode: watch",
    ),
    "settling beyond the deadline": (
        camera("mode: watch, settle_ms: 980"),
        "2: cameras.a.settle_ms: 980 leaves no time to inspect; with mqtt.publish_margin_ms it must be less than the "
        "deadline of 1000 ms",
    ),
    "loop of a watched folder": (
        camera("mode: watch, loop: true"),
        "2: cameras.a.loop: has no effect with mode watch; remove it, or use mode: replay",
    ),
    "password in the address": (video("rtsp://admin:hunter2@192.0.2.7/s"), f"2: cameras.a.url: {HAS_LOGIN}"),
    "user in the address": (video("rtsp://admin@192.0.2.7/s"), f"2: cameras.a.url: {HAS_LOGIN}"),
    "slash in the password": (video("rtsp://admin:hun/ter2@192.0.2.7/s"), f"2: cameras.a.url: {HAS_LOGIN}"),
    "loop of a stream": (
        video("rtsp://192.0.2.7/s", ", loop: true"),
        "2: cameras.a.loop: has no effect on a stream; remove it",
    ),
    "user of a file": (video("a.mp4", ", username: u"), "2: cameras.a.username: has no effect on a file; remove it"),
    "time stamps of a file": (
        video("a.mp4", ", timestamps: arrival"),
        "2: cameras.a.timestamps: has no effect on a file; remove it",
    ),
    "transport of a stream over HTTP": (
        video("http://192.0.2.7/s", ", transport: udp"),
        "2: cameras.a.transport: has an effect on rtsp:// and rtsps:// alone; remove it",
    ),
    "transport of a file": (
        video("a.mp4", ", transport: udp"),
        "2: cameras.a.transport: has no effect on a file; remove it",
    ),
    "password without user": (
        video("rtsp://192.0.2.7/s", ", password_file: secret"),
        "2: cameras.a.password_file: has no effect without a user; add `username:`",
    ),
    "pixel format": (
        camera("pixel_format: mjpeg", "type: v4l2, product: cell, device: /dev/video0"),
        "2: cameras.a.pixel_format: 'mjpeg' is not allowed; give four capital letters or digits such as MJPG",
    ),
    "trigger": (camera("trigger: names"), "2: cameras.a.trigger: 'names' is not allowed; choose count, name"),
    "trigger of a camera that has no files": (
        video("rtsp://192.0.2.7/s", ", trigger: name"),
        "2: cameras.a.trigger: unknown setting; known here: product, deadline_ms, policy, region, retry_max_s, url, "
        "transport, timestamps, username, password_file, open_timeout_s, read_timeout_s, frozen_after, loop",
    ),
    "camera with a reserved name": (
        "line: l\ncameras: {golden: {type: folder, product: cell, path: x}}\n" + PRODUCTS,
        "2: cameras.golden: is a reserved name; choose another than actuator, answer, check, command, golden, status",
    ),
    # stations
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
    # products, engine, broker, evidence
    "no such bundle": (
        "line: l\n" + CAMERAS + "products: {cell: {bundle: bundles/cell}}\n",
        (
            "3: products.cell.bundle: bundles/cell is not a bundle; make one: "
            "revdist train --good DIR --product cell --output bundles/cell"
        ),
    ),
    "threshold that rejects everything": (
        "line: l\n" + CAMERAS + "products: {cell: {bundle: cell, threshold: 0}}\n",
        "3: products.cell.threshold: 0 rejects every part; give more than 0, or remove it",
    ),
    "no such teacher": (
        group("engine: {teacher_weights: w.pth}"),
        f"4: engine.teacher_weights: w.pth {NOT_A_FILE}",
    ),
    "unknown device": (
        group("engine: {device: gpu}"),
        "4: engine.device: 'gpu' is not allowed; choose auto, cpu, cuda",
    ),
    "unknown runtime": (
        group("engine: {runtime: onnx}"),
        "4: engine.runtime: 'onnx' is not allowed; choose torch, openvino",
    ),
    "broker as an address": (
        group("mqtt: {host: 'mqtt://plant:1883'}"),
        "4: mqtt.host: 'mqtt://plant:1883' is not allowed; a name or address alone, without mqtt:// and port",
    ),
    "unknown protocol": (
        group("mqtt: {protocol: 3.1}"),
        "4: mqtt.protocol: '3.1' is not allowed; choose auto, 5, 3.1.1",
    ),
    "password file missing": (
        group("mqtt: {username: u, password_file: nothing}"),
        f"4: mqtt.password_file: nothing {NOT_A_FILE}",
    ),
    "operator's password without operator": (
        group("mqtt: {operator_password_file: nothing}"),
        "4: mqtt.operator_password_file: has no effect without a user; add `operator_username:`",
    ),
    "certificates without TLS": (
        group("mqtt: {tls_ca: ca.pem}"),
        "4: mqtt.tls_ca: has no effect without TLS; add `tls: true`",
    ),
    "certificate without key": (
        group("mqtt: {tls: true, tls_cert: ca.pem}"),
        "4: mqtt.tls_cert: needs tls_key; give both, or neither; add `tls_key:`",
    ),
    "key without certificate": (
        group("mqtt: {tls: true, tls_key: ca.pem}"),
        "4: mqtt.tls_key: needs tls_cert; give both, or neither; add `tls_cert:`",
    ),
    "folder of evidence while off": (
        group("evidence: {enabled: false, directory: e}"),
        "4: evidence.directory: has no effect while evidence is off; remove it, or set evidence.enabled: true",
    ),
    "quota of evidence while off": (
        group("evidence: {enabled: false, quota_mb: 5}"),
        "4: evidence.quota_mb: has no effect while evidence is off; remove it, or set evidence.enabled: true",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_with_its_line_and_what_to_do(directory: Path, name: str) -> None:
    text, message = WRONG[name]
    assert complaints(directory, text) == [f"line.yaml:{message}"]


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(directory: Path) -> None:
    text = (
        "log_levl: info\n"
        "cameras:\n"
        "  left:\n"
        "    type: folder\n"
        "    product: cel\n"
        "    path: pictures\n"
        "    mode: watch\n"
        "    rate_hz: 5\n"
        "  right:\n"
        "    type: video\n"
        "    product: cell\n"
        "    url: rtsp://admin:hunter2@192.0.2.7/s\n"
        "    frozen_after: '9'\n"
        "products:\n"
        "  cell:\n"
        "    bundle: nothing\n"
        "mqtt:\n"
        "  port: 0\n"
        "  tls_ca: ca.pem\n"
        "evidence:\n"
        "  enabled: false\n"
        "  directory: e\n"
    )
    reported = complaints(directory, text)
    assert [line.split(": ")[1] for line in reported] == [
        "line",
        "log_levl",
        "cameras.left.product",
        "cameras.left.rate_hz",
        "cameras.right.frozen_after",
        "products.cell.bundle",
        "mqtt.port",
        "evidence.directory",
    ]
    lines = [int(line.split(":")[1]) for line in reported]
    assert lines == sorted(lines) == [1, 1, 5, 8, 13, 16, 18, 22]


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


def test_triggers_are_counted_if_not_said_otherwise(directory: Path) -> None:
    counted, named = (load(directory, text).cameras["a"] for text in (GOOD, camera("trigger: name")))
    assert isinstance(counted, FolderCamera)
    assert isinstance(named, FolderCamera)
    assert (counted.trigger, named.trigger) == (Numbering.COUNT, Numbering.NAME)


@pytest.mark.parametrize(
    ("text", "commands", "counts"),
    [
        ("{}", False, True),
        ("{username: line1}", True, True),
        ("{tls: true, tls_cert: line.yaml, tls_key: line.yaml}", True, True),
        ("{tls: true, tls_ca: line.yaml}", False, True),
        ("{commands: auto}", False, True),
        ("{commands: true}", False, True),
        ("{commands: true, username: line1}", True, True),
        ("{commands: anonymous}", True, True),
        ("{commands: Anonymous, username: line1}", True, True),
        ("{commands: off}", False, False),
        ("{commands: false, username: line1}", False, False),
    ],
)
def test_nobody_gives_commands_through_a_broker_that_lets_everybody_unless_the_settings_say_so(
    directory: Path, text: str, commands: bool, counts: bool
) -> None:
    mqtt = load(directory, group(f"mqtt: {text}")).mqtt
    assert (mqtt.hears_commands, mqtt.hears_counts) == (commands, counts)


def test_a_password_is_never_repeated_in_a_message(directory: Path) -> None:
    for text in (
        video("rtsp://admin:hunter2@192.0.2.7/s", ", loop: 1"),
        video("rtsp://admin:hunter2@192.0.2.7/s"),
        video("rtsp://admin:hun/ter2@192.0.2.7/s"),
        group("mqtt: {password: hunter2}"),
    ):
        assert "ter2" not in "\n".join(complaints(directory, text))


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


def test_a_minimal_file_gives_the_documented_defaults(directory: Path) -> None:
    settings = load(directory, GOOD)
    assert settings.line == "l"
    assert settings.cameras == {"a": FolderCamera(product="cell", path=directory / "pictures")}
    camera = settings.cameras["a"]
    assert isinstance(camera, FolderCamera)
    assert (camera.deadline_ms, camera.policy, camera.region, camera.retry_max_s) == (1000, Policy.REJECT, None, 30)
    assert (camera.mode, camera.rate_hz, camera.loop) == (FolderMode.REPLAY, None, False)
    assert settings.products["cell"].bundle == directory / "cell"
    assert settings.products["cell"].threshold is None
    batch, engine, mqtt = settings.batch, settings.engine, settings.mqtt
    assert (batch.max_batch, batch.max_wait_ms, batch.queue_per_camera) == (8, 20, 32)
    assert (engine.device, engine.threads, engine.teacher_weights, engine.hang_s) == (Device.AUTO, 0, None, 30)
    assert engine.runtime == Runtime.TORCH
    assert (mqtt.host, mqtt.port, mqtt.protocol, mqtt.tls) == ("127.0.0.1", 1883, Protocol.AUTO, False)
    assert (mqtt.keepalive_s, mqtt.heartbeat_s, mqtt.retry_max_s, mqtt.publish_margin_ms) == (5, 1, 10, 20)
    assert (mqtt.client_id, mqtt.username, mqtt.password_file) == (None, None, None)
    assert (mqtt.operator_username, mqtt.operator_password_file) == (None, None)
    assert (settings.metrics.host, settings.metrics.port) == ("127.0.0.1", 9108)
    assert (settings.evidence.enabled, settings.evidence.directory, settings.evidence.quota_mb) == (True, None, 2048)
    assert (settings.journal.keep_days, settings.journal.max_mb) == (14, 1024)
    assert (settings.state_directory, settings.stop_timeout_s, settings.log_level) == (None, 10, LogLevel.INFO)


def test_every_kind_of_value_is_read(directory: Path) -> None:
    text = (
        "line: 0815  # text, not a number\n"
        "cameras:\n"
        "  stream: {type: video, product: cell, url: 'rtsp://192.0.2.7:554/s', username: u, password_file: secret}\n"
        "  clip: {type: video, product: cell, url: clips/a.mp4, loop: on, region: [1, 2, 30, 40], policy: stop}\n"
        "  local: {type: video, product: cell, url: 'file:///clips/a.mp4', loop: true}\n"
        "  usb: {type: v4l2, product: cell, device: /dev/video0, width: 640, rate_hz: 12.5, pixel_format: MJPG}\n"
        "products: {cell: {bundle: cell, threshold: 1e-1}}\n"
        "mqtt: {host: broker.plant, protocol: 5, tls: yes, tls_ca: ca.pem, tls_cert: ca.pem, tls_key: ca.pem}\n"
        "metrics: {host: '::', port: 9_000}\n"
        "evidence: {directory: /srv/evidence}\n"
        "state_directory: ../state\n"
        "stop_timeout_s: 2.5\n"
    )
    settings = load(directory, text)
    assert settings.line == "0815"
    stream, clip, local, usb = settings.cameras.values()
    assert isinstance(stream, VideoCamera)
    assert (stream.url, stream.username) == ("rtsp://192.0.2.7:554/s", "u")
    assert stream.password_file == directory / "secret"
    assert isinstance(clip, VideoCamera)
    assert clip.url == str(directory / "clips" / "a.mp4"), "a path is relative to the settings file"
    assert (clip.loop, clip.region, clip.policy) == (True, (1, 2, 30, 40), Policy.STOP)
    assert isinstance(local, VideoCamera)
    assert local.loop
    assert isinstance(usb, V4l2Camera)
    assert (usb.device, usb.width, usb.height, usb.rate_hz) == (Path("/dev/video0"), 640, None, 12.5)
    assert settings.products["cell"].threshold == 0.1
    assert settings.mqtt.protocol is Protocol.V5
    assert settings.mqtt.tls
    assert (settings.metrics.host, settings.metrics.port) == ("::", 9000)
    assert settings.evidence.directory == Path("/srv/evidence")
    assert settings.state_directory == directory / "../state"
    assert settings.stop_timeout_s == 2.5


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
        "line.yaml:2: cameras.a.type: is missing; add `type:`, one of folder, video, v4l2"
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


def test_somebody_who_talks_to_a_running_line_need_not_read_what_the_service_must(directory: Path) -> None:
    (directory / "line.yaml").write_text(
        group("mqtt: {username: u, password_file: /run/absent, operator_username: anna, operator_password_file: mine}")
    )
    with pytest.raises(SettingsError, match=r"mqtt\.password_file"):
        settings_file.load(directory / "line.yaml")
    mqtt = settings_file.load_for_operator(directory / "line.yaml").mqtt
    assert (mqtt.username, mqtt.password_file) == ("anna", directory / "mine")
    mqtt = settings_file.load_for_operator(directory / "line.yaml", "bert").mqtt
    assert (mqtt.username, mqtt.password_file) == ("bert", None), "not with the password of another"
    mqtt = settings_file.load_for_operator(directory / "line.yaml", "bert", Path("his")).mqtt
    assert (mqtt.username, mqtt.password_file) == ("bert", Path("his"))
    mqtt = settings_file.load_for_operator(directory / "line.yaml", None, Path("new")).mqtt
    assert (mqtt.username, mqtt.password_file) == ("anna", Path("new"))
    tls = "tls: true, tls_cert: /run/absent.crt, tls_key: /run/absent.key"
    (directory / "line.yaml").write_text(group(f"mqtt: {{operator_username: anna, {tls}}}"))
    mqtt = settings_file.load_for_operator(directory / "line.yaml").mqtt
    assert (mqtt.tls, mqtt.tls_cert, mqtt.tls_key) == (True, None, None), "a key that only the service may read"
    (directory / "line.yaml").write_text(group("mqtt: {username: u, port: x}"))
    with pytest.raises(SettingsError, match=r"mqtt\.port"):
        settings_file.load_for_operator(directory / "line.yaml")


def test_without_a_user_for_operators_the_service_s_own_is_used(directory: Path) -> None:
    (directory / "line.yaml").write_text(group("mqtt: {username: u}"))
    assert settings_file.load_for_operator(directory / "line.yaml").mqtt.username == "u"
    with pytest.raises(RejectdError, match="--password-file needs a user"):
        settings_file.load_for_operator(directory / "line.yaml", None, Path("new"))
