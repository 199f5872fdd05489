"""Cameras whose settings name another camera's pictures: what such a camera is once both settings are put together."""

from __future__ import annotations

from collections.abc import Mapping

from rejectd.contract.camera_settings import RegionCamera
from rejectd.contract.settings import AnyCamera, ListedCamera


def resolved(cameras: Mapping[str, ListedCamera]) -> dict[str, AnyCamera]:
    """Every camera as one with a device: a region has the device of its camera, and all else of its own."""
    return {name: _resolved(camera, cameras) for name, camera in cameras.items()}


def _resolved(camera: ListedCamera, cameras: Mapping[str, ListedCamera]) -> AnyCamera:
    if not isinstance(camera, RegionCamera):
        return camera
    source = cameras[camera.of]
    assert not isinstance(source, RegionCamera), "settings_file has refused a region of a region"
    own = ("product", "deadline_ms", "policy", "region", "image_health", "retry_max_s")
    return source.model_copy(update={name: getattr(camera, name) for name in own})
