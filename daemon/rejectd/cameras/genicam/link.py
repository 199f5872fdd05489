"""What the driver of GenICam cameras needs from the library that reaches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rejectd.cameras.genicam.features import Features
from rejectd.contract.messages import StreamCounts
from rejectd.contract.settings import AravisCamera, GenicamCamera, GentlCamera, PylonCamera


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A picture as it came, or what is left of it. The bytes are a copy: the library has its buffer back."""

    data: bytes
    code: int  # of the pixel format, by PFNC
    width: int
    height: int
    padding: int = 0  # bytes after each line
    number: int | None  # that the camera gave the frame; None: it gives none
    stamp_ns: int  # by the camera's clock; 0: it has none
    arrived_ns: int  # by the monotonic clock
    fault: str = ""  # why the picture is not whole


class Link(Protocol):
    """The way to one camera. One thread makes all calls."""

    shown: str  # names the camera in errors
    first_number: int  # the number with which the camera begins to count its frames

    def connect(self) -> Features:
        """Reach the camera, without starting it. Raises CameraError."""

    def start(self) -> None:
        """Start the stream of pictures. Raises CameraError."""

    def fetch(self, timeout_s: float) -> Buffer | None:
        """The next picture; None if none came in time. Raises CameraError when the link is lost."""

    def counts(self) -> StreamCounts:
        """What the stream counted since it was started. Raises CameraError when the link is lost."""

    def close(self) -> None:
        """Stop the stream and let go of the camera. May be called twice; never raises."""


def link_to(settings: GenicamCamera) -> Link:
    """The way to a camera. A library is loaded only when its camera is reached."""
    if isinstance(settings, PylonCamera):
        from rejectd.cameras.genicam.pylon import PylonLink

        return PylonLink(settings)
    if isinstance(settings, GentlCamera):
        from rejectd.cameras.genicam.gentl import GentlLink

        return GentlLink(settings)
    assert isinstance(settings, AravisCamera)
    from rejectd.cameras.genicam.aravis import AravisLink

    return AravisLink(settings)
