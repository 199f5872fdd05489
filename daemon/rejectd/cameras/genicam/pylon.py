"""Basler cameras, through Basler's own library pylon."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam.features import Feature, Kind, Value
from rejectd.cameras.genicam.link import Buffer
from rejectd.contract.messages import StreamCounts
from rejectd.contract.settings import PylonCamera

_BUFFERS = 16  # pictures on their way
_NO_NUMBER = 2**64 - 1
_NS = 1_000_000_000
_KINDS = {
    "IntegerParameter": Kind.INTEGER,
    "FloatParameter": Kind.FLOAT,
    "BooleanParameter": Kind.BOOLEAN,
    "EnumParameter": Kind.CHOICE,
    "CommandParameter": Kind.COMMAND,
    "StringParameter": Kind.TEXT,
}
_COUNTED = {
    "resent_packets": "Statistic_Resend_Packet_Count",
    "missing_packets": "Statistic_Failed_Packet_Count",
    "underruns": "Statistic_Buffer_Underrun_Count",
    "failures": "Statistic_Failed_Buffer_Count",
}


def bindings() -> tuple[Any, Any]:
    """Pylon and its GenICam. Raises CameraError with how to install it."""
    try:
        from pypylon import genicam, pylon
    except ImportError as error:
        raise CameraError(
            f"cameras of type pylon need pypylon, which is not installed: {error}",
            hint="`pip install 'rejectd[pylon]'`",
        ) from error
    return pylon, genicam


class PylonLink:
    """The way to one camera."""

    first_number = 0

    def __init__(self, settings: PylonCamera) -> None:
        self.shown = f"camera {settings.camera}"
        self._wanted = settings.camera
        self._camera: Any = None
        self._ticks = _NS  # of the camera's clock in a second

    def connect(self) -> PylonFeatures:
        """Take control of the camera. Raises CameraError."""
        self._pylon, genicam = bindings()
        self._error = genicam.GenericException
        try:
            factory = self._pylon.TlFactory.GetInstance()
            info = self._find(factory.EnumerateDevices())
            self._camera = self._pylon.InstantCamera(factory.CreateDevice(info))
            self._camera.Open()
        except self._error as error:
            hint = "does another program have it? Look at its power, its cable and its address"
            raise CameraError(f"{self.shown}: {_first_line(error)}", hint=hint) from None
        self.first_number = 1 if "GigE" in info.GetDeviceClass() else 0
        nodes = self._camera.GetNodeMap()
        frequency = nodes.GetNode("GevTimestampTickFrequency")
        self._ticks = int(frequency.GetValue()) if frequency.IsValid() else _NS
        return PylonFeatures(nodes, self.shown, self._error)

    def start(self) -> None:
        """Start the stream. Raises CameraError."""
        try:
            self._camera.MaxNumBuffer.SetValue(_BUFFERS)
            self._camera.StartGrabbing(self._pylon.GrabStrategy_OneByOne)
        except self._error as error:
            raise CameraError(f"{self.shown}: it does not start: {_first_line(error)}") from None

    def fetch(self, timeout_s: float) -> Buffer | None:
        """The next picture, or what is left of it. Raises CameraError when the camera is gone."""
        try:
            result = self._camera.RetrieveResult(round(timeout_s * 1000), self._pylon.TimeoutHandling_Return)
        except self._error as error:
            raise self._lost(_first_line(error)) from None
        now_ns = time.monotonic_ns()
        if not result.IsValid():
            if self._camera.IsCameraDeviceRemoved():
                raise self._lost("the camera is gone")
            return None
        try:
            return self._taken(result, now_ns)
        finally:
            result.Release()

    def counts(self) -> StreamCounts:
        """What pylon counted, as far as the camera's transport does. Raises CameraError when the camera is gone."""
        counts = {}
        try:
            nodes = self._camera.GetStreamGrabberNodeMap()
            for event, name in _COUNTED.items():
                node = nodes.GetNode(name)
                counts[event] = int(node.GetValue()) if node.IsValid() and node.IsReadable() else 0
        except self._error as error:
            raise self._lost(_first_line(error)) from None
        return StreamCounts(**counts)

    def close(self) -> None:
        """Stop the stream and give control back."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        try:
            camera.StopGrabbing()
            camera.Close()
        except self._error:
            return  # it has gone meanwhile
        finally:
            camera.DestroyDevice()

    def _find(self, cameras: Iterable[Any]) -> Any:
        seen = []
        for info in cameras:
            names = [info.GetSerialNumber(), info.GetUserDefinedName(), info.GetFullName()]
            if info.IsIpAddressAvailable():
                names.append(info.GetIpAddress())
            if self._wanted in names:
                return info
            seen.append(names[0])
        hint = f"those that answer have the serial numbers {', '.join(seen)}" if seen else "no camera answers at all"
        raise CameraError(f"{self.shown}: no such camera answers", hint=hint)

    def _lost(self, cause: str) -> CameraError:
        return CameraError(f"{self.shown}: {cause}", hint="look at its power, its cable and its address")

    def _taken(self, result: Any, now_ns: int) -> Buffer:
        good = bool(result.GrabSucceeded())
        number = int(result.BlockID)
        return Buffer(
            data=bytes(result.GetBuffer()) if good else b"",
            code=int(result.PixelType) & 0xFFFFFFFF if good else 0,
            width=int(result.Width) if good else 0,
            height=int(result.Height) if good else 0,
            padding=int(result.PaddingX) if good else 0,
            number=None if number == _NO_NUMBER else number,
            stamp_ns=int(result.TimeStamp) * _NS // self._ticks,
            arrived_ns=now_ns,
            fault="" if good else f"the picture is not whole: {str(result.ErrorDescription).rstrip('.')}",
        )


class PylonFeatures:
    """The features of a connected camera."""

    def __init__(self, nodes: Any, shown: str, error: Any) -> None:
        self._nodes = nodes
        self._shown = shown
        self._error = error

    def feature(self, name: str) -> Feature | None:
        """A feature with its range now."""
        try:
            return self._described(name)
        except self._error as error:
            raise CameraError(f"{self._shown}: {name} cannot be read: {_first_line(error)}") from None

    def _described(self, name: str) -> Feature | None:
        node = self._nodes.GetNode(name)
        if not node.IsValid() or not (node.IsWritable() or node.IsReadable()):
            return None
        kind = _KINDS.get(type(node).__name__)
        if kind is None:
            return None
        if kind is Kind.CHOICE:
            return Feature(name=name, kind=kind, choices=tuple(node.GetSettableValues()))
        if kind in (Kind.INTEGER, Kind.FLOAT):
            step = node.GetInc() if kind is Kind.INTEGER else 0.0
            return Feature(
                name=name, kind=kind, low=node.GetMin(), high=node.GetMax(), step=step, unit=str(node.GetUnit())
            )
        return Feature(name=name, kind=kind)

    def names(self) -> Iterable[str]:
        """All features of the camera's description."""
        return [node.GetNode().GetName() for node in self._nodes.GetNodes() if type(node).__name__ in _KINDS]

    def write(self, feature: Feature, value: Value) -> None:
        """Write a value, or execute a command."""
        node = self._nodes.GetNode(feature.name)
        try:
            if feature.kind is Kind.COMMAND:
                node.Execute()
            else:
                node.SetValue(value)
        except self._error as error:
            raise CameraError(
                f"{self._shown}: {feature.name} cannot be set to {value}: {_first_line(error)}",
                hint="is it locked by another feature, or does another program control the camera?",
            ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition(" : ")[0].partition("\n")[0].rstrip(".")
