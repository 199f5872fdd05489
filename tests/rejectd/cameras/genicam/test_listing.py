"""rejectd.cameras.genicam.listing: a GigE Vision camera is listed, and shows its features with their ranges."""

from __future__ import annotations

from genicam_peers import aravis_fake, need_aravis
from peers import wait_for


def test_a_camera_is_listed_with_what_the_settings_need_and_with_its_features() -> None:
    need_aravis()
    from rejectd.cameras.genicam import listing

    with aravis_fake():
        wait_for(lambda: [camera for camera in listing.discover() if camera.serial == "GV07"], "the camera answers")
        camera = next(camera for camera in listing.discover() if camera.serial == "GV07")
        assert camera.settings == {"camera": camera.name}
        assert camera.address
        details = list(camera.details())
    assert any(line.startswith("Width: integer, ") for line in details), details[:5]
    assert "AcquisitionStart: command" in details
