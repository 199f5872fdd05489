"""The whole life of one camera: open, notice, read, check, report, lose, come back.

Two threads take part. The device's thread (device.py) is the only one that touches the driver: it opens, waits for
exposures and enters each at once as a frame, so that it has an identity and a deadline before anything is read. The
caller's thread reads the pictures, checks them and reports. Whatever the device does, `pictures` ends within half a
second after `stop`, and a picture that cannot be read in time holds up none but those behind it.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Generator

from rejectd.cameras.address import is_stream
from rejectd.cameras.device import TICK_S, Crash, Device
from rejectd.cameras.driver import CameraError, Driver, Ended, Remark
from rejectd.cameras.picture_check import FROZEN, Check
from rejectd.contract.messages import CameraState, Exposure, Frame, Picture, PictureError, Pixels
from rejectd.contract.settings import AnyCamera, FolderCamera, GenicamCamera, V4l2Camera, VideoCamera

REOPEN_FROZEN_S = 60.0  # a camera whose encoder hangs often comes back with a new connection
SILENCE_S = 10.0  # beyond the camera's own timeouts: the driver hangs
GENICAM_OPEN_S = 10.0  # the longest that a camera which has gone is waited for, to close and to open it
LATE_S = 10.0  # how long an idle camera stays down after an exposure that was noticed after its deadline
UNSEEN_S = 60.0  # and after parts that it does not show: longer than from one part to the next
USELESS_IN_A_ROW = 3  # one broken file does not make a camera degraded
_READING = 0.9  # part of the time left that reading may take: what cannot be read still has its end in time


def driver(settings: AnyCamera, *, since_unix_ns: int | None = None) -> Driver:
    """The driver for a camera. Libraries are loaded only for the cameras that need them.

    `since_unix_ns`: until when the line was inspected before, to tell what came in between.
    """
    if isinstance(settings, FolderCamera):
        from rejectd.cameras.folder import folder

        return folder(settings, since_unix_ns=since_unix_ns)
    if isinstance(settings, VideoCamera):
        from rejectd.cameras.streams.video import video

        return video(settings)
    if isinstance(settings, GenicamCamera):
        from rejectd.cameras.genicam.camera import Genicam
        from rejectd.cameras.genicam.link import link_to

        return Genicam(settings, link_to(settings))
    from rejectd.cameras.v4l2 import V4l2

    return V4l2(settings)


def pictures(
    settings: AnyCamera,
    stop: threading.Event,
    report: Callable[[CameraState, str], None],
    enter: Callable[[Exposure], Frame],
    *,
    remark: Callable[[Remark], None] = lambda _: None,
    opener: Callable[[AnyCamera], Driver] = driver,
    examine: Callable[[Pixels], str] = lambda _: "",
) -> Generator[tuple[Frame, Picture], None, None]:
    """Every frame of one camera with its picture, until `stop` is set or a replay ends; a lost camera is tried again.

    Args:
        settings: of the camera.
        stop: ends it.
        report: told of changes of the state alone: `up` with the first good picture (or when an idle camera answers
            that there is nothing yet), `down` with the cause, also when exposures are noticed after their deadline,
            `degraded` when pictures come but cannot be judged, `ended`. Called by either thread.
        enter: makes a frame of an exposure, in the device's thread, as soon as the exposure is noticed.
        remark: told what the driver has to say beside its exposures.
        opener: makes the driver.
        examine: says why a picture shows nothing that could be judged, such as one that is black; empty if it may.

    Yields:
        Frames in the order of their exposures. Pictures are uint8 (h, w, 3) RGB, cut to the region of interest,
        contiguous and not writeable. An exposure that brought nothing usable, or nothing in time, comes with
        `pixels=None` and its fault. A picture that `examine` refuses keeps its pixels beside its fault, to be shown.

    A frozen camera is degraded: its repeats are faulty pictures, and it recovers with the first picture that differs. A
    stream or device that stays frozen for 60 s is opened anew as well, and again after each further 60 s.
    """
    check = Check(settings.region, 0 if isinstance(settings, FolderCamera) else settings.frozen_after)
    state = _State(report)
    device = Device(
        opener(settings), settings.retry_max_s, lambda exposure: _enter_and_report_late(exposure, enter, state)
    )
    silence_s = SILENCE_S + _own_timeouts_s(settings)
    device.start()
    try:
        heard = reopened_at = time.monotonic()
        while True:
            stopping = stop.is_set()
            if stopping:
                device.end()  # what it has entered by now was captured and is still read
            try:
                message = device.get(0 if stopping else TICK_S)
            except queue.Empty:
                if stopping:
                    return
                if time.monotonic() - heard > silence_s:
                    state.down(
                        f"the driver has not answered for {silence_s:g} s; unplug the camera or restart the service"
                    )
                continue
            heard = time.monotonic()
            if isinstance(message, Crash):
                raise message.__cause__ or message
            if isinstance(message, Ended):
                state.change(CameraState.ENDED, str(message))
                return
            if isinstance(message, tuple):
                exposure, frame = message
                picture = _examined(check(_read(exposure, frame, stop)), examine)
                if frame.due_ns > heard * 1e9:
                    state.saw(picture)
                frozen_s = min(check.frozen_for_s(picture.captured_ns), heard - reopened_at)
                if _reconnects(settings) and frozen_s > REOPEN_FROZEN_S:
                    device.reopen.set()
                    reopened_at = heard
                yield frame, picture
            else:
                _take_note(message, state, remark)
    finally:
        device.end()


def _take_note(message: CameraError | Remark | None, state: _State, remark: Callable[[Remark], None]) -> None:
    """Handle a message of the driver that is no exposure."""
    if isinstance(message, CameraError):
        state.down(str(message))
    elif message is None:
        state.idle()
    else:
        remark(message)
        if message.unseen:
            state.unseen(message.text, UNSEEN_S)


def _enter_and_report_late(exposure: Exposure, enter: Callable[[Exposure], Frame], state: _State) -> Frame:
    """Enter an exposure as a frame. Report it if its deadline is over already, so that its part passed unseen."""
    frame = enter(exposure)
    now_ns = time.monotonic_ns()
    if now_ns >= frame.due_ns:
        state.late((now_ns - exposure.captured_ns) / 1e9, (frame.deadline_ns - exposure.captured_ns) / 1e9)
    return frame


def _read(exposure: Exposure, frame: Frame, stop: threading.Event) -> Picture:
    """The picture of an exposure, if there is one and it can be read in time."""
    pixels, fault = None, exposure.fault
    stop.wait(max(0.0, (min(exposure.ready_ns, frame.due_ns) - time.monotonic_ns()) / 1e9))
    left_s = (frame.due_ns - time.monotonic_ns()) / 1e9
    if not fault and left_s <= 0:
        fault = f"{exposure.source or 'the picture'}: its time was over before it could be read"
    if not fault:
        try:
            pixels = exposure.load(_READING * left_s)
        except PictureError as error:
            fault = str(error)
    return Picture(
        pixels=pixels,
        captured_ns=exposure.captured_ns,
        captured_unix_ns=exposure.captured_unix_ns,
        source=exposure.source,
        fault=fault,
    )


def _examined(picture: Picture, examine: Callable[[Pixels], str]) -> Picture:
    if picture.pixels is None:
        return picture
    fault = examine(picture.pixels)
    return dataclasses.replace(picture, fault=fault) if fault else picture


class _State:
    """The state of the camera; reports its changes. Both threads of a camera change it."""

    def __init__(self, report: Callable[[CameraState, str], None]) -> None:
        self._report = report
        self._lock = threading.RLock()
        self._state = CameraState.STARTING
        self._useless = 0
        self._down_until = 0.0

    def change(self, state: CameraState, reason: str = "") -> None:
        with self._lock:
            if state is not self._state:
                self._state = state
                self._report(state, reason)

    def down(self, reason: str) -> None:
        with self._lock:
            self._useless = 0
            self.change(CameraState.DOWN, reason)

    def late(self, age_s: float, deadline_s: float) -> None:
        """An exposure was noticed after its deadline: a part has passed that nobody was told of."""
        self.unseen(
            f"an exposure was noticed {age_s:.1f} s after it was made, its deadline is {deadline_s:.1f} s; "
            "was this process stopped, is the network or the camera's clock slow? See also `deadline_ms`",
            LATE_S,
        )

    def unseen(self, reason: str, hold_s: float) -> None:
        """Note that a part passed unseen. A good picture ends this state, or some time without another such part."""
        with self._lock:
            self._down_until = time.monotonic() + hold_s
            self.down(reason)

    def idle(self) -> None:
        """The camera answers but has nothing to show: that ends `down`, but says nothing about bad pictures."""
        with self._lock:
            if self._state is not CameraState.DEGRADED and time.monotonic() >= self._down_until:
                self.change(CameraState.UP)

    def saw(self, picture: Picture) -> None:
        with self._lock:
            if not picture.fault:
                self._useless, self._down_until = 0, 0.0
                self.change(CameraState.UP)
                return
            self._useless += 1
            was_up = self._state is CameraState.UP
            if picture.fault.startswith(FROZEN) or not was_up or self._useless >= USELESS_IN_A_ROW:
                self.change(CameraState.DEGRADED, picture.fault)


def _own_timeouts_s(settings: AnyCamera) -> float:
    if isinstance(settings, VideoCamera):
        return settings.open_timeout_s + settings.read_timeout_s
    if isinstance(settings, GenicamCamera):
        return GENICAM_OPEN_S
    return settings.read_timeout_s if isinstance(settings, V4l2Camera) else 0.0


def _reconnects(settings: AnyCamera) -> bool:
    """Whether a new connection can wake a frozen camera; a file would only start again."""
    return isinstance(settings, V4l2Camera | GenicamCamera) or (
        isinstance(settings, VideoCamera) and is_stream(settings.url)
    )
