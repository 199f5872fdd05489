"""The life of a camera, with drivers that do what real ones do at their worst."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rejectd.cameras import CameraError, Ended, Remark, life
from rejectd.cameras import device as devices
from rejectd.contract.messages import CameraState, Exposure, PictureError, Pixels
from rejectd.contract.settings import FolderCamera, V4l2Camera, VideoCamera

UP, DOWN, DEGRADED, ENDED = CameraState.UP, CameraState.DOWN, CameraState.DEGRADED, CameraState.ENDED


class Script:
    """A driver that does one step after the other: raises an exception, calls a callable; idle at the end."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.opened: list[float] = []
        self.closed = 0
        self.threads: set[str] = set()

    def open(self) -> None:
        self.opened.append(time.monotonic())
        self.threads.add(threading.current_thread().name)
        if self.steps and isinstance(self.steps[0], type):
            raise self.steps.pop(0)("cannot be opened", hint="switch it on")

    def read(self, timeout_s: float) -> Exposure | None:
        if not self.steps:
            threading.Event().wait(timeout_s)
            return None
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step() if callable(step) else step

    def close(self) -> None:
        self.closed += 1


def device(**settings: object) -> V4l2Camera:
    """With pauses that may be shorter than a settings file may say, so that the tests are quick."""
    plain = V4l2Camera(product="cell", device=Path("/dev/video0"), retry_max_s=0.5)
    return plain.model_copy(update=settings)


def states(taken) -> list[CameraState]:
    return [state for state, _ in taken.states]


def test_a_lost_camera_is_opened_again_and_each_change_is_told_once(capture, make_exposure):
    script = Script(CameraError, CameraError, make_exposure(1), CameraError("gone"), make_exposure(2), Ended("over"))
    taken = capture(device(), lambda settings: script)
    taken.join()
    assert taken.states == [
        (DOWN, "cannot be opened; switch it on"),
        (UP, ""),
        (DOWN, "gone"),
        (UP, ""),
        (ENDED, "over"),
    ]
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == [1, 2]
    assert script.closed == len(script.opened) == 4
    assert script.threads == {"camera:test:device"}


def test_pauses_double_up_to_the_longest_and_start_anew_after_a_good_picture(capture, make_exposure, monkeypatch):
    monkeypatch.setattr(devices, "FIRST_PAUSE_S", 0.05)
    errors = [CameraError] * 4
    script = Script(*errors, make_exposure(1), CameraError("gone"), make_exposure(2), Ended())
    taken = capture(device(retry_max_s=0.2), lambda settings: script)
    taken.join()
    pauses = np.diff(script.opened)
    for pause, longest in zip(pauses, [0.05, 0.1, 0.2, 0.2, 0.05], strict=True):
        assert 0.8 * longest <= pause < longest + 0.1


@pytest.mark.parametrize(("attempt", "longest"), [(0, 0.5), (1, 1.0), (2, 2.0), (6, 30.0), (10_000, 30.0)])
def test_a_pause_has_jitter_and_a_limit(attempt, longest):
    pauses = [devices.pause_s(attempt, 30.0) for _ in range(100)]
    assert all(0.8 * longest <= pause <= longest for pause in pauses)
    assert len(set(pauses)) > 50


def test_an_idle_camera_is_up_and_stays_up(capture):
    taken = capture(device(), lambda settings: Script())
    taken.wait_for_state(UP)
    threading.Event().wait(0.6)
    assert taken.states == [(UP, "")]
    assert not taken.pictures


def test_frozen_pictures_are_faulty_and_the_camera_recovers_by_itself(capture, make_exposure):
    shown = [make_exposure(value) for value in (1, 7, 7, 7, 7, 8)]
    taken = capture(device(frozen_after=3), lambda settings: Script(*shown, Ended()))
    taken.join()
    faults = [picture.fault for picture in taken.pictures]
    assert faults == ["", "", "", "frozen: 3 identical pictures in a row", "frozen: 4 identical pictures in a row", ""]
    assert [picture.pixels is None for picture in taken.pictures] == [False, False, False, True, True, False]
    assert taken.states[:3] == [(UP, ""), (DEGRADED, "frozen: 3 identical pictures in a row"), (UP, "")]


def test_a_camera_that_stays_frozen_is_opened_anew(capture, make_exposure, monkeypatch):
    monkeypatch.setattr(life, "REOPEN_FROZEN_S", 0.3)

    class Frozen(Script):
        def read(self, timeout_s: float) -> Exposure | None:
            threading.Event().wait(0.02)
            return make_exposure(len(self.opened) // 3)  # the third connection shows something new

    script = Frozen()
    taken = capture(device(frozen_after=3), lambda settings: script)
    taken.wait(lambda taken: states(taken) == [UP, DEGRADED, UP])
    assert len(script.opened) >= 3
    assert min(np.diff(script.opened)) > 0.25


def test_a_frozen_recording_is_not_started_again(capture, make_exposure, monkeypatch):
    monkeypatch.setattr(life, "REOPEN_FROZEN_S", 0.01)
    script = Script(*[lambda: (threading.Event().wait(0.01) and None) or make_exposure(1)] * 20, Ended())
    taken = capture(VideoCamera(product="cell", url="cell.mp4", frozen_after=2), lambda settings: script)
    taken.join()
    assert len(script.opened) == 1
    assert len(taken.faulty) == 19


def test_a_folder_may_repeat_a_picture(capture, make_exposure):
    script = Script(*[make_exposure(1)] * 30, Ended())
    taken = capture(FolderCamera(product="cell", path=Path("x")), lambda settings: script)
    taken.join()
    assert len(taken.good) == 30


def test_a_single_faulty_picture_does_not_degrade_a_camera_but_several_do(capture, make_exposure):
    good, bad = make_exposure(1), make_exposure(1, "torn")
    taken = capture(device(frozen_after=0), lambda settings: Script(good, bad, good, bad, bad, bad, good, Ended()))
    taken.join()
    assert taken.states[:3] == [(UP, ""), (DEGRADED, "torn"), (UP, "")]
    assert [picture.fault for picture in taken.pictures] == ["", "torn", "", "torn", "torn", "torn", ""]


def test_an_array_of_no_rows_is_a_faulty_picture_and_not_a_crash(capture, make_exposure):
    taken = capture(device(), lambda settings: Script(make_exposure(np.zeros((0, 1920), np.uint8)), Ended()))
    taken.join()
    assert taken.pictures[0].fault == "the camera delivered an empty picture of shape (0, 1920)"
    assert taken.states[0] == (DEGRADED, taken.pictures[0].fault)


def test_our_own_mistake_in_a_driver_reaches_the_thread_that_takes_the_pictures(capture):
    taken = capture(device(), lambda settings: Script(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError, match="ours"):
        taken.join()


def test_a_driver_that_hangs_is_told_as_down_and_comes_back(capture, make_exposure, monkeypatch):
    monkeypatch.setattr(life, "SILENCE_S", 0.1)
    go_on = threading.Event()
    script = Script(make_exposure(1), lambda: (go_on.wait(10) and make_exposure(2)) or None)
    taken = capture(device(read_timeout_s=0.1), lambda settings: script)
    taken.wait_for_state(DOWN, 3)
    assert "has not answered for 0.2 s" in taken.states[-1][1]
    go_on.set()
    taken.wait(lambda taken: len(taken.good) == 2)
    assert states(taken) == [UP, DOWN, UP]


def test_a_slow_reader_loses_nothing(make_exposure, enter):
    script = Script(*[make_exposure(number) for number in range(30)], Ended())
    stop = threading.Event()
    seen = []
    for _, picture in life.pictures(device(), stop, lambda *change: None, enter, opener=lambda settings: script):
        threading.Event().wait(0.005)
        seen.append(int(picture.pixels[0, 0, 0]))
    assert seen == list(range(30))


def test_each_exposure_is_entered_when_it_is_noticed_and_not_when_its_picture_has_been_read(capture, make_exposure):
    go_on = threading.Event()

    def slow(timeout_s: float) -> Pixels:
        assert go_on.wait(10)
        return np.zeros((24, 32, 3), np.uint8)

    shown = [replace(make_exposure(1), load=slow, held=False, source=f"{number}.png") for number in range(40)]
    taken = capture(device(frozen_after=0), lambda settings: Script(*shown, Ended()))
    taken.wait(lambda taken: len(taken.entered) == 40)
    assert taken.pictures == []
    go_on.set()
    taken.join()
    assert taken.sources == [f"{number}.png" for number in range(40)]


def test_pictures_that_are_in_memory_already_are_few(capture, make_exposure):
    go_on = threading.Event()
    waits = replace(make_exposure(0), load=lambda timeout_s: go_on.wait(10) and np.zeros((24, 32, 3), np.uint8))
    script = Script(waits, *[make_exposure(number) for number in range(1, 30)], Ended())
    taken = capture(device(), lambda settings: script)
    taken.wait(lambda taken: len(taken.entered) == 6)  # one is being read, four wait, one is at hand
    threading.Event().wait(0.3)
    assert len(taken.entered) == 6
    go_on.set()
    taken.join()
    assert len(taken.good) == 30


def test_an_exposure_that_is_noticed_after_its_deadline_takes_the_camera_down_and_the_next_in_time_brings_it_back(
    capture, make_exposure
):
    late = replace(make_exposure(1), captured_ns=time.monotonic_ns() - 61 * 10**9)
    taken = capture(device(), lambda settings: Script(late, None, None, lambda: make_exposure(2), Ended()))
    taken.join()
    assert states(taken) == [DOWN, UP, ENDED], "an idle camera stays down for a while"
    assert "61.0 s after it was made, its deadline is 60.0 s" in taken.states[0][1]
    assert [picture.pixels is None for picture in taken.pictures] == [True, False], "it is not read"


def test_an_idle_camera_does_not_stay_down_for_ever_for_one_late_exposure(capture, make_exposure, monkeypatch):
    monkeypatch.setattr(life, "LATE_S", 0.3)
    late = replace(make_exposure(1), captured_ns=time.monotonic_ns() - 61 * 10**9)
    taken = capture(device(), lambda settings: Script(late))
    taken.wait_for_state(UP, 3)
    assert states(taken) == [DOWN, UP]


def test_a_camera_that_does_not_show_all_parts_is_down_until_a_good_picture_and_other_remarks_change_nothing(
    capture, make_exposure
):
    said, unseen = Remark(text="3 old pictures", missed=3), Remark(text="x.gif: is not shown", unseen=True)
    script = Script(None, said, None, unseen, None, None, lambda: make_exposure(2), Ended())
    taken = capture(device(), lambda settings: script)
    taken.join()
    assert states(taken) == [UP, DOWN, UP, ENDED]
    assert taken.states[1][1] == "x.gif: is not shown"
    assert taken.remarks == [said, unseen]


def test_a_camera_of_which_a_remark_was_the_last_word_does_not_stay_down_for_ever(capture, monkeypatch):
    monkeypatch.setattr(life, "UNSEEN_S", 0.3)
    taken = capture(device(), lambda settings: Script(Remark(text="x.gif: is not shown", unseen=True)))
    taken.wait_for_state(UP, 3)
    assert states(taken) == [DOWN, UP]


def test_a_picture_that_settles_is_read_afterwards_and_the_end_does_not_wait_for_it(capture, make_exposure):
    soon = replace(make_exposure(1), ready_ns=time.monotonic_ns() + 300_000_000)
    never = replace(make_exposure(2), ready_ns=time.monotonic_ns() + 50 * 10**9)
    taken = capture(device(), lambda settings: Script(soon, never))
    taken.wait(lambda taken: len(taken.pictures) == 1)
    assert taken.taken_ns[0] >= soon.ready_ns
    assert taken.stop() < 0.5


def test_reading_gets_the_time_that_is_left_and_what_cannot_be_read_is_a_faulty_picture(capture, make_exposure):
    allowed = []

    def stuck(timeout_s: float) -> Pixels:
        allowed.append(timeout_s)
        raise PictureError("7.png: reading takes too long")

    exposure = replace(make_exposure(1), load=stuck, held=False)
    taken = capture(device(), lambda settings: Script(exposure, Ended()))
    taken.join()
    assert taken.pictures[0].fault == "7.png: reading takes too long"
    assert 50 < allowed[0] < 55, "a tenth of the minute is left for the verdict"


def _opening(go_on: threading.Event) -> Script:
    class Opening(Script):
        def open(self) -> None:
            go_on.wait(10)

    return Opening()


def _pausing(go_on: threading.Event) -> Script:
    return Script(*[CameraError] * 9)


def _reading(go_on: threading.Event) -> Script:
    return Script(lambda: go_on.wait(10) and None)


def _idle(go_on: threading.Event) -> Script:
    return Script()


@pytest.mark.parametrize("kind", [_opening, _pausing, _reading, _idle])
def test_a_stop_ends_it_quickly_whatever_the_driver_does(kind: Callable[[threading.Event], Script], capture):
    go_on = threading.Event()
    taken = capture(device(retry_max_s=30), lambda settings: kind(go_on))
    threading.Event().wait(0.3)
    assert taken.stop() < 0.5
    go_on.set()


def test_leaving_the_loop_ends_the_device(make_exposure, enter):
    script = Script(*[make_exposure(number) for number in range(9)])
    stop = threading.Event()
    reading = life.pictures(device(), stop, lambda *change: None, enter, opener=lambda settings: script)
    next(reading)
    reading.close()
    assert script.closed == 1
