"""Lists the cameras that speak GenICam, by the library that reaches them, and the features of one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rejectd.cameras.discovery import Reachable
from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam import aravis, pylon
from rejectd.cameras.genicam.features import Kind
from rejectd.cameras.genicam.link import link_to
from rejectd.contract.settings import AravisCamera, GenicamCamera, PylonCamera


def through_aravis() -> Iterator[Reachable]:
    """Yield the GigE Vision and USB3 Vision cameras. Raises CameraError where Aravis is not installed."""
    listed = aravis.bindings()
    listed.update_device_list()
    for index in range(listed.get_n_devices()):
        serial = listed.get_device_serial_nbr(index) or ""
        address = listed.get_device_address(index) or ""
        name = serial or address or listed.get_device_id(index)
        yield Reachable(
            kind="aravis",
            name=name,
            model=f"{listed.get_device_vendor(index) or ''} {listed.get_device_model(index) or ''}".strip(),
            serial=serial,
            address=address,
            settings={"camera": name},
            details=partial(_features, AravisCamera(product="any", camera=name)),
        )


def through_pylon() -> Iterator[Reachable]:
    """Yield Basler's cameras. Raises CameraError where pylon is not installed."""
    basler, _ = pylon.bindings()
    for info in basler.TlFactory.GetInstance().EnumerateDevices():
        serial = str(info.GetSerialNumber())
        yield Reachable(
            kind="pylon",
            name=serial,
            model=f"{info.GetVendorName()} {info.GetModelName()}",
            serial=serial,
            address=str(info.GetIpAddress()) if info.IsIpAddressAvailable() else "",
            settings={"camera": serial},
            details=partial(_features, PylonCamera(product="any", camera=serial)),
        )


def _features(settings: GenicamCamera) -> Iterator[str]:
    """Yield the features that the camera offers now, with their ranges. Raises CameraError."""
    link = link_to(settings)
    try:
        features = link.connect()
        for feature_name in sorted(features.names()):
            try:
                feature = features.feature(feature_name)
            except CameraError as error:  # a camera's description may be at fault for one feature
                yield f"{feature_name}: {error}"
                continue
            if feature is not None:
                ranged = feature.kind not in (Kind.COMMAND, Kind.TEXT)
                yield f"{feature.name}: {feature.kind}{f', {feature.range()}' if ranged else ''}"
    finally:
        link.close()
