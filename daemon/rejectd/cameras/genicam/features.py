"""What to write into a GenICam camera, and whether the camera takes it.

Names of features are those of the Standard Features Naming Convention (SFNC), with the older names that cameras from
before its version 2 have. The camera itself says what it takes: each value is checked against its range before it is
written, and the error names that range.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from rejectd.cameras.driver import CameraError
from rejectd.contract.settings import GenicamCamera

Value: TypeAlias = int | float | bool | str | None  # None: a command

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Kind(StrEnum):
    """What kind of value a feature has."""

    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    TEXT = "text"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A feature as the camera describes it at the moment: ranges depend on other features."""

    name: str
    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    step: float = 0.0
    choices: tuple[str, ...] = ()
    unit: str = ""

    def range(self) -> str:
        """The allowed values in words."""
        if self.kind is Kind.CHOICE:
            return f"one of {', '.join(self.choices)}"
        if self.kind is Kind.BOOLEAN:
            return "true or false"
        steps = f" in steps of {self.step:g}" if self.step > 1 and self.kind is Kind.INTEGER else ""
        return f"{self.low:.10g} to {self.high:.10g}{f' {self.unit}' if self.unit else ''}{steps}"


class Features(Protocol):
    """The features of a connected camera."""

    def feature(self, name: str) -> Feature | None:
        """A feature; None if the camera has none of this name, or does not offer it now."""

    def names(self) -> Iterable[str]:
        """The names of all features, for a hint."""

    def write(self, feature: Feature, value: Value) -> None:
        """Write a value, or execute a command. Raises CameraError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A value to write into the first of several features that the camera has."""

    names: tuple[str, ...]
    value: str  # as a person writes it; empty for a command
    setting: str  # that asked for it
    optional: bool = False  # a camera without the feature needs no such order


def orders(settings: GenicamCamera) -> Iterator[Order]:
    """What the settings ask for, in the order in which cameras need it: later ranges depend on earlier values."""
    if settings.user_set is not None:
        yield _order("user_set", settings.user_set, "UserSetSelector")
        yield _order("user_set", "", "UserSetLoad")
    if settings.pixel_format is not None:
        yield _order("pixel_format", settings.pixel_format, "PixelFormat")
    if settings.binning is not None:
        yield _order("binning", settings.binning, "BinningHorizontal")
        yield _order("binning", settings.binning, "BinningVertical")
    if settings.sensor_region is not None:
        x, y, width, height = settings.sensor_region
        for name, value in (("OffsetX", 0), ("OffsetY", 0), ("Width", width), ("Height", height)):
            yield _order("sensor_region", value, name, optional=name.startswith("Offset"))
        for name, value in (("OffsetX", x), ("OffsetY", y)):
            yield _order("sensor_region", value, name, optional=value == 0)
    yield from _trigger(settings)
    if settings.exposure_us is not None:
        yield _order("exposure_us", "Off", "ExposureAuto", optional=True)
        yield _order("exposure_us", settings.exposure_us, "ExposureTime", "ExposureTimeAbs")
    if settings.gain is not None:
        yield _order("gain", "Off", "GainAuto", optional=True)
        yield _order("gain", settings.gain, "Gain", "GainAbs", "GainRaw")
    for line in settings.features or ():
        name, _, text = line.partition("=")
        yield _order("features", text.strip(), name.strip())


def _trigger(settings: GenicamCamera) -> Iterator[Order]:
    if settings.trigger_source is None:
        return
    yield _order("trigger_source", "FrameStart", "TriggerSelector", optional=True)
    yield _order("trigger_source", "On", "TriggerMode")
    yield _order("trigger_source", settings.trigger_source, "TriggerSource")
    if settings.trigger_activation is not None:
        yield _order("trigger_activation", settings.trigger_activation, "TriggerActivation")
    if settings.trigger_delay_us is not None:
        yield _order("trigger_delay_us", settings.trigger_delay_us, "TriggerDelay", "TriggerDelayAbs")


def _order(setting: str, value: float | str, *names: str, optional: bool = False) -> Order:
    text = value if isinstance(value, str) else f"{value:.12g}"
    return Order(names=names, value=text, setting=setting, optional=optional)


def write_all(camera: Features, settings: GenicamCamera, shown: str) -> None:
    """Write everything that the settings ask for. Raises CameraError at the first that the camera does not take.

    `shown` names the camera in errors.
    """
    for order in orders(settings):
        feature = next((there for name in order.names if (there := camera.feature(name))), None)
        if feature is None:
            if order.optional:
                continue
            close = difflib.get_close_matches(order.names[0], list(camera.names()), n=3)
            hint = f"it has {', '.join(close)}" if close else "look at its manual, or remove the setting"
            raise CameraError(f"{shown}: `{order.setting}`: the camera has no feature {order.names[0]}", hint=hint)
        camera.write(feature, value_of(feature, order, shown))


def value_of(feature: Feature, order: Order, shown: str) -> Value:
    """The value of an order in the kind of the feature. Raises CameraError with what the camera takes."""
    text = order.value
    if feature.kind is Kind.COMMAND:
        if text:
            raise _refused(feature, order, shown, "write its name alone: it is a command")
        return None
    if feature.kind is Kind.TEXT:
        return text
    value = _parsed(feature, text)
    if value is None:
        raise _refused(feature, order, shown, f"the camera takes {feature.range()}")
    return value


def _parsed(feature: Feature, text: str) -> Value:
    """The value that a text means; None if the feature does not take it."""
    if feature.kind is Kind.CHOICE:
        return next((choice for choice in feature.choices if choice.lower() == text.lower()), None)
    if feature.kind is Kind.BOOLEAN:
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None
    number = _whole(text) if feature.kind is Kind.INTEGER else _real(text)
    if number is None or not feature.low <= number <= feature.high:
        return None
    off_step = feature.kind is Kind.INTEGER and feature.step > 1 and (number - feature.low) % feature.step
    return None if off_step else number


def _whole(text: str) -> int | None:
    """A whole number of up to 64 bits, decimal or with 0x; 4.0 is one too."""
    try:
        return int(text, 0)
    except ValueError:
        number = _real(text)
        return int(number) if number is not None and number.is_integer() else None


def _real(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _refused(feature: Feature, order: Order, shown: str, hint: str) -> CameraError:
    return CameraError(
        f"{shown}: `{order.setting}`: {feature.name} {order.value or 'without a value'} is not allowed", hint=hint
    )
