"""rejectd.cameras.watched.watch: when a picture came, whatever stood still and whoever's clock is wrong."""

from __future__ import annotations

import os
import threading
import time

import pytest
from watched_folders import save, started, watching

from rejectd.cameras import driver
from rejectd.cameras.watched import incoming, inotify, listing, settled, watch

pytestmark = pytest.mark.usefixtures("quick_rescan")


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


def shifted(offset_s: float):
    """Stamps as of a server whose clock is wrong by so much."""
    real = listing.stamp_of

    def stamp_of(path):
        stamp = real(path)
        by = round(offset_s * 1e9)
        return stamp and stamp._replace(modified_ns=stamp.modified_ns + by, changed_ns=stamp.changed_ns + by)

    return stamp_of
