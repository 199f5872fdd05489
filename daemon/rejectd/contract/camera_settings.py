"""The settings of a camera, by its type."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from rejectd.contract.fields import NAME, Amount, Group, Name, Text, setting
from rejectd.contract.messages import Policy

Region: TypeAlias = tuple[Amount, Amount, Amount, Amount]  # x, y, width, height in pixels


class FolderMode(StrEnum):
    """How a folder camera reads its folder."""

    REPLAY = "replay"
    WATCH = "watch"


class Numbering(StrEnum):
    """Where the trigger number of a picture comes from."""

    COUNT = "count"
    NAME = "name"


class Rewrite(StrEnum):
    """What a file is that is written again after its part was shown."""

    SAME_PART = "same_part"
    NEW_PART = "new_part"


class Transport(StrEnum):
    """How RTSP carries the pictures."""

    TCP = "tcp"
    UDP = "udp"


class TimeStamps(StrEnum):
    """What tells when the pictures of a stream were taken."""

    STREAM = "stream"
    ARRIVAL = "arrival"


def freezing() -> Any:
    """Declare after how many identical pictures a camera counts as frozen; every kind that has a device has this."""
    return setting(
        "This many identical pictures in a row mean a frozen camera; 0 switches the check off.",
        default=25,
        unit="pictures",
        low=0,
        high=100_000,
    )


class Camera(Group):
    """What every camera has."""

    product: str = setting("Name of the product that passes this camera.", example="cell", **NAME)
    deadline_ms: int = setting(
        "Time from exposure until the verdict must be with the broker.", default=1000, unit="ms", low=10, high=600_000
    )
    policy: Policy = setting("What the line should do with an unjudged part.", default=Policy.REJECT)
    region: Region | None = setting(
        "Region of interest; the rest of the picture is cut away.",
        default=None,
        unit="pixels",
        pattern_help="[x, y, width, height]",
    )
    image_health: bool = setting(
        "Answer parts whose picture is black, saturated, without contrast, out of focus or of another shape than the "
        "good pictures of the product's bundle as unjudged (camera_fault), instead of judging them.",
        default=True,
    )
    retry_max_s: float = setting(
        "Longest pause between two attempts to reach a lost camera; the first is 0.5 s.",
        default=30.0,
        unit="s",
        low=0.5,
        high=3600,
    )

    @property
    def numbered(self) -> bool:
        """Whether each picture comes with the trigger number of its part."""
        return False

    @property
    def timed(self) -> bool:
        """Whether the time of a picture is that of the exposure, rather than when a recording is shown."""
        return True


class FolderCamera(Camera):
    """Pictures from a folder: a replay at a given rate, or whatever another program puts there."""

    type: ClassVar[str] = "folder"
    path: Path = setting("The folder.", example="pictures")
    mode: FolderMode = setting(
        "`replay` shows what is there in the order of the names, `watch` waits for new files: each shows one part, "
        "seen when its file was complete. Whoever writes must give each picture a name of its own and write it once, "
        "best under a temporary name that is renamed at the end. An empty file shows no part until it is filled; one "
        "that is not within 10 s is a fault. On a share (NFS, SMB), whose clock is not used, a picture is known to be "
        "whole 1 s after it was written: give the deadline that much more, and mount it with short caches (actimeo=0).",
        default=FolderMode.REPLAY,
    )
    rate_hz: float | None = setting(
        "Pictures in a second of a replay; 10 if not given.", default=None, unit="Hz", low=0.01, high=1000
    )
    loop: bool = setting("Start a replay again at its end.", default=False)
    trigger: Numbering = setting(
        "Trigger number of a picture: `count` numbers them since the start, `name` takes the last number of the file's"
        " name.",
        default=Numbering.COUNT,
    )
    max_file_mb: float = setting(
        "Largest picture file that is read; a larger one is a faulty picture. PNG, JPEG, TIFF (not compressed, LZW, "
        "Deflate or PackBits), BMP, WebP, PGM and PPM are taken, with one picture of 8 or 16 bits in a file. "
        "Orientation tags are not followed. A damaged JPEG or PNG is a faulty picture.",
        default=160.0,
        unit="MB",
        low=0.001,
        high=4000,
    )
    max_megapixels: float = setting(
        "Largest picture that is decoded. One of 50 megapixels takes up to a gigabyte of memory and some seconds.",
        default=50.0,
        unit="megapixels",
        low=0.001,
        high=1000,
    )
    bits: int = setting(
        "Bits that count in pictures of 16 bits or more, such as 12 for a 12-bit format, from 8 on; 0: all 16. "
        "It must be what the product was trained with (`revdist train --bits`).",
        default=0,
        low=0,
        high=16,
    )
    subfolders: bool = setting("Watch the folders in the folder as well, also those that come later.", default=False)
    settle_ms: int = setting(
        "With mode watch: a file that is written again within this time after it was closed shows the same part, and "
        "is read after this time. The deadline goes on. Best is a writer that writes each picture under a temporary "
        "name, such as x.tmp, and renames it when it is whole; then 0 is right.",
        default=0,
        unit="ms",
        low=0,
        high=60_000,
    )
    rewrite: Rewrite = setting(
        "With mode watch: what a file is that is written again later. `same_part`: it is counted and not judged, so "
        "each picture needs a name of its own. A name that is written again over 60 s after its part was shown, or "
        "the third in a row, counts as a part that passes unseen: the camera is `down` until a new picture comes, or "
        "for 60 s. `new_part`: the next part, for cameras that always write the same name.",
        default=Rewrite.SAME_PART,
    )

    @property
    def numbered(self) -> bool:
        """Whether the names hold the numbers."""
        return self.trigger is Numbering.NAME

    @property
    def timed(self) -> bool:
        """A replay has times of its own making."""
        return self.mode is FolderMode.WATCH


class RegionCamera(Camera):
    """Another region of another camera's pictures, whose parts have verdicts of their own."""

    type: ClassVar[str] = "region"
    of: Name = setting(
        "Camera whose pictures are looked at. Each of its exposures is a part here too, with a product, deadline, "
        "policy and verdict of its own, under the name of this camera.",
        example="camera1",
        **NAME,
    )
    region: Region = setting(
        "Region of interest in the pictures of that camera.",
        unit="pixels",
        pattern_help="[x, y, width, height]",
        example="[0, 0, 640, 480]",
    )
    trigger_offset: int = setting(
        "What is added to the trigger number of an exposure, to number the part that lies in this region; a number "
        "below 1 becomes 0, not known. Only where the camera's pictures bring numbers.",
        default=0,
        low=-1_000_000,
        high=1_000_000,
    )


class VideoCamera(Camera):
    """Pictures from a video file or an RTSP stream, through PyAV."""

    type: ClassVar[str] = "video"
    url: Text = setting(
        "File, or rtsp:// address without user and password.", example="rtsp://192.0.2.7/stream", relative=True
    )
    transport: Transport = setting("How RTSP carries the pictures.", default=Transport.TCP)
    timestamps: TimeStamps = setting(
        "What tells when a picture was taken: `stream` its own time stamp, so that a picture which queued anywhere is "
        "seen to be stale; `arrival` the instant at which it came, for cameras whose stamps are no clock. With "
        "`arrival` a picture that queued in the camera or on the network is judged as new, and the verdict of a part "
        "comes late by that delay without a word; what queued in this service is still seen. Sources without a clock, "
        "such as MJPEG over HTTP, always work by arrival. A camera that sends MJPEG without Content-Length is refused "
        "with `stream`: each of its pictures is complete only when the next one begins, so that a triggered camera "
        "would be one part behind. With `arrival` it is taken: do not trigger it.",
        default=TimeStamps.STREAM,
    )
    username: Text | None = setting("User of the stream.", default=None)
    password_file: Path | None = setting("File that holds the password of the stream.", default=None)
    open_timeout_s: float = setting("Longest wait for a connection.", default=5.0, unit="s", low=0.1, high=120)
    read_timeout_s: float = setting(
        "Longest wait for the next picture of a stream before it counts as lost.",
        default=2.0,
        unit="s",
        low=0.1,
        high=120,
    )
    frozen_after: int = freezing()
    loop: bool = setting("Start a file again at its end.", default=False)

    @property
    def timed(self) -> bool:
        """A video file has times of its own making."""
        return "://" in self.url and not self.url.startswith("file://")


class V4l2Camera(Camera):
    """Pictures from a Video4Linux device, through OpenCV."""

    type: ClassVar[str] = "v4l2"
    device: Path = setting("The device.", example="/dev/video0")
    width: int | None = setting("Width to ask for.", default=None, unit="pixels", low=16, high=32768)
    height: int | None = setting("Height to ask for.", default=None, unit="pixels", low=16, high=32768)
    rate_hz: float | None = setting("Rate to ask for.", default=None, unit="Hz", low=0.1, high=10_000)
    pixel_format: str | None = setting(
        "Pixel format to ask for.",
        default=None,
        pattern=r"[A-Z0-9]{4}",
        pattern_help="give four capital letters or digits such as MJPG",
    )
    read_timeout_s: float = setting(
        "Longest wait for the next picture before the camera counts as lost.",
        default=5.0,
        unit="s",
        low=0.1,
        high=600,
    )
    frozen_after: int = freezing()
