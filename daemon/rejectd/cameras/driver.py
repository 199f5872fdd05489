"""What a camera driver promises, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rejectd.contract.messages import Exposure, Pixels, RejectdError


class CameraError(RejectdError):
    """The camera cannot be reached, or the link to it is lost. It may come back."""


class NoPictureError(CameraError):
    """The camera works, and has nothing to show yet."""


class Ended(Exception):  # noqa: N818 - the end of a replay is not an error
    """A replay has shown its last picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that a person should know of a camera, and that is no exposure."""

    text: str
    unseen: bool = False  # parts pass that the camera does not show
    rewritten: int = 0  # files that were written again after their part was shown
    missed: int = 0  # pictures that came while nobody looked


class Driver(Protocol):
    """One image source. All calls come from one thread, but not the one that waits for the pictures.

    A driver is opened again after it was closed, as often as its link is lost.
    """

    def open(self) -> None:
        """Reach the camera. Raises CameraError with cause and hint. May block for the camera's own open timeout."""

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """The next exposure, stamped, as soon as it is noticed: a picture that must be read or decoded first is left
        to its `load`. Or something to say. None if nothing came in that time and that is normal, as on an idle line.

        Raises CameraError when the link is lost, Ended at the end of a replay. A driver whose library cannot wait
        for less may block for the camera's own read timeout.
        """

    def close(self) -> None:
        """Let go of the device. May be called twice and without open; never raises."""


def exposure_of(
    pixels: Pixels | None, fault: str, *, captured_ns: int, captured_unix_ns: int, source: str = ""
) -> Exposure:
    """An exposure whose picture the driver has brought along: uint8 (H, W, 3) RGB, or the fault that it has."""
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
