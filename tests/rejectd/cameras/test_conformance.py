"""What every kind of camera does alike, on a peer of each. What a peer cannot show is skipped with the reason."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_kinds import Gige, Kind, kind
from peers import RtspServer

from rejectd.contract.messages import CameraState
from rejectd.contract.settings import AnyCamera

KINDS = ("folder", "video", "v4l2", "aravis", "pylon", "gentl")
ENDS_WITHIN_S = 0.5
STALE_S = 0.5


@pytest.fixture(params=KINDS)
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    def rtsp(codec: str) -> RtspServer:
        server: RtspServer = request.getfixturevalue("rtsp")(codec)
        return server

    with kind(request.param, tmp_path, rtsp) as peer:
        yield peer


@pytest.fixture
def taken(camera: Kind, capture: Callable[..., Any]) -> Callable[[AnyCamera], Any]:
    return lambda settings: capture(settings, camera.opener)


def need(camera: Kind, what: str) -> None:
    if what in camera.lacks:
        pytest.skip(camera.lacks[what])


def test_every_kind_that_can_be_set_is_in_this_suite() -> None:
    assert {option.type for option in typing.get_args(AnyCamera)} == set(KINDS)


def test_pictures_are_whole_and_read_only_and_the_camera_is_up(camera: Kind, taken: Callable[..., Any]) -> None:
    started = taken(camera.settings)
    started.wait(lambda now: len(now.good) >= 5)
    assert started.states[0] == (CameraState.UP, "")
    for picture in started.good:
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3
        assert picture.pixels.shape[2] == 3
        assert picture.pixels.flags.c_contiguous
        assert not picture.pixels.flags.writeable


def test_it_stops_at_once_while_pictures_flow(camera: Kind, taken: Callable[..., Any]) -> None:
    started = taken(camera.settings)
    started.wait(lambda now: now.good)
    assert started.stop() < ENDS_WITHIN_S
    assert started.error is None


def test_a_line_without_parts_is_no_fault_and_stops_at_once(camera: Kind, taken: Callable[..., Any]) -> None:
    need(camera, "idle")
    started = taken(camera.idle)
    started.wait_for_state(CameraState.UP)
    assert started.pictures == []
    assert started.stop() < ENDS_WITHIN_S
    assert [state for state, _ in started.states] == [CameraState.UP]


def test_times_are_true_and_never_run_backwards(camera: Kind, taken: Callable[..., Any]) -> None:
    started = taken(camera.settings)
    started.wait(lambda now: len(now.pictures) >= 20)
    entered = started.pictures[:20]
    captured = [picture.captured_ns for picture in entered]
    assert captured == sorted(captured)
    ages_s = [(taken_ns - at_ns) / 1e9 for taken_ns, at_ns in zip(started.taken_ns, captured, strict=False)]
    assert min(ages_s) >= 0
    assert np.median(ages_s) < STALE_S
    offsets = [picture.captured_unix_ns - picture.captured_ns for picture in entered]
    assert max(offsets) - min(offsets) < 0.2e9


def test_red_is_red_and_blue_is_blue(camera: Kind, taken: Callable[..., Any]) -> None:
    need(camera, "colours")
    started = taken(camera.settings)
    started.wait(lambda now: now.good)
    pixels = started.good[0].pixels
    middle, quarter = pixels.shape[0] // 2, pixels.shape[1] // 4
    left, right = pixels[middle, quarter], pixels[middle, 3 * quarter]
    assert left[0] > 180 > 60 > left[2]
    assert right[2] > 180 > 60 > right[0]


def test_each_frame_that_is_missing_is_an_exposure_with_a_fault(camera: Kind, taken: Callable[..., Any]) -> None:
    need(camera, "gap")
    assert isinstance(camera, Gige)
    started = taken(camera.settings)
    started.wait(lambda now: len(now.pictures) >= 15)
    faults = [place for place, picture in enumerate(started.pictures[:15], 1) if picture.fault]
    assert faults == list(camera.LOST)


def test_a_broken_picture_is_one_fault_and_the_camera_goes_on(camera: Kind, taken: Callable[..., Any]) -> None:
    need(camera, "broken")
    started = taken(camera.settings)
    started.wait(lambda now: len(now.good) >= 3)
    camera.spoil()
    started.wait(lambda now: now.faulty)
    good = len(started.good)
    started.wait(lambda now: len(now.good) >= good + 3)
    assert CameraState.DOWN not in [state for state, _ in started.states]
    assert started.faulty[0].pixels is None


def test_a_camera_that_vanishes_is_down_with_a_hint_and_comes_back(camera: Kind, taken: Callable[..., Any]) -> None:
    need(camera, "return")
    started = taken(camera.settings)
    started.wait(lambda now: now.good)
    camera.vanish()
    started.wait_for_state(CameraState.DOWN, 30)
    assert ";" in started.states[-1][1]
    camera.come_back()
    started.wait_for_state(CameraState.UP, 30)
    good = len(started.good)
    started.wait(lambda now: len(now.good) >= good + 3)


def test_settings_that_the_camera_does_not_take_are_an_error_with_a_hint(
    camera: Kind, taken: Callable[..., Any]
) -> None:
    started = taken(camera.wrong)
    started.wait_for_state(CameraState.DOWN, 30)
    assert ";" in started.states[-1][1]
    assert started.pictures == []


def test_after_a_stall_no_picture_is_taken_for_a_new_one(camera: Kind, taken: Callable[..., Any]) -> None:
    need(camera, "stall")
    started = taken(camera.settings)
    started.wait(lambda now: len(now.good) >= 5)
    camera.freeze()
    stalled = len(started.pictures)
    started.wait_for_state(CameraState.DOWN, 30)
    camera.thaw()
    started.wait_for_state(CameraState.UP, 30)
    good = len(started.good)
    started.wait(lambda now: len(now.good) >= good + 5, 30)
    later = list(zip(started.taken_ns, started.pictures, strict=False))[stalled + 2 :]
    ages_s = [(taken_ns - picture.captured_ns) / 1e9 for taken_ns, picture in later if not picture.fault]
    assert ages_s
    assert max(ages_s) < 2 * STALE_S
