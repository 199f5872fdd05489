"""rejectd.cli.cameras and rejectd.cameras.discovery: what answers is listed with how to put it into the settings."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from rejectd.cameras import CameraError, v4l2_listing
from rejectd.cameras.discovery import Reachable, discover
from rejectd.cli import cameras

GIGE = Reachable(
    kind="aravis",
    name="SN1",
    model="Acme One",
    serial="SN1",
    address="192.0.2.7",
    settings={"camera": "SN1"},
    details=lambda: ["Gain: float, 0 to 24"],
)


def _kernel(device: int, request: int, answer: bytearray) -> None:
    """A device of two formats, as the kernel describes it; it has no third format and no second size."""
    if request == v4l2_listing._QUERYCAP:
        struct.pack_into("16s32s32s3I", answer, 0, b"uvcvideo", b"Acme Cam", b"usb-1", 0, 0x80000001, 0x1)
        return
    index, code = struct.unpack_from("2I", answer)
    if request == v4l2_listing._ENUM_FMT:
        if index > 1:
            raise OSError
        name = [b"Motion-JPEG", b"YUYV 4:2:2"][index]
        struct.pack_into("3I32sI", answer, 0, index, 1, 0, name, int.from_bytes([b"MJPG", b"YUYV"][index], "little"))
        return
    stepwise = code == int.from_bytes(b"YUYV", "little")
    if index > 0:
        raise OSError
    sizes = [32, 640, 16, 32, 480, 16] if stepwise else [1920, 1080, 0, 0, 0, 0]
    struct.pack_into("9I", answer, 0, index, code, 3 if stepwise else 1, *sizes)


def test_a_video4linux_device_is_listed_with_its_formats_and_sizes(tmp_path: Path) -> None:
    for name in ("video10", "video2", "video3"):
        (tmp_path / "class" / name).mkdir(parents=True)
    (tmp_path / "video2").touch()
    (tmp_path / "video10").touch()
    listed = list(v4l2_listing.discover(tmp_path / "class", tmp_path, _kernel))
    assert [camera.name for camera in listed] == [str(tmp_path / name) for name in ("video2", "video10")]
    camera = listed[0]
    assert (camera.model, camera.address, camera.size) == ("Acme Cam", "usb-1", (1920, 1080))
    assert camera.formats == ("MJPG", "YUYV")
    assert list(camera.details()) == ["MJPG (Motion-JPEG): 1920 x 1080", "YUYV (YUYV 4:2:2): 640 x 480"]
    assert camera.shown == f"type: v4l2, device: {tmp_path / 'video2'}"


def test_a_device_that_captures_nothing_or_does_not_answer_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "class" / "video0").mkdir(parents=True)
    (tmp_path / "video0").touch()

    def metadata(device: int, request: int, answer: bytearray) -> None:
        struct.pack_into("16s32s32s3I", answer, 0, b"uvcvideo", b"Acme Cam", b"usb-1", 0, 0x80000001, 0x00800000)

    def gone(device: int, request: int, answer: bytearray) -> None:
        raise OSError

    for answers in (metadata, gone):
        assert list(v4l2_listing.discover(tmp_path / "class", tmp_path, answers)) == []
    assert list(v4l2_listing.discover(tmp_path / "none", tmp_path, _kernel)) == []


def test_a_kind_that_cannot_be_looked_for_hides_no_other() -> None:
    def broken() -> list[Reachable]:
        raise CameraError("no library", hint="install it")

    found, reasons = discover({"one": broken, "two": lambda: [GIGE]})
    assert (found, reasons) == ([GIGE], {"one": "no library; install it"})
    told = list(cameras.lines("", search=lambda: (found, reasons)))
    assert told == [
        "SN1: Acme One, at 192.0.2.7",
        "  camera: {type: aravis, camera: SN1, product: PRODUCT}",
        "type one was not looked for: no library; install it",
    ]


def test_a_camera_is_named_by_serial_number_or_address_and_shows_what_can_be_set() -> None:
    for name in ("SN1", "192.0.2.7"):
        assert list(cameras.lines(name, search=lambda: ([GIGE], {})))[-1] == "  Gain: float, 0 to 24"
    with pytest.raises(CameraError, match="camera SN2 does not answer; those that do: SN1"):
        list(cameras.lines("SN2", search=lambda: ([GIGE], {})))


def test_programs_get_json() -> None:
    listed = json.loads(cameras.to_json("", search=lambda: ([GIGE], {"v4l2": "why"})))
    assert listed["not_searched"] == {"v4l2": "why"}
    assert listed["cameras"][0]["settings"] == {"type": "aravis", "camera": "SN1"}
    assert "details" not in listed["cameras"][0]
    one = json.loads(cameras.to_json("SN1", search=lambda: ([GIGE], {})))
    assert one["cameras"][0]["details"] == ["Gain: float, 0 to 24"]


def test_without_a_camera_the_list_says_what_to_do() -> None:
    assert "write their address" in next(cameras.lines("", search=lambda: ([], {})))
