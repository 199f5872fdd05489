"""Basler cameras on the emulator of pylon: names, ranges, formats and numbers; the rest is in test_conformance.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from peers import need_peer

from rejectd.cameras import CameraError, driver
from rejectd.contract.messages import CameraState
from rejectd.contract.settings import PylonCamera


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYLON_CAMEMU", "2")
    if "without" not in request.node.name:
        need_peer(importlib.util.find_spec("pypylon"), "pypylon")


def _settings(**settings: object) -> PylonCamera:
    defaults = {"product": "cell", "camera": "0815-0000", "retry_max_s": 0.5, "frozen_after": 0}
    return PylonCamera.model_validate({**defaults, **settings})


@pytest.mark.parametrize("pixel_format", ["Mono8", "Mono12", "BayerRG8", "BayerGB12", "RGB8Packed", "BGR8Packed"])
def test_a_camera_sends_what_the_settings_ask_for(capture: Callable[..., Any], pixel_format: str) -> None:
    taken = capture(_settings(pixel_format=pixel_format, sensor_region=(16, 8, 320, 200)))
    taken.wait(lambda now: now.good)
    assert taken.good[0].pixels.shape == (200, 320, 3)


def test_frames_are_numbered_from_their_first_on(capture: Callable[..., Any]) -> None:
    taken = capture(_settings())
    taken.wait(lambda now: len(now.pictures) >= 5)
    assert taken.sources[:5] == [f"frame {number}" for number in range(5)]


def test_a_camera_is_found_by_its_full_name_and_one_that_is_not_there_lists_those_that_are(
    capture: Callable[..., Any],
) -> None:
    taken = capture(_settings(camera="Emulation (0815-0001)"))
    taken.wait_for_state(CameraState.UP)
    with pytest.raises(
        CameraError, match="no such camera answers; those that answer have the serial numbers 0815-0000"
    ):
        driver(_settings(camera="22334455")).open()


def test_settings_that_the_camera_does_not_take_name_its_range() -> None:
    camera = driver(_settings(features=("GainRaw=9999",)))
    with pytest.raises(CameraError, match="`features`: GainRaw 9999 is not allowed; the camera takes 192 to 1023"):
        camera.open()
    camera.close()


def test_without_pypylon_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pypylon", None)
    with pytest.raises(CameraError, match=r"pip install 'rejectd\[pylon\]'"):
        driver(_settings()).open()
