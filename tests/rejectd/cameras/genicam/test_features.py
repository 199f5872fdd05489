"""Settings of a GenICam camera: their order, and what a camera says to values that it does not take."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam.features import Feature, Kind, Value, orders, write_all
from rejectd.contract.settings import AravisCamera, GenicamCamera

FEATURES = (
    Feature(name="ExposureTime", kind=Kind.FLOAT, low=10, high=1e6, unit="us"),
    Feature(name="Gain", kind=Kind.FLOAT, low=0, high=48),
    Feature(name="Width", kind=Kind.INTEGER, low=16, high=1280, step=16),
    Feature(name="Height", kind=Kind.INTEGER, low=16, high=1024, step=1),
    Feature(name="OffsetX", kind=Kind.INTEGER, low=0, high=640, step=8),
    Feature(name="OffsetY", kind=Kind.INTEGER, low=0, high=512, step=1),
    Feature(name="PixelFormat", kind=Kind.CHOICE, choices=("Mono8", "BayerRG12p")),
    Feature(name="UserSetSelector", kind=Kind.CHOICE, choices=("Default", "UserSet1")),
    Feature(name="UserSetLoad", kind=Kind.COMMAND),
    Feature(name="TriggerMode", kind=Kind.CHOICE, choices=("Off", "On")),
    Feature(name="TriggerSource", kind=Kind.CHOICE, choices=("Line1", "Software")),
    Feature(name="TriggerActivation", kind=Kind.CHOICE, choices=("RisingEdge", "FallingEdge")),
    Feature(name="TriggerDelayAbs", kind=Kind.FLOAT, low=0, high=1e6),
    Feature(name="ReverseX", kind=Kind.BOOLEAN),
    Feature(name="DeviceUserID", kind=Kind.TEXT),
    Feature(name="Reg", kind=Kind.INTEGER, low=0, high=math.inf),
)


class Written:
    """A camera that takes notes."""

    def __init__(self, features: Iterable[Feature] = FEATURES) -> None:
        self._features = {feature.name: feature for feature in features}
        self.values: list[tuple[str, Value]] = []

    def feature(self, name: str) -> Feature | None:
        return self._features.get(name)

    def names(self) -> Iterable[str]:
        return self._features

    def write(self, feature: Feature, value: Value) -> None:
        self.values.append((feature.name, value))


def _settings(**settings: object) -> GenicamCamera:
    return AravisCamera.model_validate({"product": "cell", "camera": "A1", **settings})


def _written(**settings: object) -> list[tuple[str, Value]]:
    camera = Written()
    write_all(camera, _settings(**settings), "camera A1")
    return camera.values


def test_a_camera_without_settings_is_left_as_it_is() -> None:
    assert _written() == []
    assert list(orders(_settings())) == []


def test_the_user_set_comes_first_and_the_features_by_name_last_in_their_order() -> None:
    written = _written(
        features=("DeviceUserID=left", "ReverseX = true", "UserSetLoad", "Reg=0x1F"),
        exposure_us=250.0,
        user_set="UserSet1",
        pixel_format="bayerrg12p",
    )
    assert written == [
        ("UserSetSelector", "UserSet1"),
        ("UserSetLoad", None),
        ("PixelFormat", "BayerRG12p"),
        ("ExposureTime", 250.0),
        ("DeviceUserID", "left"),
        ("ReverseX", True),
        ("UserSetLoad", None),
        ("Reg", 31),
    ]


def test_a_region_is_moved_to_the_corner_before_it_is_sized_so_that_every_size_fits() -> None:
    assert _written(sensor_region=(16, 4, 640, 480)) == [
        ("OffsetX", 0),
        ("OffsetY", 0),
        ("Width", 640),
        ("Height", 480),
        ("OffsetX", 16),
        ("OffsetY", 4),
    ]


def test_a_trigger_is_switched_on_with_its_source_edge_and_delay_also_under_the_older_names() -> None:
    assert _written(trigger_source="Line1", trigger_activation="FallingEdge", trigger_delay_us=120.0) == [
        ("TriggerMode", "On"),
        ("TriggerSource", "Line1"),
        ("TriggerActivation", "FallingEdge"),
        ("TriggerDelayAbs", 120.0),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"exposure_us": 5.0},
            "camera A1: `exposure_us`: ExposureTime 5 is not allowed; the camera takes 10 to 1000000 us",
        ),
        ({"gain": 48.5}, "`gain`: Gain 48.5 is not allowed; the camera takes 0 to 48"),
        ({"sensor_region": (0, 0, 650, 480)}, "`sensor_region`: Width 650 is not allowed; .*16 to 1280 in steps of 16"),
        ({"sensor_region": (0, 0, 2000, 480)}, "Width 2000 is not allowed"),
        ({"pixel_format": "Mono12"}, "PixelFormat Mono12 is not allowed; the camera takes one of Mono8, BayerRG12p"),
        ({"trigger_source": "Line7"}, "TriggerSource Line7 is not allowed; the camera takes one of Line1, Software"),
        ({"binning": 2}, "`binning`: the camera has no feature BinningHorizontal"),
        ({"features": ("ExposureTme=3",)}, "`features`: the camera has no feature ExposureTme; it has ExposureTime"),
        ({"features": ("ReverseX=maybe",)}, "ReverseX maybe is not allowed; the camera takes true or false"),
        ({"features": ("UserSetLoad=1",)}, "UserSetLoad 1 is not allowed; write its name alone: it is a command"),
        ({"features": ("Height=12.5",)}, "Height 12.5 is not allowed"),
        ({"features": ("Height=tall",)}, "Height tall is not allowed; the camera takes 16 to 1024"),
        ({"features": ("Gain",)}, "Gain without a value is not allowed"),
        ({"features": ("Gain=nan",)}, "Gain nan is not allowed"),
        ({"features": ("Reg=inf",)}, "Reg inf is not allowed"),
    ],
)
def test_what_the_camera_does_not_take_is_refused_with_what_it_takes(settings: dict[str, object], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        _written(**settings)


def test_automatic_exposure_and_gain_are_switched_off_where_the_camera_has_them() -> None:
    auto = [Feature(name=name, kind=Kind.CHOICE, choices=("Off", "Once")) for name in ("ExposureAuto", "GainAuto")]
    camera = Written([*FEATURES, *auto])
    write_all(camera, _settings(exposure_us=20.0, gain=1.0), "camera A1")
    assert camera.values == [("ExposureAuto", "Off"), ("ExposureTime", 20.0), ("GainAuto", "Off"), ("Gain", 1.0)]
