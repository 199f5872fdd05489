"""Video4Linux devices, through OpenCV."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np

from rejectd.cameras.driver import CameraError, exposure_of
from rejectd.cameras.standstill import Standstill
from rejectd.cameras.streams.arrivals import Arrivals
from rejectd.cameras.streams.freshness import Age
from rejectd.contract.messages import Exposure
from rejectd.contract.settings import V4l2Camera

_SELECT_TIMEOUT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_EARLY_S = 0.5  # an exposure may have begun before the device was opened
_AHEAD_S = 0.05  # drivers reckon stamps from the camera's own clock, and are off by some milliseconds
_RATE_TOLERANCE = 0.02  # drivers answer 29.97 for 30


class Capture(Protocol):
    """The part of cv2.VideoCapture that is used here."""

    def isOpened(self) -> bool:  # noqa: N802 - the name that OpenCV gave it
        """Whether the device is open."""

    def set(self, prop: int, value: float) -> bool:
        """Ask for a property."""

    def get(self, prop: int) -> float:
        """The property that the device gave."""

    def grab(self) -> bool:
        """Wait for the next picture."""

    def retrieve(self) -> tuple[bool, Any]:
        """The picture that came, BGR."""

    def release(self) -> None:
        """Close the device."""


def _device(path: str) -> Capture:
    capture: Capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    return capture


class V4l2:
    """A Video4Linux device.

    The driver's stamp, by the monotonic clock, is the time of capture. So a picture that waited in the driver's queue
    keeps its true time. A driver that stamps by another clock, or not at all, is recognised by stamps that lie in the
    future or before the device was opened. Then waiting bounds the age (arrivals.py), and a picture that may be older
    than 0.5 s is faulty ("stale").

    OpenCV waits for a picture in whole seconds, with one timeout for all devices of the process: the first camera's
    `read_timeout_s`, rounded up. OpenCV reads it when the first device is opened.
    """

    def __init__(self, settings: V4l2Camera, capture: Callable[[str], Capture] = _device) -> None:
        self._settings = settings
        self._new_capture = capture
        self._capture: Capture | None = None
        self._opened_s = 0.0
        self._standstill: Standstill | None = None
        self._arrivals = Arrivals(lambda _: None)

    def open(self) -> None:
        """Open the device and set it up. Raises CameraError, also if it gives other pictures than asked for."""
        path = str(self._settings.device)
        os.environ.setdefault(_SELECT_TIMEOUT, str(math.ceil(self._settings.read_timeout_s)))
        self._look()
        self._opened_s = time.monotonic()
        self._capture = self._new_capture(path)
        if not self._capture.isOpened():
            raise CameraError(
                f"{path}: the device cannot be opened",
                hint="another program may hold it (see `fuser`), or it captures no video (see `v4l2-ctl --all`)",
            )
        self._set_up(self._capture)
        self._standstill = Standstill()
        self._arrivals = Arrivals(self._standstill.began_s)

    def close(self) -> None:
        """Close the device."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
        standstill, self._standstill = self._standstill, None
        if standstill is not None:
            standstill.end()

    def read(self, timeout_s: float) -> Exposure | None:  # noqa: ARG002 - OpenCV waits for `read_timeout_s`
        """The next picture. Raises CameraError if none came in time or the device has gone."""
        assert self._capture is not None
        began_s = time.monotonic()
        try:
            came = self._capture.grab()
            arrived_ns, arrived_unix_ns = time.monotonic_ns(), time.time_ns()
            good, pixels = self._capture.retrieve() if came else (False, None)
        except cv2.error as error:
            raise CameraError(
                f"{self._settings.device}: {error.err}", hint="look at the cable and at `dmesg`"
            ) from None
        if not good or pixels is None:
            self._look()
            raise CameraError(
                f"{self._settings.device}: the device brought no picture after {time.monotonic() - began_s:.1f} s",
                hint="look at the cable and at `dmesg`; with a trigger, raise `read_timeout_s`",
            )
        age = self._age(self._capture, arrived_ns / 1e9, arrived_ns / 1e9 - began_s)
        age_ns = round(age.lag_s * 1e9)
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        return exposure_of(
            # anything else than BGR is handed on as it is, and found to be malformed
            np.ascontiguousarray(pixels[:, :, ::-1]) if colour else pixels,
            age.doubt,
            captured_ns=arrived_ns - age_ns,
            captured_unix_ns=arrived_unix_ns - age_ns,
        )

    def _age(self, capture: Capture, arrived_s: float, waited_s: float) -> Age:
        """The age of a picture: by the driver's stamp if it can be of the monotonic clock, else by the wait for it."""
        by_waiting = self._arrivals.age(None, arrived_s, waited_s)
        stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._opened_s - _EARLY_S <= stamp_s <= arrived_s + _AHEAD_S:
            return Age(max(0.0, arrived_s - stamp_s))
        return by_waiting

    def _look(self) -> None:
        """Raise CameraError for causes that OpenCV does not report: no device, or no permission."""
        device = self._settings.device
        try:
            mode = device.stat().st_mode
        except OSError as error:
            raise CameraError(
                f"{device}: {error.strerror}", hint="is the camera plugged in? See `ls /dev/video*`"
            ) from None
        if not stat.S_ISCHR(mode):
            raise CameraError(f"{device}: is not a device", hint="correct `device`, such as /dev/video0")
        if not os.access(device, os.R_OK | os.W_OK):
            raise CameraError(f"{device}: permission denied", hint="put the service's user into the group `video`")

    def _set_up(self, capture: Capture) -> None:
        settings = self._settings
        if settings.pixel_format is not None:  # first: the sizes and rates on offer depend on it
            capture.set(cv2.CAP_PROP_FOURCC, _fourcc(settings.pixel_format))
        sizes = {cv2.CAP_PROP_FRAME_WIDTH: settings.width, cv2.CAP_PROP_FRAME_HEIGHT: settings.height}
        for prop, value in {**sizes, cv2.CAP_PROP_FPS: settings.rate_hz}.items():
            if value is not None:
                capture.set(prop, value)
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 1)
        refusals = []
        for name, prop, size in (
            ("width", cv2.CAP_PROP_FRAME_WIDTH, settings.width),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
        ):
            if size is not None and (given_size := round(capture.get(prop))) != size:
                refusals.append(f"{name} {given_size} instead of {size}")
        if settings.rate_hz is not None:
            rate_hz = capture.get(cv2.CAP_PROP_FPS)
            if abs(rate_hz - settings.rate_hz) > _RATE_TOLERANCE * settings.rate_hz:
                refusals.append(f"rate_hz {rate_hz:g} instead of {settings.rate_hz:g}")
        if settings.pixel_format is not None:
            code = round(capture.get(cv2.CAP_PROP_FOURCC))
            if code != _fourcc(settings.pixel_format):
                given_format = code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace")
                refusals.append(f"pixel_format {given_format!r} instead of {settings.pixel_format!r}")
        if refusals:
            raise CameraError(
                f"{settings.device}: the device gives {', '.join(refusals)}",
                hint="choose what `v4l2-ctl --list-formats-ext` offers",
            )


def _fourcc(letters: str) -> int:
    return int.from_bytes(letters.encode("ascii"), "little")
