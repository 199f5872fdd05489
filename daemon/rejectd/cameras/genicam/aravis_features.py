"""The features of a camera that Aravis has connected."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam.features import Feature, Kind, Value


class AravisFeatures:
    """The features of a connected camera."""

    def __init__(self, camera: Any, shown: str) -> None:
        self._camera = camera
        self._device = camera.get_device()
        self._shown = shown

    def feature(self, name: str) -> Feature | None:
        """A feature with its range now."""
        node = self._device.get_feature(name)
        try:
            if node is None or not self._device.is_feature_available(name):
                return None
            return self._described(name, node.__class__.__name__.removeprefix("Gc"))
        except glib_error() as error:
            raise CameraError(f"{self._shown}: {name} cannot be read: {error.message}") from None

    def names(self) -> Iterable[str]:
        """All features of the camera's description."""
        genicam = self._device.get_genicam()
        names: list[str] = []
        folders = ["Root"]
        while folders:
            category = genicam.get_node(folders.pop())
            for name in category.get_features() if category is not None else ():
                node = genicam.get_node(name)
                (folders if node.__class__.__name__ == "GcCategory" else names).append(name)
        return names

    def write(self, feature: Feature, value: Value) -> None:
        """Write a value, or execute a command."""
        camera, name = self._camera, feature.name
        try:
            if feature.kind is Kind.COMMAND:
                camera.execute_command(name)
            elif feature.kind is Kind.BOOLEAN:
                camera.set_boolean(name, value)
            elif feature.kind is Kind.INTEGER:
                camera.set_integer(name, value)
            elif feature.kind is Kind.FLOAT:
                camera.set_float(name, value)
            else:
                camera.set_string(name, value)
        except glib_error() as error:
            raise CameraError(
                f"{self._shown}: {name} cannot be set to {value}: {error.message}",
                hint="is it locked by another feature, or does another program control the camera?",
            ) from None

    def _described(self, name: str, node: str) -> Feature:
        camera = self._camera
        if node == "Command":
            return Feature(name=name, kind=Kind.COMMAND)
        if node == "Boolean":
            return Feature(name=name, kind=Kind.BOOLEAN)
        if node == "Enumeration":
            choices = tuple(camera.dup_available_enumerations_as_strings(name))
            return Feature(name=name, kind=Kind.CHOICE, choices=choices)
        if node.startswith(("Integer", "IntConverter", "IntSwissKnife", "MaskedInt", "IntReg")):
            low, high = camera.get_integer_bounds(name)
            step = camera.get_integer_increment(name)
            return Feature(name=name, kind=Kind.INTEGER, low=low, high=high, step=step)
        if node.startswith(("Float", "Converter", "SwissKnife")):
            low, high = camera.get_float_bounds(name)
            return Feature(name=name, kind=Kind.FLOAT, low=_bound(low), high=_bound(high))
        return Feature(name=name, kind=Kind.TEXT)


def _bound(value: float) -> float:
    """A bound; the library says the greatest number where the camera has none."""
    return math.copysign(math.inf, value) if abs(value) > 1e300 else value


def glib_error() -> Any:
    """The error that Aravis raises."""
    from gi.repository import GLib

    return GLib.Error
