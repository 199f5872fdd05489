"""Cameras of any GenTL producer, on the one that the package genicam brings; the rest is in test_conformance.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import need_peer

from rejectd.cameras import CameraError, driver
from rejectd.cameras.genicam.gentl import GentlLink
from rejectd.contract.settings import GentlCamera


def _settings(**settings: object) -> GentlCamera:
    need_peer(importlib.util.find_spec("harvesters"), "harvesters")
    import genicam

    defaults = {
        "product": "cell",
        "camera": "VikyTL_DEV_red",
        "producer": Path(genicam.__file__).with_name("viky.cti"),
        "retry_max_s": 0.5,
    }
    return GentlCamera.model_validate({**defaults, **settings})


def test_two_cameras_of_one_producer_send_numbered_pictures(capture: Callable[..., Any]) -> None:
    names = ("VikyTL_DEV_red", "VikyTL_DEV_green")
    both = [capture(_settings(camera=name, pixel_format="Mono8")) for name in names]
    for taken in both:
        taken.wait(lambda now: len(now.good) >= 5)
        assert taken.sources[:5] == [f"frame {number}" for number in range(1, 6)]
        assert taken.good[0].pixels.shape == (400, 400, 3)


def test_a_picture_that_harvesters_throws_away_is_a_fault_of_its_own() -> None:
    link = GentlLink(_settings())
    link.connect()
    link._callback().emit()  # what harvesters does when a buffer is incomplete
    buffer = link._in_part(1)
    assert buffer is not None
    assert buffer.fault == "the picture is not whole"
    assert link._in_part(2) is None
    link.close()


def test_a_missing_producer_a_missing_camera_and_a_value_out_of_range_say_what_there_is() -> None:
    with pytest.raises(CameraError, match=r"there is no such producer; install the software of the camera's maker"):
        driver(_settings(producer=Path("/nowhere/x.cti"))).open()
    with pytest.raises(CameraError, match="no such camera answers; those that answer are VikyTL_DEV_red"):
        driver(_settings(camera="purple")).open()
    camera = driver(_settings(features=("AcquisitionFrameRate=1e9",)))
    with pytest.raises(CameraError, match="AcquisitionFrameRate 1e9 is not allowed; the camera takes"):
        camera.open()
    camera.close()


def test_without_harvesters_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "harvesters", None)
    monkeypatch.setitem(__import__("sys").modules, "genicam", None)
    settings = GentlCamera.model_validate({"product": "cell", "camera": "x", "producer": Path("/x.cti")})
    with pytest.raises(CameraError, match=r"pip install 'rejectd\[gentl\]'"):
        driver(settings).open()
