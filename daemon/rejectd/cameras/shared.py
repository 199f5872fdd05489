"""One device whose every exposure shows several parts, each in a region of its own.

The camera that has the device hands each exposure to the regions before it enters it itself. Each region enters it as
a frame of its own: with its own deadline, verdict and account. The picture is read once for all.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

from rejectd.cameras.driver import CameraError, Driver, Ended, Remark
from rejectd.contract.camera_settings import RegionCamera
from rejectd.contract.messages import Exposure, PictureError, Pixels
from rejectd.contract.settings import AnyCamera, ListedCamera

_WAITING_MOST = 16  # exposures of a region that its thread has not entered yet; it enters them at once
_FULL_S = 2.0  # how long the device waits for a region's thread before parts pass it unseen

_Message: TypeAlias = Exposure | Remark | Ended


class Shared:
    """Makes the drivers of a line's cameras, of which some may share a device."""

    def __init__(self, cameras: Mapping[str, ListedCamera], opener: Callable[[AnyCamera], Driver]) -> None:
        self._opener = opener
        self._regions = {
            name: _RegionDriver(camera.trigger_offset)
            for name, camera in cameras.items()
            if isinstance(camera, RegionCamera)
        }
        self._of: dict[str, list[_RegionDriver]] = {}
        for name, camera in cameras.items():
            if isinstance(camera, RegionCamera):
                self._of.setdefault(camera.of, []).append(self._regions[name])

    def driver(self, name: str, settings: AnyCamera) -> Driver:
        """The driver of the camera of this name."""
        if name in self._regions:
            return self._regions[name]
        device = self._opener(settings)
        return _Sharing(name, device, self._of[name]) if name in self._of else device


class _RegionDriver:
    """The driver of a region: takes what the device's own camera hands it."""

    def __init__(self, trigger_offset: int) -> None:
        self._offset = trigger_offset
        self._messages: queue.Queue[_Message] = queue.Queue(_WAITING_MOST)
        self._reading = threading.Event()
        self._unseen = 0  # exposures that did not fit; written by the device's thread alone
        self._told = 0

    def open(self) -> None:
        """Begin to take exposures."""
        self._reading.set()

    def close(self) -> None:
        """Take no more."""
        self._reading.clear()

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """The next exposure, numbered as the part in this region; None if there was none in time."""
        missed = self._unseen - self._told
        if missed:
            self._told += missed
            text = f"{missed} exposures of the shared camera were not taken in time: is the processor overloaded?"
            return Remark(text=text, unseen=True, missed=missed)
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(message, Ended):
            raise message
        if isinstance(message, Exposure) and message.trigger is not None:
            return dataclasses.replace(message, trigger=max(0, message.trigger + self._offset))  # 0: nobody knows it
        return message

    def take(self, message: _Message) -> None:
        """Hand over a message; called by the device's thread."""
        try:
            self._messages.put(
                message, timeout=_FULL_S if self._reading.is_set() else None, block=self._reading.is_set()
            )
        except queue.Full:
            self._unseen += isinstance(message, Exposure)


class _Sharing:
    """The driver of a device that hands everything to regions as well."""

    def __init__(self, name: str, device: Driver, regions: list[_RegionDriver]) -> None:
        self._name, self._device, self._regions = name, device, regions
        self._loading = threading.Lock()  # a driver reads one picture at a time

    def open(self) -> None:
        """Open the device."""
        try:
            self._device.open()
        except CameraError as error:
            self._lost(error)
            raise

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """What the device has; regions have it already when this returns."""
        try:
            message = self._device.read(timeout_s)
        except CameraError as error:
            self._lost(error)
            raise
        except Ended as ended:
            self._hand_over(Ended(str(ended)))
            raise
        if isinstance(message, Exposure):
            message = dataclasses.replace(message, load=_Once(message.load, self._loading))
        if message is not None:
            self._hand_over(message)
        return message

    def _lost(self, error: CameraError) -> None:
        """Tell regions, which wait for the device instead of trying it again themselves."""
        self._hand_over(Remark(text=f"camera {self._name}: {error}", unseen=True))

    def _hand_over(self, message: _Message) -> None:
        for region in self._regions:
            region.take(message)


class _Once:
    """Loads a picture for whoever asks first, and gives the same pixels to the others. Safe for several threads."""

    def __init__(self, load: Callable[[float], Pixels], loading: threading.Lock) -> None:
        self._load, self._loading = load, loading
        self._pixels: Pixels | None = None

    def __call__(self, timeout_s: float) -> Pixels:
        """uint8 (H, W, 3) RGB. Raises PictureError, also when another picture of the device is read for too long."""
        if not self._loading.acquire(timeout=max(timeout_s, 0.0)):
            raise PictureError("the picture could not be read in time: another one of the camera was still being read")
        try:
            if self._pixels is None:
                self._pixels = self._load(timeout_s)
            return self._pixels
        finally:
            self._loading.release()
