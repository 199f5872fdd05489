"""The settings of cameras that speak GenICam, by the library that reaches them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rejectd.contract.camera_settings import Camera, Region, freezing
from rejectd.contract.fields import Features, Text, setting


class GenicamCamera(Camera):
    """What every camera that speaks GenICam has, whatever library reaches it."""

    camera: Text = setting(
        "Which camera: its serial number, its address, its user-defined name, or how the library names it.",
        example="192.0.2.20",
    )
    user_set: Text | None = setting(
        "User set of the camera to load before anything else is written, such as Default or UserSet1.", default=None
    )
    pixel_format: Text | None = setting(
        "Pixel format to set, by its PFNC name such as Mono8, BayerRG12p or RGB8. More than 8 bits become"
        " round(value * 255 / highest), as in training; Bayer is interpolated along edges.",
        default=None,
    )
    sensor_region: Region | None = setting(
        "Region that the camera reads out; `region` is cut from its picture afterwards.",
        default=None,
        unit="pixels",
        pattern_help="[x, y, width, height]",
    )
    binning: int | None = setting(
        "Pixels of the sensor in one of the picture, in each direction.", default=None, low=1, high=16
    )
    trigger_source: Text | None = setting(
        "Where the camera gets its trigger, such as Line1; it switches the trigger on. Not given: the trigger stays as"
        " the camera or its user set has it.",
        default=None,
    )
    trigger_activation: Text | None = setting(
        "Edge or level that triggers, such as RisingEdge; as the camera has it if not given.", default=None
    )
    trigger_delay_us: float | None = setting(
        "Time from the trigger to the exposure; as the camera has it if not given.",
        default=None,
        unit="us",
        low=0,
        high=60_000_000,
    )
    exposure_us: float | None = setting(
        "Exposure time; it switches the camera's automatic exposure off.",
        default=None,
        unit="us",
        low=0.1,
        high=60_000_000,
    )
    gain: float | None = setting(
        "Gain in the camera's own unit; it switches its automatic gain off.", default=None, low=-100, high=100_000
    )
    features: Features | None = setting(
        "Any further features of the camera by their GenICam names, written in this order: Name=value, or the name"
        " of a command alone. Each is checked against the camera's own range. White balance is one of them:"
        " [BalanceWhiteAuto=Once].",
        default=None,
        pattern_help="a list such as [BlackLevel=4, LineSelector=Line2, LineMode=Output]",
    )
    frozen_after: int = freezing()


class AravisCamera(GenicamCamera):
    """Pictures from a GigE Vision or USB3 Vision camera, through Aravis."""

    type: ClassVar[str] = "aravis"
    packet_size: int | None = setting(
        "Size of a GigE Vision packet with its headers; every part of the network must carry it. As the camera has it"
        " if not given.",
        default=None,
        unit="bytes",
        low=576,
        high=16_000,
    )
    packet_delay_us: float | None = setting(
        "Pause between two GigE Vision packets, so that cameras which share a link do not collide; as the camera has"
        " it if not given.",
        default=None,
        unit="us",
        low=0,
        high=100_000,
    )


class PylonCamera(GenicamCamera):
    """Pictures from a Basler camera, through Basler's library pylon."""

    type: ClassVar[str] = "pylon"


class GentlCamera(GenicamCamera):
    """Pictures from any camera whose maker has a GenTL producer, through harvesters."""

    type: ClassVar[str] = "gentl"
    producer: Path = setting(
        "The GenTL producer of the camera's maker, a file that ends in .cti.", example="/opt/maker/lib/producer.cti"
    )
