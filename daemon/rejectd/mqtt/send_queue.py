"""What waits for the broker: verdicts until their deadline, the states of cameras, answers to commands.

Of a camera's states the latest counts. But while a camera was down parts have passed unseen, which a gateway must learn
even if the camera was up again before anybody could be told: the last `down` goes out before what came after it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from rejectd.mqtt.exchange import Message

_VERDICTS_WAITING = 10_000
_ANSWERS_WAITING = 64


class Waiting:
    """Any thread may add; the publish thread alone takes."""

    def __init__(self, expired: Callable[[Message], None]) -> None:
        """`expired` is told of each verdict that will never be sent."""
        self._expired = expired
        self._verdicts: deque[Message] = deque()
        self._cameras: dict[str, Message] = {}
        self._changed_cameras: set[str] = set()
        self._downs: dict[str, Message] = {}  # not sent yet, and no longer the latest
        self._answers: deque[Message] = deque(maxlen=_ANSWERS_WAITING)
        self._lock = threading.Lock()  # guards verdicts and cameras

    def add_verdict(self, message: Message) -> None:
        """If far too many wait, the oldest goes."""
        with self._lock:
            self._verdicts.append(message)
            oldest = self._verdicts.popleft() if len(self._verdicts) > _VERDICTS_WAITING else None
        if oldest:
            self._expired(oldest)

    def add_camera(self, camera: str, message: Message) -> None:
        """A camera's latest status takes the place of the one before, but for a `down` that was not sent."""
        with self._lock:
            if message.down:
                self._downs[camera] = message
            self._cameras[camera] = message
            self._changed_cameras.add(camera)

    def add_answer(self, message: Message) -> None:
        """If far too many wait, the oldest goes."""
        self._answers.append(message)

    @property
    def empty(self) -> bool:
        """Whether neither verdicts nor answers wait."""
        return not (self._verdicts or self._answers)

    def say_cameras_again(self) -> None:
        """A broker that has just come back knows nothing of the cameras."""
        with self._lock:
            self._changed_cameras = set(self._cameras)

    def next_verdict(self) -> Message | None:
        """The next verdict that is still of use."""
        while True:
            with self._lock:
                message = self._verdicts.popleft() if self._verdicts else None
            if message is None:
                return None
            if message.verdict and message.verdict.deadline_ns > time.monotonic_ns():
                return message
            self._expired(message)

    def next_other(self) -> Message | None:
        """The next status of a camera, or answer."""
        with self._lock:
            while self._downs:
                camera, message = self._downs.popitem()
                if self._cameras[camera] is not message:
                    self._changed_cameras.add(camera)  # what came since follows
                    return message
            if self._changed_cameras:
                return self._cameras[self._changed_cameras.pop()]
        return self._answers.popleft() if self._answers else None

    def put_back(self, message: Message) -> None:
        """Into its queue again, before what came later."""
        if message.verdict:
            with self._lock:
                self._verdicts.appendleft(message)
        elif message.answer:
            self._answers.appendleft(message)
        else:
            with self._lock:
                camera = message.camera
                if self._cameras.get(camera) is message:
                    self._changed_cameras.add(camera)
                elif message.down:
                    self._downs.setdefault(camera, message)

    def expire(self, now_ns: int) -> None:
        """Give up verdicts whose deadline is over; cameras differ, so that these can be anywhere."""
        with self._lock:
            waiting = list(self._verdicts)
            self._verdicts = deque(
                message for message in waiting if message.verdict and message.verdict.deadline_ns > now_ns
            )
        for message in waiting:
            if message.verdict and message.verdict.deadline_ns <= now_ns:
                self._expired(message)

    def give_up(self) -> None:
        """Nothing is sent any more."""
        for message in self._verdicts:
            self._expired(message)
