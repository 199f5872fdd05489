"""A watched folder, on a real file system with real inotify."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rejectd.cameras import CameraError, driver, watch
from rejectd.cameras.reading import Reader
from rejectd.messages import CameraState
from rejectd.settings import FolderCamera, FolderMode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hot").mkdir()
    return tmp_path / "hot"


@pytest.fixture(autouse=True)
def quick_rescan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESCAN_S", 0.2)


def watching(path: Path) -> FolderCamera:
    return FolderCamera(product="cell", path=path, mode=FolderMode.WATCH, retry_max_s=0.5)


def started(capture, folder: Path):
    taken = capture(watching(folder))
    taken.wait_for_state(CameraState.UP)
    return taken


def save(path: Path, value: int = 0) -> Path:
    Image.fromarray(np.full((24, 32, 3), value, np.uint8)).save(path)
    return path


def test_new_files_come_in_the_order_of_their_arrival_and_old_ones_do_not(capture, folder):
    save(folder / "old.png")
    taken = started(capture, folder)
    for name in ("c.png", "a.png", "b.png"):
        save(folder / name)
    taken.wait(lambda taken: len(taken.pictures) == 3)
    threading.Event().wait(0.7)  # rescans bring nothing twice
    assert taken.sources == ["c.png", "a.png", "b.png"]
    assert not taken.faulty


def test_an_idle_folder_is_up(capture, folder):
    taken = started(capture, folder)
    threading.Event().wait(0.8)
    assert taken.states == [(CameraState.UP, "")]
    assert not taken.pictures


def test_a_file_is_shown_within_milliseconds_and_stamped_at_its_arrival(capture, folder):
    taken = started(capture, folder)
    for number in range(10):
        save(folder / f"{number}.png")
        taken.wait_for_more(1) if len(taken.pictures) <= number else None
    delays_ms = [(ns - picture.captured_ns) / 1e6 for picture, ns in zip(taken.pictures, taken.taken_ns, strict=True)]
    assert np.median(delays_ms) < 20


def test_a_file_is_not_read_before_it_is_complete(capture, folder):
    taken = started(capture, folder)
    whole = save(folder.parent / "whole.png", 7).read_bytes()
    with (folder / "slow.png").open("wb", buffering=0) as slow:
        slow.write(whole[:50])
        threading.Event().wait(0.9)  # several rescans
        assert not taken.pictures
        slow.write(whole[50:])
    taken.wait(lambda taken: bool(taken.pictures))
    assert not taken.faulty
    assert taken.pictures[0].pixels[0, 0, 0] == 7


def test_a_file_moved_in_or_renamed_into_place_is_shown_once(capture, folder):
    taken = started(capture, folder)
    save(folder.parent / "elsewhere.png").rename(folder / "moved.png")
    taken.wait(lambda taken: len(taken.pictures) == 1)
    (folder / "part.tmp").write_bytes((folder / "moved.png").read_bytes())
    (folder / "part.tmp").rename(folder / "named.png")
    taken.wait(lambda taken: len(taken.pictures) == 2)
    (folder / "named.png").rename(folder / "archived.png")
    threading.Event().wait(0.7)
    assert taken.sources == ["moved.png", "named.png"]


def test_a_hard_link_is_found_by_the_rescan(capture, folder):
    taken = started(capture, folder)
    os.link(save(folder.parent / "elsewhere.png"), folder / "linked.png")
    taken.wait(lambda taken: taken.sources == ["linked.png"])


def test_a_name_written_again_is_a_new_exposure(capture, folder):
    taken = started(capture, folder)
    for value in (1, 2, 3):
        save(folder / "latest.png", value)
        taken.wait(lambda taken, value=value: len(taken.pictures) == value)
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == [1, 2, 3]


@pytest.mark.timeout(60)
def test_pipes_devices_and_programs_in_the_guise_of_pictures_are_faulty_pictures_and_the_next_one_is_shown(
    capture, folder, tmp_path
):
    taken = started(capture, folder)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").rename(folder / "a_pipe.png")
    taken.wait(lambda taken: len(taken.pictures) == 1)
    (folder / "b_zero.png").symlink_to("/dev/zero")
    taken.wait(lambda taken: len(taken.pictures) == 2)
    (folder / "c_script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n")
    taken.wait(lambda taken: len(taken.pictures) == 3)
    save(folder / "d.png", 9)
    taken.wait(lambda taken: len(taken.pictures) == 4)
    pipe, zero, script, picture = (picture.fault.split(";")[0] for picture in taken.pictures)
    assert pipe == "a_pipe.png: is a pipe, not a file"
    assert zero, "by its time stamp a device is older than any deadline, else it is refused by its kind"
    assert script == "c_script.png: is PostScript, which is not taken"
    assert picture == ""
    assert taken.pictures[3].pixels[0, 0, 0] == 9


def test_broken_and_empty_files_are_faulty_pictures(capture, folder):
    taken = started(capture, folder)
    (folder / "empty.png").touch()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    taken.wait(lambda taken: len(taken.pictures) == 2)
    assert taken.pictures[0].fault == "empty.png: the file is empty"
    assert taken.pictures[1].fault.startswith("broken.png: ")


def test_a_burst_of_200_files_is_shown_each_exactly_once(capture, folder):
    taken = started(capture, folder)
    for number in range(200):
        save(folder / f"{number:03}.png", number)
    taken.wait(lambda taken: len(taken.pictures) >= 200)
    threading.Event().wait(0.7)
    assert taken.sources == [f"{number:03}.png" for number in range(200)]
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == list(range(200))


def test_a_burst_beyond_the_waiting_names_is_found_by_the_rescan(capture, folder, monkeypatch):
    monkeypatch.setattr(watch, "_WAITING_MOST", 5)
    taken = started(capture, folder)
    source = save(folder.parent / "x.png").read_bytes()
    for number in range(60):
        (folder / f"{number:03}.png").write_bytes(source)
    taken.wait(lambda taken: len(taken.pictures) >= 60)
    assert sorted(taken.sources) == [f"{number:03}.png" for number in range(60)]


def test_a_folder_that_was_removed_is_down_and_nothing_written_since_is_lost(capture, folder):
    taken = started(capture, folder)
    save(folder / "1.png")
    taken.wait(lambda taken: len(taken.pictures) == 1)
    shutil.rmtree(folder)
    taken.wait_for_state(CameraState.DOWN)
    assert "the folder is gone" in taken.states[-1][1]
    folder.mkdir()
    save(folder / "1.png")  # the same name in the new folder, before anybody watches it
    taken.wait_for_state(CameraState.UP)
    save(folder / "2.png")
    taken.wait(lambda taken: sorted(taken.sources[1:]) == ["1.png", "2.png"])
    assert [state for state, _ in taken.states] == [CameraState.UP, CameraState.DOWN, CameraState.UP]


def test_a_file_that_was_there_before_is_old_also_after_a_loss(capture, folder):
    save(folder / "old.png")
    taken = started(capture, folder)
    folder.rename(folder.parent / "away")
    taken.wait_for_state(CameraState.DOWN)
    (folder.parent / "away").rename(folder)
    taken.wait_for_state(CameraState.UP)
    threading.Event().wait(0.7)
    assert not taken.pictures


def test_a_folder_that_cannot_be_listed_for_a_while_shows_nothing_twice(capture, folder, monkeypatch):
    monkeypatch.setattr(watch, "_FORGET_BEYOND", 2)
    taken = started(capture, folder)
    for number in range(5):
        save(folder / f"{number}.png", number)
    taken.wait(lambda taken: len(taken.pictures) == 5)
    fails = threading.Event()
    scandir = os.scandir

    def flaky(path):
        if fails.is_set():
            raise OSError(116, "Stale file handle")
        return scandir(path)

    monkeypatch.setattr(watch.os, "scandir", flaky)
    fails.set()
    threading.Event().wait(0.7)
    fails.clear()
    save(folder / "new.png")
    taken.wait(lambda taken: "new.png" in taken.sources)
    threading.Event().wait(0.7)
    assert len(taken.pictures) == 6


def test_names_of_files_that_have_gone_are_not_remembered_for_ever(folder, monkeypatch):
    monkeypatch.setattr(watch, "_FORGET_BEYOND", 10)
    camera = watch.Watch(folder, Reader(watching(folder)))
    camera.open()
    try:
        for number in range(100):
            path = save(folder / f"{number:03}.png")
            assert camera.read(5.0)
            path.unlink()
            camera._scan_at = 0.0
            assert camera.read(0.0) is None
            assert len(camera._shown) <= 12
    finally:
        camera.close()


def test_a_picture_does_not_wait_for_a_rescan_to_end(folder, monkeypatch):
    monkeypatch.setattr(watch, "_LOOKED_AT_ONCE", 1)
    for number in range(20):
        save(folder / f"{number:03}.png")
    camera = watch.Watch(folder, Reader(watching(folder)))
    camera.open()
    try:
        assert camera.read(0.0) is None
        assert next(camera._scan, "ended") is None  # it is under way
        save(folder / "new.png")
        with camera._condition:
            assert camera._condition.wait_for(lambda: camera._waiting, 5)
        picture = camera.read(0.0)
        assert picture is not None
        assert picture.source == "new.png"
        assert next(camera._scan, "ended") is None
    finally:
        camera.close()


def test_a_picture_that_is_shown_during_a_rescan_is_not_shown_again(folder, monkeypatch):
    monkeypatch.setattr(watch, "_LOOKED_AT_ONCE", 1)
    monkeypatch.setattr(watch, "_FORGET_BEYOND", -100)
    monkeypatch.setattr(watch, "RESCAN_S", 0.0)
    save(folder / "old.png")
    camera = watch.Watch(folder, Reader(watching(folder)))
    camera.open()
    try:
        scan = camera._rescan()
        assert next(scan, "ended") is None  # it has seen what was there
        save(folder / "new.png")
        assert camera.read(5.0)
        list(scan)
        assert "new.png" in camera._shown
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert camera.read(0.05) is None
    finally:
        camera.close()


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(CameraError, match="there is no such folder; create it, or correct `path`"):
        driver(watching(tmp_path / "absent")).open()
