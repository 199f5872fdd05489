"""One camera of each kind that can do what the conformance suite asks of it, or says by name what it cannot."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from genicam_peers import VivaCamera, viva_camera
from peers import RtspServer, need_peer

from rejectd.cameras import Driver, driver
from rejectd.cameras.genicam.camera import Genicam
from rejectd.cameras.genicam.pylon import PylonLink
from rejectd.cameras.v4l2 import V4l2
from rejectd.contract.settings import (
    AnyCamera,
    AravisCamera,
    FolderCamera,
    FolderMode,
    GentlCamera,
    PylonCamera,
    V4l2Camera,
    VideoCamera,
)

HEIGHT, WIDTH = 48, 64
RATE_HZ = 20
COMMON: dict[str, Any] = {"product": "cell", "retry_max_s": 0.5}


def painted() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Red to the left, blue to the right, RGB."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2, 0] = 250
    pixels[:, WIDTH // 2 :, 2] = 250
    return pixels


class Kind:
    """A camera that sends pictures. What a kind cannot show is named in `lacks`, with the reason."""

    lacks: ClassVar[dict[str, str]] = {}
    lossy = False

    @property
    def settings(self) -> AnyCamera:
        raise NotImplementedError

    @property
    def wrong(self) -> AnyCamera:
        """Settings that the camera does not take."""
        raise NotImplementedError

    @property
    def idle(self) -> AnyCamera:
        """Settings with which it waits for a trigger that never comes."""
        raise NotImplementedError

    def opener(self, settings: AnyCamera) -> Driver:
        return driver(settings)

    def vanish(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        raise NotImplementedError

    def freeze(self) -> None:
        raise NotImplementedError

    def thaw(self) -> None:
        raise NotImplementedError

    def spoil(self) -> None:
        """Send one picture that is broken."""
        raise NotImplementedError


class Folder(Kind):
    """A watched folder, into which a thread writes."""

    lacks: ClassVar = {
        "gap": "files have no numbers that could be missing",
        "stall": "what stalls is the writer, and a file that comes late is a part that came late",
    }

    def __init__(self, directory: Path) -> None:
        self._path = directory / "pictures"
        self._away = directory / "away"
        self._path.mkdir()
        self._stop = threading.Event()
        self._there = threading.Event()
        self._there.set()
        self._spoil = threading.Event()
        self._thread = threading.Thread(target=self._write, name="writer")
        self._thread.start()

    @property
    def settings(self) -> AnyCamera:
        return FolderCamera(**COMMON, path=self._path, mode=FolderMode.WATCH)

    @property
    def wrong(self) -> AnyCamera:
        return FolderCamera(**COMMON, path=self._path / "nowhere", mode=FolderMode.WATCH)

    @property
    def idle(self) -> AnyCamera:
        (self._path / "empty").mkdir(exist_ok=True)
        return FolderCamera(**COMMON, path=self._path / "empty", mode=FolderMode.WATCH)

    def vanish(self) -> None:
        self._there.clear()
        self._path.rename(self._away)

    def come_back(self) -> None:
        self._away.rename(self._path)
        self._there.set()

    def spoil(self) -> None:
        self._spoil.set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _write(self) -> None:
        whole = cv2.imencode(".png", painted()[..., ::-1])[1].tobytes()
        number = 0
        while not self._stop.wait(1 / RATE_HZ):
            number += 1
            data = whole
            if self._spoil.is_set():
                self._spoil.clear()
                data = whole[: len(whole) // 2]
            with contextlib.suppress(FileNotFoundError):
                if self._there.is_set():
                    temporary = self._path / f"{number:06}.tmp"
                    temporary.write_bytes(data)
                    temporary.rename(self._path / f"{number:06}.png")


class Video(Kind):
    """A real RTSP server."""

    lacks: ClassVar = {
        "idle": "a stream that brings no pictures is lost",
        "gap": "time stamps name no picture that is missing",
        "broken": "a damaged packet costs a picture of the stream, not one that can be told from it",
    }

    def __init__(self, start: Callable[..., RtspServer]) -> None:
        self._server = start("jpeg")

    @property
    def settings(self) -> AnyCamera:
        return VideoCamera(**COMMON, url=self._server.url, read_timeout_s=1.0)

    @property
    def wrong(self) -> AnyCamera:
        return VideoCamera(**COMMON, url=self._server.url + "/nowhere", read_timeout_s=1.0)

    def vanish(self) -> None:
        self._server.kill()

    def come_back(self) -> None:
        self._server.start()

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()


class _Capture:
    """Stands for cv2.VideoCapture: no such device is here."""

    def __init__(self, kind: Device) -> None:
        self._kind = kind
        self._stamp_s = 0.0
        self._asked: dict[int, float] = {}

    def isOpened(self) -> bool:  # noqa: N802
        return self._kind.there

    def set(self, prop: int, value: float) -> bool:
        self._asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        if prop == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self._stamp_s
        return 64.0 if prop == cv2.CAP_PROP_FRAME_WIDTH else self._asked.get(prop, 0.0)

    def grab(self) -> bool:
        time.sleep(1 / RATE_HZ)
        self._stamp_s = time.monotonic()
        return self._kind.there

    def retrieve(self) -> tuple[bool, object]:
        if self._kind.spoiled:
            self._kind.spoiled = False
            return True, np.zeros((0, WIDTH, 3), np.uint8)
        noise = np.random.default_rng().integers(0, 5, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        return True, painted()[..., ::-1] + noise

    def release(self) -> None:
        pass


class Device(Kind):
    """Video4Linux, on a stand-in for OpenCV's capture."""

    lacks: ClassVar = {
        "idle": "OpenCV cannot tell an idle device from a lost one",
        "gap": "OpenCV gives no numbers of frames",
        "stall": "shown on a simulated device in test_v4l2.py",
    }

    def __init__(self) -> None:
        self.there = True
        self.spoiled = False

    @property
    def settings(self) -> AnyCamera:
        return V4l2Camera(**COMMON, device=Path("/dev/null"))

    @property
    def wrong(self) -> AnyCamera:
        return V4l2Camera(**COMMON, device=Path("/dev/null"), width=9000)

    def opener(self, settings: AnyCamera) -> Driver:
        assert isinstance(settings, V4l2Camera)
        return V4l2(settings, lambda _path: _Capture(self))

    def vanish(self) -> None:
        self.there = False

    def come_back(self) -> None:
        self.there = True

    def spoil(self) -> None:
        self.spoiled = True


class Gige(Kind):
    """GigE Vision through Aravis, on viva-genicam's camera. Its fifth frame comes in part, of its eighth nothing."""

    lacks: ClassVar = {"colours": "the camera paints in grey; colours are shown in test_pixel_formats.py"}
    lossy = True
    LOST = (5, 8)

    def __init__(self, camera: VivaCamera) -> None:
        self._camera = camera

    @property
    def settings(self) -> AnyCamera:
        return self._with()

    @property
    def wrong(self) -> AnyCamera:
        return self._with(exposure_us=5_000_000.0)

    @property
    def idle(self) -> AnyCamera:
        return self._with(trigger_source="Software")

    def vanish(self) -> None:
        self._camera.kill()

    def come_back(self) -> None:
        self._camera.start()

    def freeze(self) -> None:
        assert self._camera.process
        self._camera.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._camera.process
        self._camera.process.send_signal(signal.SIGCONT)

    def spoil(self) -> None:
        """One of the first frames is broken already."""

    def _with(self, **settings: object) -> AnyCamera:
        return AravisCamera.model_validate({**COMMON, "camera": self._camera.address, "frozen_after": 0, **settings})


class Pylon(Kind):
    """A Basler camera, on the emulator of Basler's own library."""

    lacks: ClassVar = {
        "gap": "the emulator loses no frames",
        "stall": "the emulator does not stamp its frames, and works in this process",
    }

    def __init__(self, directory: Path) -> None:
        os.environ["PYLON_CAMEMU"] = "2"
        self._picture = directory / "picture.png"
        cv2.imwrite(str(self._picture), painted()[..., ::-1])
        self._link: PylonLink | None = None

    @property
    def settings(self) -> AnyCamera:
        return self._with()

    @property
    def wrong(self) -> AnyCamera:
        return self._with(gain=1000.0)

    @property
    def idle(self) -> AnyCamera:
        return self._with(trigger_source="Software")

    def opener(self, settings: AnyCamera) -> Driver:
        assert isinstance(settings, PylonCamera)
        self._link = PylonLink(settings)
        return Genicam(settings, self._link)

    def vanish(self) -> None:
        self._command("FirePnPCallback")

    def come_back(self) -> None:
        """It is there again as soon as it is opened."""

    def spoil(self) -> None:
        self._command("ForceFailedBuffer")

    def _command(self, name: str) -> None:
        assert self._link
        self._link._camera.GetNodeMap().GetNode(name).Execute()

    def _with(self, **settings: object) -> AnyCamera:
        features = (
            "TestImageSelector=Off",
            f"ImageFilename={self._picture}",
            "ImageFileMode=On",
            "ForceFailedBufferCount=1",
            "AcquisitionFrameRateEnable=true",
            f"AcquisitionFrameRate={RATE_HZ}",
        )
        return PylonCamera.model_validate(
            {
                **COMMON,
                "camera": "0815-0001",
                "frozen_after": 0,
                "pixel_format": "RGB8Packed",
                "sensor_region": (0, 0, WIDTH, HEIGHT),
                "features": features,
                **settings,
            }
        )


class Gentl(Kind):
    """The producer that comes with the package genicam: a bouncing ball."""

    lacks: ClassVar = {
        "gap": "the producer loses no frames",
        "broken": "the producer sends none that are broken",
        "idle": "the producer has no trigger",
        "colours": "the producer paints a ball; colours are shown in test_pixel_formats.py",
        "return": "the producer's cameras cannot be unplugged",
        "stall": "the producer does not stamp its frames, and works in this process",
    }

    @property
    def settings(self) -> AnyCamera:
        return self._with()

    @property
    def wrong(self) -> AnyCamera:
        return self._with(pixel_format="Mono12")

    def _with(self, **settings: object) -> AnyCamera:
        import genicam

        producer = Path(genicam.__file__).with_name("viky.cti")
        camera = {"camera": "VikyTL_DEV_red", "producer": producer, "pixel_format": "RGBa8"}
        return GentlCamera.model_validate({**COMMON, **camera, **settings})


@contextlib.contextmanager
def kind(name: str, directory: Path, rtsp: Callable[..., RtspServer]) -> Iterator[Kind]:
    """A camera of a kind, which ends with the context."""
    if name == "folder":
        with contextlib.closing(Folder(directory)) as folder:
            yield folder
    elif name == "video":
        yield Video(rtsp)
    elif name == "v4l2":
        yield Device()
    elif name == "pylon":
        need_peer(importlib.util.find_spec("pypylon"), "pypylon")
        yield Pylon(directory)
    elif name == "gentl":
        need_peer(importlib.util.find_spec("harvesters"), "harvesters")
        yield Gentl()
    else:
        lost = [(5, 1), *((8, packet) for packet in range(8))]
        options = {"width": WIDTH, "height": HEIGHT, "fps": RATE_HZ, "drop_packets": lost, "packet_resend": False}
        with viva_camera(**options) as camera:
            yield Gige(camera)
