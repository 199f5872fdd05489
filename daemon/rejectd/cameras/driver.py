"""The interface of camera drivers, and their errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rejectd.contract.messages import Exposure, Pixels, RejectdError, StreamCounts


class CameraError(RejectdError):
    """The camera cannot be reached, or the link to it is lost. It may come back."""


class NoPictureError(CameraError):
    """The camera works, but has no picture to show yet."""


class Ended(Exception):  # noqa: N818 - the end of a replay is not an error
    """A replay has shown its last picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A remark of a driver for people, beside its exposures."""

    text: str
    unseen: bool = False  # parts pass that the camera does not show
    rewritten: int = 0  # files that were written again after their part was shown
    missed: int = 0  # pictures that came while nobody looked
    stream: StreamCounts | None = None  # what the stream counted since the last remark


class Driver(Protocol):
    """One image source. One thread makes all calls; another thread waits for the pictures.

    Each time the link is lost, the driver is closed and opened again.
    """

    def open(self) -> None:
        """Connect to the camera. Raises CameraError with cause and hint. May block for the camera's open timeout."""

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """The next exposure with its time, as soon as the driver notices it, or a remark. `Exposure.load` reads or
        decodes the picture later. None if nothing came within `timeout_s`, which is normal on an idle line.

        Raises CameraError when the link is lost, Ended at the end of a replay. A driver whose library cannot wait
        for less may block for the camera's own read timeout.
        """

    def close(self) -> None:
        """Close the device. May be called twice and without `open`; never raises."""


def exposure_of(
    pixels: Pixels | None, fault: str, *, captured_ns: int, captured_unix_ns: int, source: str = ""
) -> Exposure:
    """An exposure with the picture that the driver has already, uint8 (H, W, 3) RGB, or with its fault."""
    if pixels is None or fault:
        fault = fault or "the camera delivered no pixels"
        return Exposure(captured_ns=captured_ns, captured_unix_ns=captured_unix_ns, source=source, fault=fault)
    return Exposure(
        captured_ns=captured_ns,
        captured_unix_ns=captured_unix_ns,
        source=source,
        load=lambda _timeout_s: pixels,
        held=True,
    )
