"""rejectd.cameras.genicam.listing: cameras are listed, and show their features with their ranges."""

from __future__ import annotations

import importlib.util

import pytest
from genicam_peers import aravis_fake, need_aravis
from peers import need_peer, wait_for


def test_a_camera_is_listed_with_what_the_settings_need_and_with_its_features() -> None:
    need_aravis()
    from rejectd.cameras.genicam import listing

    with aravis_fake():
        wait_for(
            lambda: [camera for camera in listing.through_aravis() if camera.serial == "GV07"], "the camera answers"
        )
        camera = next(camera for camera in listing.through_aravis() if camera.serial == "GV07")
        assert camera.settings == {"camera": camera.name}
        assert camera.address
        details = list(camera.details())
    assert any(line.startswith("Width: integer, ") for line in details), details[:5]
    assert "AcquisitionStart: command" in details


def test_baslers_cameras_are_listed_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    need_peer(importlib.util.find_spec("pypylon"), "pypylon")
    from rejectd.cameras.genicam import listing

    monkeypatch.setenv("PYLON_CAMEMU", "2")
    cameras = list(listing.through_pylon())
    assert [camera.settings for camera in cameras] == [{"camera": "0815-0000"}, {"camera": "0815-0001"}]
    details = list(cameras[0].details())
    assert "GainRaw: integer, 192 to 1023" in details
    assert "TriggerMode: choice, one of Off, On" in details
