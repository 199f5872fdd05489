"""rejectd.contract.camera_settings: what may be written about a camera, and what is said about a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_texts import GOOD, PRODUCTS, camera, complaints, group, load, video

from rejectd.contract.settings import (
    FolderCamera,
    Numbering,
)

HAS_LOGIN = "holds a user or password; use `username` and `password_file`, so that the password stays out of logs"
WHOLE = "give 4 whole numbers, [x, y, width, height]"
WRONG_CAMERAS = {
    "type missing": (
        "line: l\ncameras: {a: {product: cell, path: x}}\n" + PRODUCTS,
        "2: cameras.a.type: is missing; add `type:`, one of folder, video, v4l2, aravis, pylon, gentl, region",
    ),
    "type unknown": (
        "line: l\ncameras: {a: {type: gige, product: cell}}\n" + PRODUCTS,
        "2: cameras.a.type: 'gige' is not known; choose one of folder, video, v4l2, aravis, pylon, gentl, region",
    ),
    "type is a list": (
        "line: l\ncameras: {a: {type: [folder], product: cell}}\n" + PRODUCTS,
        "2: cameras.a.type: a list is not known; choose one of folder, video, v4l2, aravis, pylon, gentl, region",
    ),
    "setting of another type": (
        camera("url: x.mp4"),
        (
            "2: cameras.a.url: unknown setting; known here: product, deadline_ms, policy, region, image_health, "
            "retry_max_s, "
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
        "2: cameras.a.trigger: unknown setting; known here: product, deadline_ms, policy, region, image_health, "
        "retry_max_s, url, "
        "transport, timestamps, username, password_file, open_timeout_s, read_timeout_s, frozen_after, loop",
    ),
    "camera with a reserved name": (
        "line: l\ncameras: {golden: {type: folder, product: cell, path: x}}\n" + PRODUCTS,
        "2: cameras.golden: is a reserved name; choose another than actuator, answer, check, command, golden, status",
    ),
}


@pytest.mark.parametrize("name", WRONG_CAMERAS)
def test_a_mistake_about_a_camera_is_named_with_its_line_and_what_to_do(directory: Path, name: str) -> None:
    text, message = WRONG_CAMERAS[name]
    assert complaints(directory, text) == [f"line.yaml:{message}"]


def test_triggers_are_counted_if_not_said_otherwise(directory: Path) -> None:
    counted, named = (load(directory, text).cameras["a"] for text in (GOOD, camera("trigger: name")))
    assert isinstance(counted, FolderCamera)
    assert isinstance(named, FolderCamera)
    assert (counted.trigger, named.trigger) == (Numbering.COUNT, Numbering.NAME)
