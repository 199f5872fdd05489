"""The whole life of one camera: open, read, check, report, lose, come back.

Two threads take part. The device's thread, started here, is the only one that touches the driver: it opens, reads and
waits between attempts, so a library call that hangs holds up nobody else. The caller's thread takes the pictures from a
short queue, checks them and reports. Whatever the device does, `pictures` ends within half a second after `stop`.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from rejectd.cameras.address import is_stream
from rejectd.cameras.check import FROZEN, Check
from rejectd.cameras.contract import CameraError, Driver, Ended
from rejectd.messages import CameraState, Picture
from rejectd.settings import AnyCamera, FolderCamera, V4l2Camera, VideoCamera

FIRST_PAUSE_S = 0.5
TICK_S = 0.2  # how often a wait looks whether it should end
REOPEN_FROZEN_S = 60.0  # a camera whose encoder hangs often comes back with a new connection
SILENCE_S = 10.0  # beyond the camera's own timeouts: the driver hangs
USELESS_IN_A_ROW = 3  # one broken file does not make a camera degraded
_AHEAD = 4  # pictures that wait between the threads; a driver that may not hand over does not read on


class _Crash(Exception):  # noqa: N818 - carries an exception from the device's thread
    """The driver failed in a way that it should not: our own mistake."""


_Message: TypeAlias = Picture | CameraError | Ended | _Crash | None


def driver(settings: AnyCamera) -> Driver:
    """The driver for a camera. Libraries are loaded only for the cameras that need them."""
    if isinstance(settings, FolderCamera):
        from rejectd.cameras.folder import folder

        return folder(settings)
    if isinstance(settings, VideoCamera):
        from rejectd.cameras.video import video

        return video(settings)
    from rejectd.cameras.v4l2 import V4l2

    return V4l2(settings)


def pictures(
    settings: AnyCamera,
    stop: threading.Event,
    report: Callable[[CameraState, str], None],
    *,
    opener: Callable[[AnyCamera], Driver] = driver,
) -> Iterator[Picture]:
    """Every exposure of one camera until `stop` is set or a replay ends; a lost camera is tried again for ever.

    Pictures are uint8 (h, w, 3) RGB, cut to the region of interest, contiguous and not writeable. An exposure that
    brought nothing usable comes as a Picture with `pixels=None` and its fault. `report` is called in the caller's
    thread, at changes of the state alone: `up` with the first good picture (or when an idle camera answers that there
    is nothing yet), `down` with the cause, `degraded` when pictures come but cannot be judged, `ended`.

    A frozen camera is degraded: its repeats are faulty pictures, and it recovers with the first picture that differs. A
    stream or device that stays frozen for 60 s is opened anew as well, and again after each further 60 s.
    """
    frozen_after = 0 if isinstance(settings, FolderCamera) else settings.frozen_after
    check = Check(settings.region, frozen_after)
    state = _State(report)
    device = _Device(opener(settings), settings.retry_max_s)
    silence_s = SILENCE_S + _own_timeouts_s(settings)
    device.start()
    try:
        heard = asked = time.monotonic()
        while True:
            stopping = stop.is_set()
            if stopping:
                device.end()  # what it has handed over by now was captured and is still shown
            try:
                message = device.inbox.get(timeout=0 if stopping else TICK_S)
            except queue.Empty:
                if stopping:
                    return
                if time.monotonic() - heard > silence_s:
                    state.down(
                        f"the driver has not answered for {silence_s:g} s; unplug the camera or restart the service"
                    )
                continue
            heard = time.monotonic()
            if isinstance(message, _Crash):
                raise message.__cause__ or message
            if isinstance(message, Ended):
                state.change(CameraState.ENDED, str(message))
                return
            if isinstance(message, CameraError):
                state.down(str(message))
            elif message is None:
                state.idle()
            else:
                picture = check(message)
                state.saw(picture)
                if (
                    _reconnects(settings)
                    and min(check.frozen_for_s(picture.captured_ns), heard - asked) > REOPEN_FROZEN_S
                ):
                    device.reopen.set()
                    asked = heard
                yield picture
    finally:
        device.end()


class _State:
    """What the camera is doing; tells about changes."""

    def __init__(self, report: Callable[[CameraState, str], None]) -> None:
        self._report = report
        self._state = CameraState.STARTING
        self._useless = 0

    def change(self, state: CameraState, reason: str = "") -> None:
        if state is not self._state:
            self._state = state
            self._report(state, reason)

    def down(self, reason: str) -> None:
        self._useless = 0
        self.change(CameraState.DOWN, reason)

    def idle(self) -> None:
        """The camera answers but has nothing to show: that ends `down`, but says nothing about bad pictures."""
        if self._state is not CameraState.DEGRADED:
            self.change(CameraState.UP)

    def saw(self, picture: Picture) -> None:
        if not picture.fault:
            self._useless = 0
            self.change(CameraState.UP)
            return
        self._useless += 1
        was_up = self._state is CameraState.UP
        if picture.fault.startswith(FROZEN) or not was_up or self._useless >= USELESS_IN_A_ROW:
            self.change(CameraState.DEGRADED, picture.fault)


class _Device(threading.Thread):
    """The thread that owns a driver: opens it, hands its pictures over, opens it again after a pause."""

    def __init__(self, driver: Driver, retry_max_s: float) -> None:
        super().__init__(name=f"{threading.current_thread().name}:device", daemon=True)
        self.inbox: queue.Queue[_Message] = queue.Queue(maxsize=_AHEAD)
        self.reopen = threading.Event()
        self._closing = threading.Event()
        self._driver = driver
        self._retry_max_s = retry_max_s

    def end(self) -> None:
        """Ask it to end, and wait a little, once. A driver stuck in its library is left to its own timeouts."""
        if not self._closing.is_set():
            self._closing.set()
            self.join(TICK_S)

    def run(self) -> None:
        try:
            self._live()
        except Ended as ended:
            self._say(ended)
        except Exception as error:
            crash = _Crash()
            crash.__cause__ = error
            self._say(crash)

    def _live(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            self.reopen.clear()
            opened = time.monotonic()
            try:
                self._driver.open()
                for good in self._hand_over():
                    attempt = 0 if good else attempt
                continue  # asked to open it anew, or to end
            except CameraError as error:
                self._say(error)
            finally:
                self._driver.close()
            if time.monotonic() - opened > self._retry_max_s:
                attempt = 0  # a quiet link that held for so long was a good one
            self._closing.wait(pause_s(attempt, self._retry_max_s))
            attempt += 1

    def _hand_over(self) -> Iterator[bool]:
        """Until the link is lost; says for each picture whether it is good."""
        while not (self._closing.is_set() or self.reopen.is_set()):
            picture = self._driver.read(TICK_S)
            self._say(picture)
            if picture is not None:
                yield picture.pixels is not None and not picture.fault

    def _say(self, message: _Message) -> None:
        """Hand over; what was captured before the end is handed over too, if somebody still takes it."""
        while True:
            try:
                self.inbox.put(message, timeout=TICK_S)
            except queue.Full:
                if self._closing.is_set():
                    return
            else:
                return


def pause_s(attempt: int, retry_max_s: float) -> float:
    """Pause before the next attempt (0 is the first): doubled each time; jitter keeps cameras out of step."""
    longest: float = min(FIRST_PAUSE_S * 2 ** min(attempt, 32), retry_max_s)
    return longest * random.uniform(0.8, 1.0)


def _own_timeouts_s(settings: AnyCamera) -> float:
    if isinstance(settings, VideoCamera):
        return settings.open_timeout_s + settings.read_timeout_s
    return settings.read_timeout_s if isinstance(settings, V4l2Camera) else 0.0


def _reconnects(settings: AnyCamera) -> bool:
    """Whether a new connection can wake a frozen camera; a file would only start again."""
    return isinstance(settings, V4l2Camera) or (isinstance(settings, VideoCamera) and is_stream(settings.url))
