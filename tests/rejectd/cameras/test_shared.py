"""rejectd.cameras.shared: each exposure of a device that shows several parts is a frame of each region, read once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rejectd.cameras import CameraError, Ended, Remark
from rejectd.cameras.shared import Shared
from rejectd.contract import regions
from rejectd.contract.messages import Exposure, PictureError, Pixels, Policy
from rejectd.contract.settings import FolderCamera, Numbering, RegionCamera

TOP = FolderCamera(product="cell", path=Path("x"), trigger=Numbering.NAME, region=(0, 0, 10, 10), deadline_ms=500)
SIDE = RegionCamera(
    product="wafer", of="top", region=(20, 0, 10, 10), deadline_ms=300, policy=Policy.STOP, trigger_offset=-1
)
CAMERAS = {"top": TOP, "side": SIDE}


class Device:
    """A driver with a script: exposures, errors or an end."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.loads = 0

    def open(self) -> None:
        if self.script and isinstance(self.script[0], type):
            raise self.script.pop(0)("unplugged")

    def read(self, timeout_s: float) -> Any:
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        pass

    def load(self, timeout_s: float) -> Pixels:
        self.loads += 1
        return np.zeros((10, 30, 3), np.uint8)


def _exposure(device: Device, trigger: int | None) -> Exposure:
    return Exposure(captured_ns=time.monotonic_ns(), captured_unix_ns=0, trigger=trigger, load=device.load)


def _pair(device: Device) -> tuple[Any, Any]:
    shared = Shared(CAMERAS, lambda settings: device)
    seen = regions.resolved(CAMERAS)
    top, side = (shared.driver(name, seen[name]) for name in CAMERAS)
    side.open()
    return top, side


def test_a_region_has_the_device_of_its_camera_and_all_else_of_its_own() -> None:
    side = regions.resolved(CAMERAS)["side"]
    assert isinstance(side, FolderCamera)
    assert (side.path, side.trigger) == (TOP.path, TOP.trigger)
    assert (side.product, side.region, side.deadline_ms, side.policy) == ("wafer", (20, 0, 10, 10), 300, Policy.STOP)


def test_each_exposure_reaches_every_region_with_its_number_and_is_read_once() -> None:
    device = Device()
    device.script = [_exposure(device, 7), _exposure(device, 8)]
    top, side = _pair(device)
    mine, theirs = [top.read(0), top.read(0)], [side.read(0), side.read(0)]
    assert [exposure.trigger for exposure in mine] == [7, 8]
    assert [exposure.trigger for exposure in theirs] == [6, 7]
    assert mine[0].captured_ns == theirs[0].captured_ns
    assert mine[0].load(1.0) is theirs[0].load(1.0)
    assert device.loads == 1
    assert (top.read(0), side.read(0)) == (None, None)


def test_a_lost_device_is_told_to_its_regions_which_go_on_with_it() -> None:
    device = Device(CameraError)
    device.script += [CameraError("gone"), _exposure(device, 1)]
    top, side = _pair(device)
    for call in (top.open, lambda: top.read(0)):
        with pytest.raises(CameraError):
            call()
    told = [side.read(0), side.read(0)]
    assert [(remark.text, remark.unseen) for remark in told] == [
        ("camera top: unplugged", True),
        ("camera top: gone", True),
    ]
    top.open()
    assert top.read(0).trigger == 1
    assert side.read(0).trigger == 0


def test_the_end_of_a_replay_is_the_end_of_its_regions() -> None:
    top, side = _pair(Device(Ended("over")))
    for driver in (top, side):
        with pytest.raises(Ended, match="over"):
            driver.read(0)


def test_exposures_that_a_region_does_not_take_are_parts_that_pass_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    device.script = [_exposure(device, number) for number in range(20)]
    top, side = _pair(device)
    side.close()  # its thread does not read
    for _ in range(20):
        assert top.read(0) is not None
    side.open()
    remark = side.read(0)
    assert isinstance(remark, Remark)
    assert (remark.unseen, remark.missed) == (True, 4)
    assert [side.read(0).trigger for _ in range(16)] == [0, *range(15)]


def test_a_picture_that_takes_too_long_holds_up_no_other_region_beyond_its_time() -> None:
    device, goes_on = Device(), threading.Event()

    def slow(timeout_s: float) -> Pixels:
        assert goes_on.wait(20)
        return np.zeros((10, 30, 3), np.uint8)

    device.script = [Exposure(captured_ns=0, captured_unix_ns=0, trigger=1, load=slow)]
    top, side = _pair(device)
    mine, theirs = top.read(0), side.read(0)
    reading = threading.Thread(target=lambda: mine.load(20))
    reading.start()
    try:
        for _ in range(200):
            if mine.load._loading.locked():
                break
            time.sleep(0.01)
        with pytest.raises(PictureError, match="still being read"):
            theirs.load(0.05)
    finally:
        goes_on.set()
        reading.join()
