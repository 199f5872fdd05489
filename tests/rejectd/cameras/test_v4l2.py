"""Video4Linux. No such device is here: a fake stands for cv2.VideoCapture, and for nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from rejectd.cameras import CameraError, driver
from rejectd.cameras.v4l2 import V4l2
from rejectd.messages import CameraState
from rejectd.settings import V4l2Camera

# a character device that everybody may open, so that the driver's own look at the device is the real one
DEVICE = Path("/dev/null")


class FakeCapture:
    """A device of fixed abilities that delivers BGR pictures, and then what is left."""

    def __init__(self, delivers: list, opened: bool = True, **gives: float) -> None:
        self.delivers = delivers
        self.opened = opened
        self.gives = gives
        self.asked: dict[int, float] = {}
        self.released = 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        names = {
            cv2.CAP_PROP_FRAME_WIDTH: "width",
            cv2.CAP_PROP_FRAME_HEIGHT: "height",
            cv2.CAP_PROP_FPS: "rate",
            cv2.CAP_PROP_FOURCC: "fourcc",
        }
        return self.gives.get(names[prop], self.asked.get(prop, 0))

    def read(self) -> tuple[bool, object]:
        if not self.delivers:
            return False, None
        step = self.delivers.pop(0)
        if isinstance(step, Exception):
            raise step
        return True, step

    def release(self) -> None:
        self.released += 1


def bgr(value: int) -> np.ndarray:
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[..., 2] = 250  # red
    pixels[..., 1] = value
    return pixels


def camera(**settings: object) -> V4l2Camera:
    return V4l2Camera(product="cell", **{"device": DEVICE, "retry_max_s": 0.5, **settings})


def test_a_missing_device_is_an_error_that_says_what_to_do():
    with pytest.raises(CameraError) as error:
        driver(camera(device=Path("/dev/video9"))).open()
    assert str(error.value) == (
        "/dev/video9: No such file or directory; is the camera plugged in? See `ls /dev/video*`"
    )


def test_a_missing_device_is_down(capture):
    taken = capture(camera(device=Path("/dev/video9")))
    taken.wait_for_state(CameraState.DOWN)
    assert "No such file" in taken.states[0][1]


def test_a_file_in_place_of_the_device_is_an_error(tmp_path):
    (tmp_path / "video0").touch()
    with pytest.raises(CameraError, match="is not a device"):
        driver(camera(device=tmp_path / "video0")).open()


def test_a_device_that_is_no_camera_is_refused_by_opencv_itself():
    with pytest.raises(CameraError, match="cannot be opened; another program may hold it"):
        driver(camera()).open()


def test_pictures_are_rgb_and_the_device_is_asked_for_the_settings():
    fake = FakeCapture([bgr(1)])
    opened = V4l2(camera(width=640, height=480, rate_hz=30, pixel_format="MJPG"), lambda path: fake)
    opened.open()
    pixels = opened.read(0.2).load(0)
    assert pixels[0, 0].tolist() == [250, 1, 0]
    assert pixels.flags.c_contiguous
    assert fake.asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter_fourcc(*"MJPG")
    assert fake.asked[cv2.CAP_PROP_FRAME_WIDTH] == 640
    assert fake.asked[cv2.CAP_PROP_CONVERT_RGB] == 1
    assert next(iter(fake.asked)) == cv2.CAP_PROP_FOURCC
    opened.close()
    opened.close()
    assert fake.released == 1


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        ({"width": 320.0}, "width 320 instead of 640"),
        ({"height": 240.0}, "height 240 instead of 480"),
        ({"rate": 15.0}, "rate_hz 15 instead of 30"),
        ({"fourcc": float(cv2.VideoWriter_fourcc(*"YUYV"))}, "pixel_format 'YUYV' instead of 'MJPG'"),
    ],
)
def test_a_device_that_gives_something_else_is_an_error_that_says_what(gives, said):
    fake = FakeCapture([], **gives)
    opened = V4l2(camera(width=640, height=480, rate_hz=30, pixel_format="MJPG"), lambda path: fake)
    with pytest.raises(CameraError, match=said):
        opened.open()


def test_a_rate_of_29_97_is_30():
    V4l2(camera(rate_hz=30), lambda path: FakeCapture([], rate=29.97)).open()


def test_a_device_that_goes_away_is_down_and_comes_back(capture):
    fakes = [FakeCapture([bgr(1), bgr(2)]), FakeCapture([bgr(3)], opened=False), FakeCapture([bgr(4), bgr(5)])]
    taken = capture(camera(), lambda settings: V4l2(settings, lambda path: fakes.pop(0)))
    taken.wait(lambda taken: len(taken.good) == 4)
    assert [state for state, _ in taken.states][:3] == [CameraState.UP, CameraState.DOWN, CameraState.UP]
    assert "brought no picture" in taken.states[1][1]
    assert [picture.pixels[0, 0].tolist() for picture in taken.good] == [[250, value, 0] for value in (1, 2, 4, 5)]


@pytest.mark.parametrize("array", [np.zeros((0, 1920), np.uint8), np.zeros((24, 32), np.uint8)])
def test_a_strange_array_is_a_faulty_picture(array, capture):
    fake = FakeCapture([array, bgr(1)])
    taken = capture(camera(), lambda settings: V4l2(settings, lambda path: fake))
    taken.wait(lambda taken: len(taken.pictures) == 2)
    assert "the camera delivered an" in taken.pictures[0].fault
    assert not taken.pictures[1].fault


def test_an_error_inside_opencv_is_a_lost_camera(capture):
    fake = FakeCapture([bgr(1), cv2.error("select() failed")])
    taken = capture(camera(), lambda settings: V4l2(settings, lambda path: fake))
    taken.wait_for_state(CameraState.DOWN)


def test_opencv_waits_as_long_as_the_settings_say(monkeypatch):
    monkeypatch.delenv("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", raising=False)
    V4l2(camera(read_timeout_s=2.5), lambda path: FakeCapture([])).open()
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] == "3"
