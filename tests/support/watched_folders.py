"""Watched folders for tests: settings, pictures to put there, and clocks that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rejectd.contract.messages import CameraState
from rejectd.contract.settings import FolderCamera, FolderMode


def watching(path: Path, **settings: object) -> FolderCamera:
    return FolderCamera(product="cell", path=path, mode=FolderMode.WATCH, retry_max_s=0.5, **settings)


def started(capture, folder: Path, **settings: object):
    taken = capture(watching(folder, **settings))
    taken.wait_for_state(CameraState.UP)
    return taken


def save(path: Path, value: int = 0) -> Path:
    Image.fromarray(np.full((24, 32, 3), value, np.uint8)).save(path)
    return path
