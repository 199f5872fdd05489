"""rejectd.cameras.watched.watch: names that are written again, files that are resumed or replaced."""

from __future__ import annotations

import os
import threading
import time

import pytest
from watched_folders import save, started, watching

from rejectd.cameras import driver
from rejectd.cameras.watched import names
from rejectd.contract.messages import CameraState, PictureError
from rejectd.contract.settings import Rewrite

pytestmark = pytest.mark.usefixtures("quick_rescan")


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


def test_a_name_of_yesterday_that_is_written_again_is_a_part_that_nobody_sees(capture, folder):
    save(folder / "1.png", 1)
    taken = started(capture, folder)
    save(folder / "1.png", 2)  # numbers began again, and nobody has emptied the folder
    taken.wait_for_state(CameraState.DOWN)
    save(folder / "2.png", 3)
    taken.wait_for_state(CameraState.UP)
    assert taken.sources == ["2.png"]
