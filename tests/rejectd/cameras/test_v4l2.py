"""Video4Linux. No such device is here: a fake stands for cv2.VideoCapture, or for the device below OpenCV."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from rejectd.cameras import CameraError, driver
from rejectd.cameras.v4l2 import V4l2
from rejectd.contract.messages import CameraState
from rejectd.contract.settings import V4l2Camera

# a character device that everybody may open, so that the driver's own look at the device is the real one
DEVICE = Path("/dev/null")


class FakeCapture:
    """A device of fixed abilities that delivers BGR pictures, and then what is left.

    `clock` stamps them, as a driver does; a driver that does not stamp leaves 0.
    """

    def __init__(
        self, delivers: list, opened: bool = True, clock: Callable[[], float] = lambda: 0.0, **gives: float
    ) -> None:
        self.delivers = delivers
        self.clock = clock
        self.stamp_s = 0.0
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
        if prop == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.stamp_s
        names = {
            cv2.CAP_PROP_FRAME_WIDTH: "width",
            cv2.CAP_PROP_FRAME_HEIGHT: "height",
            cv2.CAP_PROP_FPS: "rate",
            cv2.CAP_PROP_FOURCC: "fourcc",
        }
        return self.gives.get(names[prop], self.asked.get(prop, 0))

    def grab(self) -> bool:
        if self.delivers and isinstance(self.delivers[0], Exception):
            raise self.delivers.pop(0)
        self.stamp_s = self.clock()
        return bool(self.delivers)

    def retrieve(self) -> tuple[bool, object]:
        return True, self.delivers.pop(0)

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


def test_a_picture_that_waited_in_the_drivers_queue_keeps_its_true_time():
    taken_s = 0.0
    fake = FakeCapture([bgr(1)], clock=lambda: taken_s)
    opened = V4l2(camera(), lambda path: fake)
    opened.open()
    taken_s = time.monotonic()
    threading.Event().wait(0.7)  # nobody reads; the picture lies in the driver's queue
    picture = opened.read(0.2)
    opened.close()
    assert picture.captured_ns / 1e9 == pytest.approx(taken_s, abs=0.001)
    assert time.time_ns() - picture.captured_unix_ns == pytest.approx(
        time.monotonic_ns() - picture.captured_ns, abs=1e6
    )


@pytest.mark.parametrize(
    "clock",
    [lambda: 0.0, time.time, lambda: time.monotonic() + 3600, lambda: time.monotonic() - 3600],
    ids=["none", "unix", "ahead", "before the device was opened"],
)
def test_a_stamp_of_another_clock_is_not_believed(clock):
    opened = V4l2(camera(), lambda path: FakeCapture([bgr(1)], clock=clock))
    opened.open()
    picture = opened.read(0.2)
    opened.close()
    assert time.monotonic_ns() - picture.captured_ns < 0.2e9
    assert not picture.fault


STOPPED = """
import sys, time
from pathlib import Path
import numpy as np
from rejectd.cameras.v4l2 import V4l2
from rejectd.contract.settings import V4l2Camera

class Queue:
    # a driver that does not stamp; its queue is a pipe, one byte for each picture
    def isOpened(self): return True
    def set(self, prop, value): return True
    def get(self, prop): return 0.0
    def grab(self): return bool(sys.stdin.buffer.raw.read(1))
    def retrieve(self): return True, np.zeros((24, 32, 3), np.uint8)
    def release(self): pass

camera = V4l2(V4l2Camera(product="cell", device=Path("/dev/null")), lambda path: Queue())
camera.open()
print("ready", flush=True)
while True:
    picture = camera.read(0.2)
    print(time.monotonic_ns() - picture.captured_ns, picture.fault, flush=True)
"""


def test_what_queued_in_a_driver_without_stamps_while_the_process_was_stopped_is_stale():
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        def exposes(count: int) -> list[str]:
            process.stdin.write(b"." * count)
            process.stdin.flush()
            return [process.stdout.readline().decode() for _ in range(count)] if not stopped else []

        stopped = False
        for _ in range(5):
            threading.Event().wait(0.05)
            fresh = exposes(1)
        assert int(fresh[0].split()[0]) < 0.3e9
        os.kill(process.pid, signal.SIGSTOP)
        stopped = True
        exposes(4)
        threading.Event().wait(1.5)
        os.kill(process.pid, signal.SIGCONT)
        stale = [process.stdout.readline().decode().partition(" ") for _ in range(4)]
        assert [fault.startswith("stale") for _, _, fault in stale] == [True] * 4
        assert min(int(age_ns) for age_ns, _, _ in stale) > 1.4e9
        threading.Event().wait(0.05)
        stopped = False
        assert exposes(1)[0].endswith(" \n")
        process.kill()


QUEUED = """
import time
from pathlib import Path
from rejectd.cameras.v4l2 import V4l2
from rejectd.contract.settings import V4l2Camera

camera = V4l2(V4l2Camera(product="cell", device=Path("/dev/zero")))
camera.open()
while True:
    exposure = camera.read(0.2)
    number = 0 if exposure.fault else exposure.load(0)[0, 0, 0]
    print(exposure.captured_ns, time.monotonic_ns() - exposure.captured_ns, number, exposure.fault, flush=True)
"""


@pytest.mark.parametrize("stamped", [True, False])
def test_what_waited_in_a_devices_queue_while_the_process_was_stopped_has_its_true_time(stamped, v4l2_device):
    """OpenCV itself, on a device that is simulated below it: 20 pictures a second, four buffers."""
    environment = {**os.environ, **v4l2_device, **({} if stamped else {"V4L2_UNSTAMPED": "1"})}
    command = [sys.executable, "-c", QUEUED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None

        def pictures(count: int) -> list[tuple[int, int, int, str]]:
            lines = [process.stdout.readline().split(" ", 3) for _ in range(count)]
            return [(int(captured), int(age), int(number), fault.strip()) for captured, age, number, fault in lines]

        before = pictures(10)
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(2.0)
        process.send_signal(signal.SIGCONT)
        after = pictures(20)
        process.kill()
    old = [picture for picture in after if picture[1] > 1.5e9]
    assert len(old) == 4
    assert [bool(fault) for _, _, _, fault in old] == [not stamped] * 4
    assert after[-1][1] < 0.2e9
    if stamped:  # each picture was taken 50 ms after the one with the number before
        first = before[0]
        for captured_ns, _, number, fault in before + after:
            assert not fault
            assert captured_ns - first[0] == pytest.approx(5e7 * (number - first[2]), abs=1e6)
