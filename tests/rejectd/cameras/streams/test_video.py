"""Video files, made here; streams are in test_video_stream.py."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from rejectd.cameras import CameraError, driver
from rejectd.contract.messages import CameraState
from rejectd.contract.settings import VideoCamera

RATE_HZ = 25


def painted(number: int) -> np.ndarray:
    """Red to the left, blue to the right, a grey stripe that gets brighter."""
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[:, :160, 0] = 255
    pixels[:, 160:, 2] = 255
    pixels[200:] = 40 + 3 * number
    pixels[:40, ::8] = np.random.default_rng(number).integers(0, 256, (40, 40, 1), np.uint8)
    return pixels


def record(path: Path, count: int, damaged: tuple[int, ...] = ()) -> Path:
    """H.264 with four slices a picture and a key picture each tenth; damaged pictures lack one slice."""
    parameters = "slices=4:keyint=10:min-keyint=10:scenecut=0"
    with av.open(path, "w") as file:
        stream = file.add_stream(
            "libx264", rate=RATE_HZ, options={"tune": "zerolatency", "preset": "ultrafast", "x264-params": parameters}
        )
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(painted(number), format="rgb24")):
                file.mux(without_a_slice(packet) if number in damaged else packet)
        file.mux(stream.encode())
    return path


def without_a_slice(packet: av.Packet) -> av.Packet:
    units = bytes(packet).split(b"\0\0\1")
    del units[-2]
    damaged = av.Packet(b"\0\0\1".join(units))
    damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
    damaged.stream, damaged.duration = packet.stream, packet.duration
    return damaged


def camera(path: Path, **settings: object) -> VideoCamera:
    return VideoCamera(product="cell", url=str(path), retry_max_s=0.5, **settings)


def test_a_file_is_shown_once_at_its_own_rate_in_rgb(capture, tmp_path, colours_right):
    taken = capture(camera(record(tmp_path / "cells.mp4", 40)))
    taken.join()
    assert len(taken.good) == len(taken.pictures) == 40
    assert all(colours_right(picture.pixels) for picture in taken.good)
    captured_s = np.array([picture.captured_ns for picture in taken.pictures]) / 1e9
    assert captured_s[-1] - captured_s[0] == pytest.approx(39 / RATE_HZ, abs=0.05)
    assert [state for state, _ in taken.states] == [CameraState.UP, CameraState.ENDED]
    assert taken.sources[1].endswith("cells.mp4 0.040 s")


def test_a_loop_keeps_the_rate_and_the_colours_of_its_first_picture(capture, tmp_path, colours_right):
    taken = capture(camera(record(tmp_path / "cells.mp4", 10), loop=True))
    taken.wait(lambda taken: len(taken.pictures) >= 25)
    assert [picture.source.split()[-2] for picture in taken.pictures[9:12]] == ["0.360", "0.000", "0.040"]
    assert all(colours_right(taken.pictures[first].pixels) for first in (0, 10, 20))
    captured_s = np.array([picture.captured_ns for picture in taken.pictures[:25]]) / 1e9
    assert captured_s[24] - captured_s[0] == pytest.approx(24 / RATE_HZ, abs=0.08)
    assert taken.states == [(CameraState.UP, "")]


def test_a_damaged_picture_and_those_that_build_on_it_are_faulty(capture, tmp_path):
    taken = capture(camera(record(tmp_path / "cells.h264", 30, damaged=(14,))))
    taken.join()
    faulty = [number for number, picture in enumerate(taken.pictures) if picture.fault]
    assert faulty == [14, 15, 16, 17, 18, 19]  # 20 is a key picture
    assert taken.pictures[14].fault.startswith("damaged: concealing")
    assert len(taken.pictures) == 30


def test_a_still_recording_is_degraded_but_goes_on(capture, tmp_path):
    with av.open(tmp_path / "still.mkv", "w") as file:
        stream = file.add_stream("ffv1", rate=100)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(20):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(painted(0), format="rgb24")))
        file.mux(stream.encode())
    taken = capture(camera(tmp_path / "still.mkv", frozen_after=5))
    taken.join()
    assert len(taken.pictures) == 20
    assert taken.pictures[-1].fault.startswith("frozen")
    assert CameraState.DEGRADED in [state for state, _ in taken.states]


def test_a_truncated_file_is_down_or_ends_but_shows_no_damage(capture, tmp_path):
    whole = record(tmp_path / "cells.h264", 30).read_bytes()
    (tmp_path / "cells.h264").write_bytes(whole[: len(whole) * 2 // 3])
    taken = capture(camera(tmp_path / "cells.h264"))
    taken.join()
    assert 10 < len(taken.good) < 30
    for picture in taken.good:
        assert picture.pixels[100, 80, 0] > 200


@pytest.mark.parametrize(
    ("content", "cause"), [(None, "cannot be opened: No such file"), (b"not a video", "cannot be opened: Invalid data")]
)
def test_a_file_that_is_no_video_is_an_error_that_names_it(content, cause, tmp_path):
    if content is not None:
        (tmp_path / "cells.mp4").write_bytes(content)
    with pytest.raises(CameraError, match=cause) as error:
        driver(camera(tmp_path / "cells.mp4")).open()
    assert str(error.value).startswith(str(tmp_path / "cells.mp4"))


def test_an_unreadable_password_file_is_an_error_that_names_it(tmp_path):
    settings = VideoCamera(product="cell", url="rtsp://192.0.2.7/s", username="u", password_file=tmp_path / "absent")
    with pytest.raises(CameraError, match="absent: cannot be read: No such file"):
        driver(settings).open()


def test_a_password_file_in_another_encoding_is_an_error_that_says_which(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes("geheim-ß1".encode("utf-16"))
    settings = VideoCamera(product="cell", url="rtsp://192.0.2.7/s", username="u", password_file=secret)
    with pytest.raises(CameraError, match="secret: cannot be read: is not UTF-8 text, but UTF-16"):
        driver(settings).open()


def test_a_file_goes_on_from_now_when_nobody_took_its_pictures_for_long(tmp_path):
    """A picture of a file is exposed when it is shown: after a standstill none is old, and none comes in a hurry."""
    shown = driver(camera(record(tmp_path / "cells.mp4", 60)))
    shown.open()

    def show() -> tuple[int, int]:
        while (exposure := shown.read(0.2)) is None:
            continue
        return exposure.captured_ns, time.monotonic_ns()

    for _ in range(5):
        show()
    threading.Event().wait(1.5)
    exposures = [show() for _ in range(10)]
    shown.close()
    assert all(now_ns - captured_ns < 0.1e9 for captured_ns, now_ns in exposures)
    assert exposures[-1][0] - exposures[0][0] > 0.9 * 9e9 / RATE_HZ
