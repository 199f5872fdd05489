"""GigE Vision through Aravis, on real protocol peers: loss, resend, wraps, lost control, wrong settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from genicam_peers import AravisFake, aravis_fake, need_aravis, viva_camera

from rejectd.cameras import CameraError, driver
from rejectd.cameras.genicam.aravis import AravisLink
from rejectd.contract.messages import CameraState
from rejectd.contract.settings import AravisCamera


def _settings(camera: str, **settings: object) -> AravisCamera:
    return AravisCamera.model_validate({"product": "cell", "camera": camera, "retry_max_s": 0.5, **settings})


def _numbers(captured: Any) -> list[int]:
    """The numbers of the frames in the order in which they were entered."""
    return [int(exposure.source.removeprefix("frame ")) for exposure in captured.entered if exposure.source]


@pytest.fixture
def fake() -> Iterator[AravisFake]:
    with aravis_fake() as camera:
        yield camera


def test_frames_of_a_camera_that_wraps_its_numbers_are_all_there_with_their_times(
    capture: Callable[..., Any], fake: AravisFake
) -> None:
    captured = capture(_settings("127.0.0.1", features=("AcquisitionFrameRate=60",), frozen_after=0))
    captured.wait_for_more(200, 30)
    numbers = _numbers(captured)
    assert 65_535 in numbers
    wrapped = [number if number > 60_000 else number + 65_535 for number in numbers]
    assert wrapped == list(range(wrapped[0], wrapped[0] + len(wrapped)))
    ages_ms = sorted(
        (taken - picture.captured_ns) / 1e6
        for taken, picture in zip(captured.taken_ns, captured.pictures, strict=False)
    )
    assert ages_ms[0] >= 0
    assert ages_ms[len(ages_ms) // 2] < 300
    assert captured.good[0].pixels.shape == (512, 512, 3)


@pytest.mark.parametrize("pixel_format", ["Mono16", "BayerRG8", "RGB8"])
def test_a_camera_sends_what_the_settings_ask_for(
    capture: Callable[..., Any], fake: AravisFake, pixel_format: str
) -> None:
    captured = capture(_settings("127.0.0.1", pixel_format=pixel_format, sensor_region=(0, 0, 640, 480), binning=1))
    captured.wait(lambda now: now.good)
    assert captured.good[0].pixels.shape == (480, 640, 3)


def test_a_camera_is_found_by_its_serial_number(capture: Callable[..., Any], fake: AravisFake) -> None:
    captured = capture(_settings("GV07"))
    captured.wait_for_state(CameraState.UP)


def test_settings_that_the_camera_does_not_take_name_its_range(capture: Callable[..., Any], fake: AravisFake) -> None:
    captured = capture(_settings("127.0.0.1", sensor_region=(0, 0, 640, 40_000)))
    captured.wait_for_state(CameraState.DOWN)
    assert (
        "camera 127.0.0.1: `sensor_region`: Height 40000 is not allowed; the camera takes 1 to 2048"
        in captured.states[-1][1]
    )


def test_every_frame_that_a_camera_sent_is_one_exposure_also_those_that_came_in_part(
    capture: Callable[..., Any],
) -> None:
    with aravis_fake(lost_of_thousand=1):
        captured = capture(_settings("127.0.0.1", features=("AcquisitionFrameRate=60",), frozen_after=0))
        captured.wait(lambda now: len(now.faulty) >= 5 and len(now.good) >= 50 and now.remarks, 30)
    numbers = _numbers(captured)
    nameless = sum(not exposure.source for exposure in captured.entered)  # their first packet was lost
    first, last = (number if number > 60_000 else number + 65_535 for number in (numbers[0], numbers[-1]))
    assert last - first + 1 - len(captured.entered) in range(2)
    assert nameless < 20
    assert any("packets were missing" in picture.fault for picture in captured.faulty)
    assert any(remark.stream and remark.stream.missing_packets for remark in captured.remarks)
    assert not any(remark.unseen for remark in captured.remarks)


@pytest.mark.long
def test_a_camera_that_is_killed_is_down_and_comes_back_with_its_settings_written_again(
    capture: Callable[..., Any], fake: AravisFake
) -> None:
    captured = capture(_settings("127.0.0.1", sensor_region=(0, 0, 320, 240), frozen_after=0))
    captured.wait_for_state(CameraState.UP)
    fake.kill()
    captured.wait_for_state(CameraState.DOWN, 30)
    fake.start()
    captured.wait_for_state(CameraState.UP, 30)
    captured.wait_for_more(5)
    assert captured.good[-1].pixels.shape == (240, 320, 3)


def test_lost_packets_are_asked_for_again_and_a_frame_of_which_nothing_came_is_an_exposure(
    capture: Callable[..., Any],
) -> None:
    lost = [(9, packet) for packet in range(8)]
    with viva_camera(width=64, height=48, fps=30, drop_packets=[(4, 1), (6, 2), *lost]) as camera:
        captured = capture(_settings(camera.address, frozen_after=0))
        captured.wait(lambda now: len(now.pictures) >= 40 and any(remark.stream for remark in now.remarks), 30)
    assert _numbers(captured)[:4] == [1, 2, 3, 4]
    told = captured.remarks[0].stream
    assert told.resent_packets == 2
    faults = [(place, picture.fault) for place, picture in enumerate(captured.pictures, 1) if picture.fault]
    assert [place for place, _ in faults] == [9]
    assert "never arrived" in faults[0][1] or "packets were missing" in faults[0][1]


def test_a_camera_that_takes_control_away_is_opened_again(capture: Callable[..., Any]) -> None:
    with viva_camera(width=64, height=48, fps=20) as camera:
        captured = capture(_settings(camera.address, exposure_us=2500.0, frozen_after=0))
        captured.wait_for_state(CameraState.UP)
        camera.ask("revoke")
        captured.wait_for_state(CameraState.DOWN, 30)
        captured.wait_for_state(CameraState.UP, 30)
    assert "another program controls it" in next(
        reason for state, reason in captured.states if state is CameraState.DOWN
    )


@pytest.mark.long
def test_a_second_master_is_told_that_another_program_has_the_camera(fake: AravisFake) -> None:
    first = driver(_settings("127.0.0.1"))
    first.open()
    second = AravisLink(_settings("127.0.0.1"))
    try:
        with pytest.raises(CameraError, match="another program controls the camera"):
            second.connect()
    finally:
        second.close()
        first.close()


def test_several_cameras_work_side_by_side(capture: Callable[..., Any]) -> None:
    with viva_camera(width=64, height=48, fps=20) as one, viva_camera(width=96, height=64, fps=20) as other:
        both = [capture(_settings(camera.address, frozen_after=0)) for camera in (one, other)]
        for captured in both:
            captured.wait(lambda now: len(now.good) >= 10)
    assert [captured.good[-1].pixels.shape for captured in both] == [(48, 64, 3), (64, 96, 3)]


def test_a_triggered_line_that_stands_still_is_up_and_no_fault(capture: Callable[..., Any]) -> None:
    with viva_camera(width=64, height=48, fps=20) as camera:
        captured = capture(_settings(camera.address, trigger_source="Software"))
        captured.wait_for_state(CameraState.UP)
        assert captured.pictures == []
        took_s = captured.stop()
    assert took_s < 0.5
    assert [state for state, _ in captured.states] == [CameraState.UP]


def test_a_camera_that_is_not_there_says_what_to_look_at(capture: Callable[..., Any]) -> None:
    need_aravis()
    began = time.monotonic()
    captured = capture(_settings("127.0.0.99"))
    captured.wait_for_state(CameraState.DOWN, 30)
    assert time.monotonic() - began < 20
    assert "127.0.0.99" in captured.states[-1][1]
    assert "same subnet" in captured.states[-1][1]


def test_without_aravis_the_error_names_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gi", None)
    with pytest.raises(CameraError, match=r"apt install gir1\.2-aravis-0\.8 .*pip install 'rejectd\[aravis\]'"):
        driver(_settings("127.0.0.1")).open()
