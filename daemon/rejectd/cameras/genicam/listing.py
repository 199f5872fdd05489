"""Lists GigE Vision and USB3 Vision cameras that Aravis reaches, and the features of one."""

from __future__ import annotations

from collections.abc import Iterator

from rejectd.cameras.discovery import Reachable
from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam.aravis import AravisLink, library
from rejectd.cameras.genicam.features import Kind
from rejectd.contract.settings import AravisCamera


def discover() -> Iterator[Reachable]:
    """Yield the cameras. Raises CameraError where Aravis is not installed."""
    aravis = library()
    aravis.update_device_list()
    for index in range(aravis.get_n_devices()):
        serial = aravis.get_device_serial_nbr(index) or ""
        address = aravis.get_device_address(index) or ""
        name = serial or address or aravis.get_device_id(index)
        yield Reachable(
            kind="aravis",
            name=name,
            model=f"{aravis.get_device_vendor(index) or ''} {aravis.get_device_model(index) or ''}".strip(),
            serial=serial,
            address=address,
            settings={"camera": name},
            details=lambda name=name: _features(name),  # type: ignore[misc]
        )


def _features(name: str) -> Iterator[str]:
    """Yield the features that the camera offers now, with their ranges. Raises CameraError."""
    link = AravisLink(AravisCamera(product="any", camera=name))
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
