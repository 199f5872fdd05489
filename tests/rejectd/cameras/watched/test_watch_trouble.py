"""rejectd.cameras.watched.watch: folders that go or are closed, and files that are no pictures."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest
from watched_folders import save, started, watching

from rejectd.cameras import CameraError, driver
from rejectd.cameras.watched import incoming, inotify, names, watch
from rejectd.contract.messages import CameraState

pytestmark = pytest.mark.usefixtures("quick_rescan")


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


def test_broken_files_are_faulty_pictures(capture, folder):
    taken = started(capture, folder)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    taken.wait(lambda taken: len(taken.pictures) == 1)
    assert taken.pictures[0].fault.startswith("broken.png: ")


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


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(CameraError, match="there is no such folder; create it, or correct `path`"):
        driver(watching(tmp_path / "absent")).open()


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
