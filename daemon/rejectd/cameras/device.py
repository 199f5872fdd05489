"""The thread that owns a driver: opens it, notices exposures, and opens it again after a failure and a pause."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from rejectd.cameras.driver import CameraError, Driver, Ended, Remark
from rejectd.contract.messages import Exposure, Frame

FIRST_PAUSE_S = 0.5
TICK_S = 0.2  # how often a wait looks whether it should end
_WAITING_MOST = 10_000  # exposures whose picture is still to be read; a driver that may not hand over does not read on
_HELD_MOST = 4  # of those, how many may have their pixels in memory


class Crash(Exception):  # noqa: N818 - carries an exception from the device's thread
    """The driver failed with an unexpected error, which is our own mistake."""


Entered: TypeAlias = tuple[Exposure, Frame]
Message: TypeAlias = Entered | Remark | CameraError | Ended | Crash | None


class Device(threading.Thread):
    """Enters each exposure at the instant at which the driver notices it, and hands it over to be read."""

    def __init__(self, driver: Driver, retry_max_s: float, enter: Callable[[Exposure], Frame]) -> None:
        super().__init__(name=f"{threading.current_thread().name}:device", daemon=True)
        self.reopen = threading.Event()
        self._inbox: queue.Queue[Message] = queue.Queue(maxsize=_WAITING_MOST)
        self._room = threading.Semaphore(_HELD_MOST)
        self._closing = threading.Event()
        self._driver = driver
        self._retry_max_s = retry_max_s
        self._enter = enter

    def get(self, timeout_s: float) -> Message:
        """The next message. Raises queue.Empty."""
        message = self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait()
        if isinstance(message, tuple) and message[0].held:
            self._room.release()
        return message

    def end(self) -> None:
        """Ask the thread to end, and wait a little, once. A driver that is stuck in its library is left behind."""
        if not self._closing.is_set():
            self._closing.set()
            self.join(TICK_S)

    def run(self) -> None:
        """Run the thread: open the driver, hand over its exposures, open it again when the link is lost."""
        try:
            self._live()
        except Ended as ended:
            self._say(ended)
        except Exception as error:
            crash = Crash()
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
        """Until the link is lost; says for each exposure whether it is good, as far as the driver knows."""
        while not (self._closing.is_set() or self.reopen.is_set()):
            exposure = self._driver.read(TICK_S)
            if exposure is None or isinstance(exposure, Remark):
                self._say(exposure)
                continue
            frame = self._enter(exposure)
            if exposure.held:
                self._wait_for_room()
            self._say((exposure, frame))
            yield not exposure.fault

    def _wait_for_room(self) -> None:
        while not self._room.acquire(timeout=TICK_S) and not self._closing.is_set():
            continue

    def _say(self, message: Message) -> None:
        """Hand over a message. Exposures from before the end are handed over too, if somebody still takes them."""
        while True:
            try:
                self._inbox.put(message, timeout=TICK_S)
            except queue.Full:
                if self._closing.is_set():
                    return
            else:
                return


def pause_s(attempt: int, retry_max_s: float) -> float:
    """Pause before the next attempt (0 is the first): doubled each time; jitter keeps cameras out of step."""
    longest: float = min(FIRST_PAUSE_S * 2 ** min(attempt, 32), retry_max_s)
    return longest * random.uniform(0.8, 1.0)
