"""rejectd.cameras.watched.watch, on a real file system with real inotify: which pictures come, when, and once."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from watched_folders import save, started, watching

from rejectd.cameras import Remark, driver
from rejectd.cameras.watched import incoming, names, watch
from rejectd.contract.messages import CameraState

pytestmark = pytest.mark.usefixtures("quick_rescan")


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


def test_a_picture_that_is_renamed_before_anybody_looks_is_one_part(folder):
    camera = driver(watching(folder))
    camera.open()
    try:
        save(folder / "tmp1.png", 5).rename(folder / "part1.png")
        exposure = camera.read(1.0)
        assert exposure.load(5.0)[0, 0, 0] == 5
        save(folder / "tmp2.png", 6)
        exposure = camera.read(1.0)
        (folder / "tmp2.png").rename(folder / "part2.png")
        assert exposure.load(5.0)[0, 0, 0] == 6
        for number in (3, 4, 5):
            save(folder / "tmp.png", number).rename(folder / f"part{number}.png")
        assert [camera.read(1.0).load(5.0)[0, 0, 0] for _ in range(3)] == [3, 4, 5]
        assert camera.read(0.7) is None
    finally:
        camera.close()


def test_a_hard_link_is_found_by_the_rescan(capture, folder):
    taken = started(capture, folder)
    os.link(save(folder.parent / "elsewhere.png"), folder / "linked.png")
    taken.wait(lambda taken: taken.sources == ["linked.png"])


def test_an_upload_that_was_under_way_at_the_start_is_shown_when_it_ends(capture, folder):
    whole = save(folder.parent / "whole.png", 7).read_bytes()
    with (folder / "part.png").open("wb", buffering=0) as upload:
        upload.write(whole[:50])
        taken = started(capture, folder)
        upload.write(whole[50:])
    taken.wait(lambda taken: bool(taken.pictures))
    assert (taken.sources, taken.faulty) == (["part.png"], [])


def test_a_burst_of_200_files_is_shown_each_exactly_once(capture, folder):
    taken = started(capture, folder)
    for number in range(200):
        save(folder / f"{number:03}.png", number)
    taken.wait(lambda taken: len(taken.pictures) >= 200)
    threading.Event().wait(0.7)
    assert taken.sources == [f"{number:03}.png" for number in range(200)]
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == list(range(200))


def test_a_burst_beyond_the_waiting_names_is_found_by_the_rescan(capture, folder, monkeypatch):
    monkeypatch.setattr(incoming, "_WAITING_MOST", 5)
    taken = started(capture, folder)
    source = save(folder.parent / "x.png").read_bytes()
    for number in range(60):
        (folder / f"{number:03}.png").write_bytes(source)
    taken.wait(lambda taken: len(taken.pictures) >= 60)
    assert sorted(taken.sources) == [f"{number:03}.png" for number in range(60)]


def test_names_of_files_that_have_gone_are_not_remembered_for_ever(folder, monkeypatch):
    monkeypatch.setattr(names, "_FORGET_BEYOND", 10)
    camera = watch.Watch(watching(folder))
    camera.open()
    try:
        for number in range(100):
            path = save(folder / f"{number:03}.png")
            assert camera.read(5.0)
            path.unlink()
            camera._scan_at = 0.0
            assert camera.read(0.0) is None
            assert len(camera._names) <= 12
    finally:
        camera.close()


def test_a_picture_does_not_wait_for_a_rescan_to_end(folder, monkeypatch):
    monkeypatch.setattr(watch, "_LOOKED_AT_ONCE", 1)
    for number in range(20):
        save(folder / f"{number:03}.png")
    camera = watch.Watch(watching(folder))
    camera.open()
    try:
        assert isinstance(camera.read(0.0), Remark)  # of the files that are there
        assert camera.read(0.0) is None
        assert next(camera._scan, "ended") is None  # it is under way
        save(folder / "new.png")
        picture = camera.read(0.0)
        assert picture is not None
        assert picture.source == "new.png"
        assert next(camera._scan, "ended") is None
    finally:
        camera.close()


def test_a_picture_that_is_shown_during_a_rescan_is_not_shown_again(folder, monkeypatch):
    monkeypatch.setattr(watch, "_LOOKED_AT_ONCE", 1)
    monkeypatch.setattr(names, "_FORGET_BEYOND", -100)
    monkeypatch.setattr(watch, "RESCAN_S", 0.0)
    save(folder / "old.png")
    camera = watch.Watch(watching(folder))
    camera.open()
    try:
        scan = camera._rescan()
        assert next(scan, "ended") is None  # it has seen what was there
        save(folder / "new.png")
        assert camera.read(5.0)
        list(scan)
        assert isinstance(camera.read(0.0), Remark)
        assert "new.png" in camera._names
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert camera.read(0.05) is None
    finally:
        camera.close()


def test_a_picture_that_settles_does_not_hold_up_the_end(capture, folder):
    taken = started(capture, folder, settle_ms=20_000)
    save(folder / "1.png")
    taken.wait(lambda taken: bool(taken.entered))
    assert taken.stop() < 0.5
