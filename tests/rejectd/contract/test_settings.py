"""rejectd.contract.settings: what a person may write, what it means, and what is said about a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_texts import CAMERAS, GOOD, NO_GROUP, PRODUCTS, REST, camera, complaints, group, load, video

from rejectd.contract.messages import Policy
from rejectd.contract.settings import (
    Device,
    FolderCamera,
    FolderMode,
    LogLevel,
    Protocol,
    Runtime,
    V4l2Camera,
    VideoCamera,
)

NOT_TEXT = "YAML does not read this as text; put it in quotes"
NOT_A_FILE = "is not a file; give the path of a file, relative to this settings file"
KNOWN = (
    "known here: line, cameras, products, stations, batch, engine, judging, drift, mqtt, metrics, otel, evidence, "
    "journal, page, memory_mb, state_directory, stop_timeout_s, log_level"
)


WRONG_VALUES = {
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
        "4: engine.runtime: 'onnx' is not allowed; choose auto, torch, openvino",
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


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_mistake_is_named_with_its_line_and_what_to_do(directory: Path, name: str) -> None:
    text, message = WRONG_VALUES[name]
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


def test_a_password_is_never_repeated_in_a_message(directory: Path) -> None:
    for text in (
        video("rtsp://admin:hunter2@192.0.2.7/s", ", loop: 1"),
        video("rtsp://admin:hunter2@192.0.2.7/s"),
        video("rtsp://admin:hun/ter2@192.0.2.7/s"),
        group("mqtt: {password: hunter2}"),
    ):
        assert "ter2" not in "\n".join(complaints(directory, text))


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
    assert engine.runtime == Runtime.AUTO
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
