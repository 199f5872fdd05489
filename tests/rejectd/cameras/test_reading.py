"""Reading a picture file in a thread that can be given up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rejectd.cameras import reading
from rejectd.cameras.depth import Depth
from rejectd.cameras.reading import STUCK_MOST, Reader
from rejectd.contract.messages import CameraState, PictureError
from rejectd.contract.settings import FolderCamera, FolderMode
from revdist.data import pictures


def camera(**settings: object) -> FolderCamera:
    return FolderCamera(product="cell", path=Path("pictures"), **settings)


def save(path: Path, value: int = 7) -> Path:
    Image.fromarray(np.full((24, 32, 3), value, np.uint8)).save(path)
    return path


class SlowDisk:
    """Answers for a file when it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, path: Path, _limits: object) -> np.ndarray:
        self.threads.append(threading.current_thread())
        if path.name.startswith("stuck"):
            assert self.answers.wait(30)
        return np.zeros((2, 2, 3), np.uint8)


def test_a_picture_is_read(tmp_path):
    pixels = Reader(camera()).load(save(tmp_path / "a.png"), 10)
    assert pixels.shape == (24, 32, 3)
    assert (pixels == 7).all()


def test_a_picture_of_fewer_bits_is_read_as_training_reads_it(tmp_path):
    Image.fromarray(np.array([[0, 2048, 4095]], np.uint16)).save(tmp_path / "a.png")
    twelve = pictures.decode((tmp_path / "a.png").read_bytes(), bits=12)
    assert twelve[0, :, 0].tolist() == [0, 128, 255]
    assert np.array_equal(Reader(camera(bits=12)).load(tmp_path / "a.png", 10), twelve)
    assert Reader(camera(bits=16)).load(tmp_path / "a.png", 10)[0, :, 0].tolist() == [0, 8, 16]


@pytest.mark.parametrize(("highest", "bits"), [(1023, 10), (4095, 12), (16_383, 14)])
def test_a_16_bit_picture_that_holds_fewer_bits_is_no_picture_of_a_part_until_they_are_stated(tmp_path, highest, bits):
    Image.fromarray(np.array([[0, highest // 2, highest]], np.uint16)).save(tmp_path / "a.png")
    reader = Reader(camera())
    for _ in range(3):
        with pytest.raises(PictureError, match=f"looks like {bits}-bit data.*`bits: {bits}` of the camera"):
            reader.load(tmp_path / "a.png", 10)


def test_a_camera_of_16_bits_may_show_a_dark_part_once_it_has_shown_its_range(tmp_path):
    Image.fromarray(np.array([[0, 60_000]], np.uint16)).save(tmp_path / "bright.png")
    Image.fromarray(np.array([[0, 4095]], np.uint16)).save(tmp_path / "dark.png")
    reader = Reader(camera())
    reader.load(tmp_path / "bright.png", 10)
    assert reader.load(tmp_path / "dark.png", 10)[0, :, 0].tolist() == [0, 16]


def test_a_watched_camera_of_12_bits_in_16_bit_files_gives_no_picture_to_judge(capture, tmp_path):
    taken = capture(FolderCamera(product="cell", path=tmp_path, mode=FolderMode.WATCH))
    taken.wait_for_state(CameraState.UP)
    for number in range(2):
        Image.fromarray(np.array([[0, 4095]], np.uint16)).save(tmp_path / f"{number}.tmp.png")
        (tmp_path / f"{number}.tmp.png").rename(tmp_path / f"{number}.png")
    taken.wait(lambda taken: len(taken.pictures) >= 2)
    assert all("looks like 12-bit data" in picture.fault for picture in taken.pictures)
    assert all(picture.pixels is None for picture in taken.pictures)


def test_all_pictures_are_read_by_one_thread():
    disk = SlowDisk()
    reader = Reader(camera(), read=disk)
    for _ in range(5):
        reader.load(Path("a.png"), 10)
    assert len(set(disk.threads)) == 1
    assert disk.threads[0].daemon
    assert disk.threads[0].name.endswith(":reader")


def test_an_idle_thread_ends_and_the_next_picture_gets_a_new_one(monkeypatch):
    monkeypatch.setattr(reading, "IDLE_S", 0.05)
    disk = SlowDisk()
    reader = Reader(camera(), read=disk)
    for _ in range(2):
        reader.load(Path("a.png"), 10)
        disk.threads[-1].join(5)
        assert not disk.threads[-1].is_alive()
    assert len(set(disk.threads)) == 2


def test_a_picture_that_takes_too_long_is_given_up_and_the_next_one_is_read():
    disk = SlowDisk()
    reader = Reader(camera(), read=disk)
    begun = time.monotonic()
    with pytest.raises(PictureError, match=r"stuck\.png: reading took longer than 0\.1 s; is the disk"):
        reader.load(Path("stuck.png"), 0.1)
    assert time.monotonic() - begun < 1
    assert reader.load(Path("b.png"), 10).shape == (2, 2, 3)
    disk.answers.set()
    disk.threads[0].join(5)
    assert not disk.threads[0].is_alive(), "a thread that was given up ends when it can"


def test_only_a_few_threads_are_left_behind_and_pictures_are_read_again_once_one_comes_back():
    disk = SlowDisk()
    reader = Reader(camera(), read=disk)
    for number in range(STUCK_MOST):
        with pytest.raises(PictureError, match="took longer"):
            reader.load(Path(f"stuck{number}.png"), 0.01)
    with pytest.raises(PictureError, match=r"b\.png: not read: 3 pictures before it are still being read"):
        reader.load(Path("b.png"), 10)
    assert len(disk.threads) == STUCK_MOST
    disk.answers.set()
    for thread in disk.threads:
        thread.join(5)
    assert reader.load(Path("b.png"), 10).shape == (2, 2, 3)


def test_a_mistake_of_our_own_is_not_taken_for_a_bad_picture():
    def mistaken(_path: Path, _limits: object) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Reader(camera(), read=mistaken).load(Path("a.png"), 10)


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"max_file_mb": 0.001}, r"a\.png: the file is larger than 0\.001 MB; `max_file_mb` of the camera allows more"),
        ({"max_megapixels": 0.001}, r"a\.png: 100 x 80 pixels .*; `max_megapixels` of the camera allows more"),
    ],
)
def test_a_picture_over_the_limits_is_refused_with_the_setting(tmp_path, settings, cause):
    noise = np.random.default_rng(1).integers(0, 256, (80, 100, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=cause):
        Reader(camera(**settings)).load(tmp_path / "a.png", 10)


def test_what_cannot_be_read_says_why(tmp_path):
    reader = Reader(camera())
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").write_bytes(save(tmp_path / "a.png").read_bytes()[:60])
    for name, cause in (
        ("pipe.png", "pipe.png: is a pipe, not a file"),
        ("broken.png", "broken.png: the PNG is cut off"),
        ("gone.png", "gone.png: cannot be read: No such file"),
    ):
        with pytest.raises(PictureError, match=cause):
            reader.load(tmp_path / name, 10)


def test_a_thread_that_is_stuck_in_a_system_call_does_not_hold_up_the_end_of_the_process(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    program = f"""
from pathlib import Path
from rejectd.cameras import reading
from rejectd.cameras.reading import Reader
from rejectd.contract.messages import PictureError
from rejectd.contract.settings import FolderCamera
settings = FolderCamera(product="cell", path=Path("."))
reader = Reader(settings, read=lambda path, limits: open({str(tmp_path / "pipe")!r}))
try:
    reader.load(Path("a.png"), 0.1)
except PictureError as error:
    print(error, flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stdout.startswith("a.png: reading took longer than 0.1 s")


def test_a_picture_that_cannot_be_read_is_a_fault_before_its_deadline_and_the_next_one_is_shown(
    capture, tmp_path, monkeypatch
):
    answers = threading.Event()
    whole = reading.read_picture

    def slow(path: Path, limits: pictures.Limits, depth: Depth) -> np.ndarray:
        assert not path.name.startswith("stuck") or answers.wait(30)
        return whole(path, limits, depth)

    monkeypatch.setattr(reading, "read_picture", slow)
    taken = capture(FolderCamera(product="cell", path=tmp_path, mode=FolderMode.WATCH))
    taken.deadline_s = 2.0
    taken.wait_for_state(CameraState.UP)
    save(tmp_path / "stuck.png")
    taken.wait(lambda taken: len(taken.pictures) == 1)
    save(tmp_path / "next.png")
    taken.wait(lambda taken: len(taken.pictures) == 2)
    answers.set()
    stuck, following = taken.pictures
    assert "stuck.png: reading took longer than" in stuck.fault
    assert taken.taken_ns[0] - stuck.captured_ns < 2e9
    assert (following.fault, following.pixels[0, 0, 0]) == ("", 7)
