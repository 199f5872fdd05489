"""Cameras: where exposures come from, how a lost one comes back, and what counts as a usable picture.

`pictures` is one camera's whole life. Drivers: `folder`, `video` (files and RTSP), `v4l2` and
`genicam` (GigE Vision and USB3 Vision).
"""

from rejectd.cameras.driver import CameraError, Driver, Ended, Remark
from rejectd.cameras.life import driver, pictures

__all__ = ["CameraError", "Driver", "Ended", "Remark", "driver", "pictures"]
