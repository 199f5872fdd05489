"""A watched folder, on a real file system with real inotify."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rejectd.cameras import CameraError, Remark, driver
from rejectd.cameras.watched import incoming, inotify, listing, names, settled, watch
from rejectd.contract.messages import CameraState, PictureError
from rejectd.contract.settings import FolderCamera, FolderMode, Rewrite


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hot").mkdir()
    return tmp_path / "hot"


@pytest.fixture(autouse=True)
def quick_rescan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESCAN_S", 0.2)


def watching(path: Path, **settings: object) -> FolderCamera:
    return FolderCamera(product="cell", path=path, mode=FolderMode.WATCH, retry_max_s=0.5, **settings)


def started(capture, folder: Path, **settings: object):
    taken = capture(watching(folder, **settings))
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


def test_a_name_written_again_is_the_same_part_and_is_counted(capture, folder, caplog):
    taken = started(capture, folder)
    for value in (1, 2, 3):
        save(folder / "latest.png", value)
    replaced = save(folder.parent / "edited.png", 4)
    taken.wait_for_more(1) if not taken.pictures else None
    replaced.rename(folder / "latest.png")
    save(folder / "next.png", 5)
    taken.wait(lambda taken: taken.sources[-1:] == ["next.png"])
    assert taken.sources == ["latest.png", "next.png"]
    assert "latest.png: was written again after its part was shown" in caplog.text


def test_a_name_written_again_is_a_new_part_for_a_camera_that_always_writes_the_same(capture, folder):
    taken = started(capture, folder, rewrite=Rewrite.NEW_PART)
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


def test_an_empty_file_is_no_exposure_until_it_is_filled(capture, folder):
    taken = started(capture, folder)
    (folder / "part1.png").touch()
    save(folder / "part2.png", 2)
    taken.wait(lambda taken: taken.sources == ["part2.png"])
    filled = time.monotonic_ns()
    (folder / "part1.png").write_bytes(save(folder.parent / "x.png", 1).read_bytes())
    taken.wait(lambda taken: taken.sources == ["part2.png", "part1.png"])
    assert not taken.faulty
    assert taken.pictures[1].captured_ns > filled - 60_000_000


def test_a_file_that_stays_empty_ends_as_a_fault_with_the_time_at_which_it_came(capture, folder, monkeypatch):
    monkeypatch.setattr(incoming, "EMPTY_S", 0.5)
    taken = started(capture, folder)
    began = time.monotonic_ns()
    (folder / "empty.png").touch()
    came = time.monotonic_ns()
    taken.wait(lambda taken: bool(taken.pictures))
    assert taken.pictures[0].fault == "empty.png: the file is empty"
    assert began - 60_000_000 < taken.pictures[0].captured_ns < came


def test_an_upload_that_is_resumed_while_it_settles_is_one_part_with_the_time_of_its_first_end(capture, folder):
    taken = started(capture, folder, settle_ms=800)
    whole = save(folder.parent / "whole.png", 7).read_bytes()
    (folder / "part.png").write_bytes(whole[:50])
    closed = time.monotonic_ns()
    with (folder / "part.png").open("ab", buffering=0) as upload:
        upload.write(whole[50:60])
        threading.Event().wait(1.0)  # the end of the upload is later than the end of that time
        upload.write(whole[60:])
    taken.wait(lambda taken: bool(taken.pictures))
    threading.Event().wait(0.7)
    assert [(picture.source, picture.fault) for picture in taken.pictures] == [("part.png", "")]
    assert taken.pictures[0].pixels[0, 0, 0] == 7
    assert taken.pictures[0].captured_ns < closed


def test_a_file_replaced_while_it_settles_is_one_part_and_shows_what_it_holds_then(capture, folder):
    taken = started(capture, folder, settle_ms=500)
    save(folder / "part.png", 1)
    save(folder.parent / "edited.png", 2).rename(folder / "part.png")
    taken.wait(lambda taken: bool(taken.pictures))
    threading.Event().wait(0.7)
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == [2]


def test_setting_the_time_of_a_file_or_closing_it_unchanged_is_no_writing(capture, folder, caplog):
    taken = started(capture, folder)
    save(folder / "part.png", 1)
    os.utime(folder / "part.png", (1, 1))
    (folder / "part.png").open("ab").close()
    taken.wait(lambda taken: bool(taken.pictures))
    os.utime(folder / "part.png", (2, 2))
    (folder / "part.png").open("ab").close()
    threading.Event().wait(0.7)
    assert [(picture.source, picture.fault) for picture in taken.pictures] == [("part.png", "")]
    assert "written again" not in caplog.text


def test_a_name_is_free_for_the_next_part_when_its_file_has_been_gone_for_a_while(capture, folder):
    taken = started(capture, folder)
    for value in (1, 2):
        save(folder / "part.png", value)
        taken.wait(lambda taken, value=value: len(taken.pictures) == value)
        (folder / "part.png").unlink()
        threading.Event().wait(names.GONE_S + 0.1)
    save(folder / "part.png", 3)
    taken.wait(lambda taken: len(taken.pictures) == 3)
    (folder / "part.png").unlink()  # a tool that replaces a file so is quicker
    save(folder / "part.png", 4)
    threading.Event().wait(0.7)
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == [1, 2, 3]


def test_a_picture_whose_name_is_written_again_before_it_was_read_may_show_another_part(folder):
    camera = driver(watching(folder))
    camera.open()
    try:
        save(folder / "latest.png", 1)
        camera._incoming.drain()
        save(folder / "latest.png", 2)
        exposure = camera.read(5.0)
        with pytest.raises(PictureError, match=r"latest\.png: was written again before it could be read; give each"):
            exposure.load(5.0)
    finally:
        camera.close()


def test_an_upload_that_was_under_way_at_the_start_is_shown_when_it_ends(capture, folder):
    whole = save(folder.parent / "whole.png", 7).read_bytes()
    with (folder / "part.png").open("wb", buffering=0) as upload:
        upload.write(whole[:50])
        taken = started(capture, folder)
        upload.write(whole[50:])
    taken.wait(lambda taken: bool(taken.pictures))
    assert (taken.sources, taken.faulty) == (["part.png"], [])


def test_broken_files_are_faulty_pictures(capture, folder):
    taken = started(capture, folder)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    taken.wait(lambda taken: len(taken.pictures) == 1)
    assert taken.pictures[0].fault.startswith("broken.png: ")


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
    monkeypatch.setattr(names, "_FORGET_BEYOND", 2)
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

    monkeypatch.setattr(os, "scandir", flaky)
    fails.set()
    threading.Event().wait(0.7)
    fails.clear()
    save(folder / "new.png")
    taken.wait(lambda taken: "new.png" in taken.sources)
    threading.Event().wait(0.7)
    assert len(taken.pictures) == 6


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


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(CameraError, match="there is no such folder; create it, or correct `path`"):
        driver(watching(tmp_path / "absent")).open()


# when a file was complete


def test_a_picture_that_came_while_the_process_stood_still_has_the_time_at_which_it_came(folder):
    camera = driver(watching(folder))
    camera.open()
    try:
        assert camera.read(0.0) is None
        save(folder / "part.png")
        came = time.monotonic_ns()
        threading.Event().wait(0.5)
        save(folder.parent / "staged.png").rename(folder / "renamed.png")
        renamed = time.monotonic_ns()
        threading.Event().wait(0.5)  # nobody reads, as if the process were stopped
        exposures = [camera.read(1.0), camera.read(1.0)]
        for exposure, at_ns in zip(exposures, (came, renamed), strict=True):
            assert exposure.captured_ns <= at_ns
            assert at_ns - exposure.captured_ns < 100_000_000
            assert exposure.captured_unix_ns - exposure.captured_ns == pytest.approx(
                time.time_ns() - time.monotonic_ns(), abs=1e7
            )
    finally:
        camera.close()


def test_a_picture_that_was_written_long_before_it_is_moved_in_has_the_time_of_that(folder):
    camera = driver(watching(folder))
    camera.open()
    try:
        for number in range(5):
            staged = save(folder.parent / "staged.png")
            os.utime(staged, (1e9, 1e9))
            assert camera.read(0.13) is None
            began = time.monotonic_ns()
            staged.rename(folder / f"{number}.png")
            exposure = camera.read(1.0)
            assert began - 12_000_000 < exposure.captured_ns < time.monotonic_ns()  # a kernel's tick before
    finally:
        camera.close()


def test_a_late_writer_of_a_file_that_is_stopped_with_us_makes_a_part_older_and_never_younger(folder):
    camera = driver(watching(folder))
    camera.open()
    try:
        with (folder / "part.png").open("wb") as held:
            held.write(save(folder.parent / "whole.png").read_bytes())
            held.flush()
            assert camera.read(0.3) is None
            idle = time.monotonic_ns()
        os.utime(folder / "part.png")
        closed = time.monotonic_ns()
        os.utime(folder / "part.png", ns=(0, time.time_ns() + 3_600_000_000_000))  # a tool that sets a wrong time
        threading.Event().wait(0.3)
        exposure = camera.read(1.0)
        assert idle - 60_000_000 < exposure.captured_ns <= closed
    finally:
        camera.close()


@pytest.mark.parametrize("offset_s", [-2, 10])
def test_on_a_share_the_clock_of_the_server_makes_no_part_late_and_none_younger(capture, folder, monkeypatch, offset_s):
    monkeypatch.setattr(watch, "file_system", lambda path: "nfs4")
    monkeypatch.setattr(watch, "SETTLED_SHARE_S", 0.4)
    stamp_of = shifted(offset_s)
    for module in (incoming, listing, settled):
        monkeypatch.setattr(module, "stamp_of", stamp_of)
    monkeypatch.setattr(inotify.Inotify, "read", lambda self: [])  # the kernel says nothing of what others write
    taken = started(capture, folder)
    for number in range(3):
        save(folder / f"{number}.png")
        came = time.monotonic_ns()
        taken.wait(lambda taken, number=number: len(taken.pictures) == number + 1)
        picture = taken.pictures[-1]
        assert not picture.fault
        assert 0 <= came - picture.captured_ns < 2 * watch.RESCAN_SHARE_S * 1e9
        assert taken.taken_ns[-1] - came < 1.5e9


def test_a_share_of_which_the_kernel_does_not_tell_is_watched_by_listings_and_another_folder_is_an_error(
    capture, folder, monkeypatch
):
    def refused(self, path, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify.Inotify, "watch", refused)
    with pytest.raises(
        CameraError, match=r"cannot be watched: No space left on device; .* fs\.inotify\.max_user_watches"
    ):
        driver(watching(folder)).open()
    monkeypatch.setattr(watch, "file_system", lambda path: "cifs")
    monkeypatch.setattr(watch, "SETTLED_SHARE_S", 0.4)
    taken = started(capture, folder)
    save(folder / "1.png")
    taken.wait(lambda taken: taken.sources == ["1.png"])
    assert not taken.faulty


def test_a_picture_that_settles_does_not_hold_up_the_end(capture, folder):
    taken = started(capture, folder, settle_ms=20_000)
    save(folder / "1.png")
    taken.wait(lambda taken: bool(taken.entered))
    assert taken.stop() < 0.5


def shifted(offset_s: float):
    """Stamps as of a server whose clock is wrong by so much."""
    real = listing.stamp_of

    def stamp_of(path):
        stamp = real(path)
        by = round(offset_s * 1e9)
        return stamp and stamp._replace(modified_ns=stamp.modified_ns + by, changed_ns=stamp.changed_ns + by)

    return stamp_of


# what is not shown


def test_a_camera_that_uses_its_names_again_is_down_since_its_parts_pass_unseen(capture, folder):
    taken = started(capture, folder)
    for value in range(4):
        save(folder / "latest.png", value)
        threading.Event().wait(0.15)
    taken.wait_for_state(CameraState.DOWN)
    assert "give each picture its own name, or set `rewrite: new_part`" in taken.states[-1][1]
    assert sum(remark.rewritten for remark in taken.remarks) == 3
    save(folder / "other.png")
    taken.wait_for_state(CameraState.UP)
    assert taken.sources == ["latest.png", "other.png"]


def test_pictures_in_subfolders_are_shown_if_wished_also_in_those_that_come_later(capture, folder):
    (folder / "2026-11-29").mkdir()
    save(folder / "2026-11-29" / "old.png")
    taken = started(capture, folder, subfolders=True)
    save(folder / "2026-11-29" / "1.png")
    (folder / "2026-11-30" / "a").mkdir(parents=True)
    save(folder / "2026-11-30" / "a" / "2.png")
    taken.wait(lambda taken: len(taken.pictures) == 2)
    save(folder / "2026-11-30" / "3.png")
    (folder.parent / "made").mkdir()
    save(folder.parent / "made" / "4.png")
    (folder.parent / "made").rename(folder / "2026-12-01")
    taken.wait(lambda taken: len(taken.pictures) == 4)
    (folder / "2026-11-30").rename(folder / "2026-11-30-done")
    threading.Event().wait(0.7)
    assert sorted(taken.sources) == ["2026-11-29/1.png", "2026-11-30/3.png", "2026-11-30/a/2.png", "2026-12-01/4.png"]
    save(folder / "2026-11-30-done" / "a" / "5.png")
    taken.wait(lambda taken: taken.sources[-1] == "2026-11-30-done/a/5.png")
    assert not taken.faulty


def test_pictures_in_a_subfolder_that_is_not_watched_are_no_silence(capture, folder, caplog):
    (folder / "2026-11-29").mkdir()
    save(folder / "2026-11-29" / "old.png")
    taken = started(capture, folder)
    threading.Event().wait(0.5)
    assert taken.states[-1][0] is CameraState.UP  # nothing came there
    save(folder / "2026-11-29" / "new.png")
    taken.wait_for_state(CameraState.DOWN)
    assert "2026-11-29: pictures in subfolders are not shown; set `subfolders: true`" in taken.states[-1][1]
    save(folder / "part.png")
    taken.wait_for_state(CameraState.UP)
    save(folder / "2026-11-29" / "archived.png")  # a camera that shows its pictures may keep them where it likes
    threading.Event().wait(0.5)
    assert taken.states[-1][0] is CameraState.UP
    assert caplog.text.count("pictures in subfolders are not shown") == 1


def test_jpeg_is_shown_whatever_its_suffix_and_other_kinds_are_no_silence(capture, folder, caplog):
    taken = started(capture, folder)
    save(folder / "1.gif")
    save(folder / "2.gif")
    taken.wait_for_state(CameraState.DOWN)
    assert "files that end in .gif are not shown" in taken.states[-1][1]
    for name in ("3.jfif", "4.jpe", "5.JPG"):
        Image.new("RGB", (32, 24)).save(folder / name, "JPEG")
    (folder / "protocol.txt").write_text("no picture")
    save(folder / "6.gif")
    taken.wait(lambda taken: taken.sources == ["3.jfif", "4.jpe", "5.JPG"])
    taken.wait_for_state(CameraState.UP)
    assert caplog.text.count(".gif are not shown") == 1
    assert "protocol" not in caplog.text


def test_pictures_that_were_there_before_are_counted_and_the_last_are_named(capture, folder, caplog):
    caplog.set_level("INFO")
    for number in range(5):
        save(folder / f"{number}.png")
    taken = started(capture, folder)
    taken.wait(lambda taken: bool(taken.remarks))
    assert [remark.missed for remark in taken.remarks] == [5]
    assert "were there before the service, and that are not judged: 5" in caplog.text
    assert "2.png, 3.png, 4.png" in caplog.text
    assert taken.states[-1][0] is CameraState.UP


# a folder that may not be listed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("modes", [(0o755, 0o311), (0o755, 0o444), (0o755, 0o000), (0o000, 0o755)])
def test_a_folder_that_may_not_be_listed_or_entered_is_an_error(modes):
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "hot"
        folder.mkdir()
        for path, mode in zip((Path(parent), folder), modes, strict=True):
            path.chmod(mode)
        os.seteuid(65534)
        try:
            closed = parent if not modes[0] else folder
            named = "below {}, which" if modes[0] == 0 else "list it"
            which = rf"cannot be watched: Permission denied: .*{named.format(closed)}.*; the service's user must be"
            with pytest.raises(CameraError, match=which):
                driver(watching(folder)).open()
        finally:
            os.seteuid(0)


def test_a_folder_that_may_no_longer_be_listed_is_down_until_it_may(capture, folder, monkeypatch):
    taken = started(capture, folder)
    scandir, forbidden = os.scandir, threading.Event()

    def guarded(path):
        if forbidden.is_set():
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    forbidden.set()
    taken.wait_for_state(CameraState.DOWN)
    assert "cannot be watched: Permission denied" in taken.states[-1][1]
    save(folder / "part.png")
    forbidden.clear()
    taken.wait_for_state(CameraState.UP)
    taken.wait(lambda taken: taken.sources == ["part.png"])


def test_a_link_to_a_device_and_a_pipe_are_faults_and_block_nothing(capture, folder):
    taken = started(capture, folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    save(folder / "part.png")
    taken.wait(lambda taken: len(taken.pictures) == 3)
    assert [bool(picture.fault) for picture in taken.pictures] == [True, True, False]


def test_a_name_of_yesterday_that_is_written_again_is_a_part_that_nobody_sees(capture, folder):
    save(folder / "1.png", 1)
    taken = started(capture, folder)
    save(folder / "1.png", 2)  # numbers began again, and nobody has emptied the folder
    taken.wait_for_state(CameraState.DOWN)
    save(folder / "2.png", 3)
    taken.wait_for_state(CameraState.UP)
    assert taken.sources == ["2.png"]
