"""rejectd.cameras.watched.watch: pictures that are there and not shown are told."""

from __future__ import annotations

import threading

import pytest
from PIL import Image
from watched_folders import save, started

from rejectd.contract.messages import CameraState

pytestmark = pytest.mark.usefixtures("quick_rescan")


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
