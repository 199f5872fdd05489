"""Peers of the camera tests: a thread that takes pictures, a real RTSP server, a proxy that stalls."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rejectd.cameras import Driver, driver, pictures
from rejectd.cameras.driver import Remark, exposure_of
from rejectd.contract.messages import CameraState, Exposure, Frame, Picture, Pixels, Policy
from rejectd.contract.settings import AnyCamera

ENDS_WITHIN_S = 0.5
DEADLINE_S = 60.0
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin") or "python3"


class Capture:
    """Takes one camera's pictures in a thread, as the pipeline does."""

    def __init__(self, settings: AnyCamera, opener: Callable[[AnyCamera], Driver]) -> None:
        self.pictures: list[Picture] = []
        self.entered: list[Exposure] = []
        self.remarks: list[Remark] = []
        self.deadline_s = DEADLINE_S
        self.taken_ns: list[int] = []
        self.states: list[tuple[CameraState, str]] = []
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(settings, opener), name="camera:test")
        self._thread.start()

    def wait(self, what: Callable[[Capture], bool], timeout_s: float = 15.0) -> None:
        """Wait until something is true of what was captured."""
        with self._changed:
            good = self._changed.wait_for(lambda: what(self) or self.error is not None, timeout_s)
        if self.error is not None:
            raise self.error
        assert good, f"not within {timeout_s} s; states {self.states}, {len(self.pictures)} pictures"

    def wait_for_state(self, state: CameraState, timeout_s: float = 15.0) -> None:
        self.wait(lambda capture: bool(capture.states) and capture.states[-1][0] is state, timeout_s)

    def wait_for_more(self, count: int, timeout_s: float = 15.0) -> None:
        """Wait for so many more pictures."""
        wanted = len(self.pictures) + count
        self.wait(lambda capture: len(capture.pictures) >= wanted, timeout_s)

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout_s: float = 15.0) -> None:
        """Wait until the camera ends by itself."""
        self._thread.join(timeout_s)
        assert self.ended()
        if self.error is not None:
            raise self.error

    def stop(self) -> float:
        """Stop it; returns how long that took."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(10)
        return time.monotonic() - began

    @property
    def good(self) -> list[Picture]:
        return [picture for picture in self.pictures if not picture.fault]

    @property
    def faulty(self) -> list[Picture]:
        return [picture for picture in self.pictures if picture.fault]

    @property
    def sources(self) -> list[str]:
        return [picture.source for picture in self.pictures]

    def _run(self, settings: AnyCamera, opener: Callable[[AnyCamera], Driver]) -> None:
        try:
            for _, picture in pictures(
                settings, self._stop, self._report, self._enter, remark=self._remark, opener=opener
            ):
                with self._changed:
                    self.pictures.append(picture)
                    self.taken_ns.append(time.monotonic_ns())
                    self._changed.notify_all()
        except BaseException as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def _enter(self, exposure: Exposure) -> Frame:
        with self._changed:
            self.entered.append(exposure)
            self._changed.notify_all()
        return frame_of(exposure, self.deadline_s)

    def _remark(self, remark: Remark) -> None:
        with self._changed:
            self.remarks.append(remark)
            self._changed.notify_all()

    def _report(self, state: CameraState, reason: str) -> None:
        with self._changed:
            self.states.append((state, reason))
            self._changed.notify_all()


@pytest.fixture
def capture() -> Iterator[Callable[..., Capture]]:
    """Starts captures; whatever state they are in at the end of the test, they must end quickly."""
    started: list[Capture] = []

    def start(settings: AnyCamera, opener: Callable[[AnyCamera], Driver] = driver) -> Capture:
        started.append(Capture(settings, opener))
        return started[-1]

    yield start
    slow = [took for each in started if (took := each.stop()) > ENDS_WITHIN_S]
    assert not slow, f"a camera took {slow} s to stop"


class Proxy:
    """Stands between a camera and us; while it stalls, it takes everything from the camera and holds it back."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._thread(self._accept)

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)

    def _thread(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                self._thread(self._forward, client, server)
                self._thread(self._hold_back, server, client)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def _hold_back(self, source: socket.socket, sink: socket.socket) -> None:
        held = b""
        source.settimeout(0.02)
        with contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(TimeoutError):
                    data = source.recv(65536)
                    if not data:
                        break
                    held += data
                if held and self._flowing.is_set():
                    sink.sendall(held)
                    held = b""
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Callable[[int], Proxy]]:
    started: list[Proxy] = []

    def start(port: int) -> Proxy:
        started.append(Proxy(port))
        return started[-1]

    yield start
    for each in started:
        each.close()


def exposed_ms(pixels: Pixels) -> int:
    """What the test camera wrote into a picture: monotonic milliseconds of its exposure, 32 bits."""
    cells = pixels[20, 5::10, 0] > 127
    return int("".join("1" if cell else "0" for cell in cells), 2)


def age_ms(picture: Picture, at_ns: int) -> int:
    """The true age of a picture of the test camera at an instant."""
    assert picture.pixels is not None
    return ((at_ns // 1_000_000) - exposed_ms(picture.pixels)) & 0xFFFFFFFF


def red_left_blue_right(pixels: Pixels) -> bool:
    left, right = (pixels[80:160, columns].reshape(-1, 3).mean(axis=0) for columns in (slice(20, 140), slice(180, 300)))
    return bool(left[0] > 180 and left[2] < 60 and right[2] > 180 and right[0] < 60)


@pytest.fixture
def tell_age() -> Callable[[Picture, int], int]:
    return age_ms


@pytest.fixture
def colours_right() -> Callable[[Pixels], bool]:
    return red_left_blue_right


def picture_of(value: int | Pixels, fault: str = "") -> Picture:
    """A picture stamped now."""
    pixels = np.full((24, 32, 3), value, np.uint8) if isinstance(value, int) else value
    now = time.monotonic_ns()
    return Picture(pixels=pixels, captured_ns=now, captured_unix_ns=time.time_ns(), fault=fault)


def exposure_now(value: int | Pixels, fault: str = "") -> Exposure:
    """An exposure stamped now, its picture at hand."""
    picture = picture_of(value, fault)
    return exposure_of(
        picture.pixels, fault, captured_ns=picture.captured_ns, captured_unix_ns=picture.captured_unix_ns
    )


def frame_of(exposure: Exposure, deadline_s: float = DEADLINE_S) -> Frame:
    """A frame as the pipeline makes it."""
    deadline_ns = exposure.captured_ns + round(deadline_s * 1e9)
    return Frame(
        event_id=exposure.source,
        camera="test",
        product="cell",
        seq=1,
        captured_ns=exposure.captured_ns,
        captured_unix_ns=exposure.captured_unix_ns,
        deadline_ns=deadline_ns,
        due_ns=deadline_ns,
        policy=Policy.REJECT,
        source=exposure.source,
    )


@pytest.fixture
def make_picture() -> Callable[..., Picture]:
    return picture_of


@pytest.fixture
def make_exposure() -> Callable[..., Exposure]:
    return exposure_now


@pytest.fixture
def enter() -> Callable[[Exposure], Frame]:
    return frame_of
