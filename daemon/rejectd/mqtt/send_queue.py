"""The messages that wait for the broker: verdicts until their deadline, statuses of cameras, answers to commands.

Only the latest status of a camera is sent, with one exception. While a camera was down, parts passed unseen. A gateway
must learn that even if the camera is up again by now, so the last `down` is sent before the status that followed it.
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
    """The queue of messages for the broker. Any thread may add; only the publish thread takes."""

    def __init__(self, expired: Callable[[Message], None]) -> None:
        """`expired` is called with each verdict that will never be sent."""
        self._expired = expired
        self._verdicts: deque[Message] = deque()
        self._cameras: dict[str, Message] = {}
        self._changed_cameras: set[str] = set()
        self._downs: dict[str, Message] = {}  # the last `down` of each camera that was not sent yet
        self._answers: deque[Message] = deque(maxlen=_ANSWERS_WAITING)
        self._lock = threading.Lock()  # guards verdicts and cameras

    def add_verdict(self, message: Message) -> None:
        """Queue a verdict. If too many verdicts wait, the oldest expires."""
        with self._lock:
            self._verdicts.append(message)
            oldest = self._verdicts.popleft() if len(self._verdicts) > _VERDICTS_WAITING else None
        if oldest:
            self._expired(oldest)

    def add_camera(self, camera: str, message: Message) -> None:
        """Queue a camera's status in the place of the one before; a `down` that was not sent yet is kept."""
        with self._lock:
            if message.down:
                self._downs[camera] = message
            self._cameras[camera] = message
            self._changed_cameras.add(camera)

    def add_answer(self, message: Message) -> None:
        """Queue an answer. If too many answers wait, the oldest is dropped."""
        self._answers.append(message)

    @property
    def empty(self) -> bool:
        """Whether neither verdicts nor answers wait."""
        return not (self._verdicts or self._answers)

    def say_cameras_again(self) -> None:
        """Queue the latest status of every camera again: a broker that has just come back may have none of them."""
        with self._lock:
            self._changed_cameras = set(self._cameras)

    def next_verdict(self) -> Message | None:
        """The next verdict whose deadline is still to come; None if there is none."""
        while True:
            with self._lock:
                message = self._verdicts.popleft() if self._verdicts else None
            if message is None:
                return None
            if message.verdict and message.verdict.deadline_ns > time.monotonic_ns():
                return message
            self._expired(message)

    def next_other(self) -> Message | None:
        """The next status of a camera, or the next answer; None if neither waits."""
        with self._lock:
            while self._downs:
                camera, message = self._downs.popitem()
                if self._cameras[camera] is not message:
                    self._changed_cameras.add(camera)  # the status that came since follows
                    return message
            if self._changed_cameras:
                return self._cameras[self._changed_cameras.pop()]
        return self._answers.popleft() if self._answers else None

    def put_back(self, message: Message) -> None:
        """Put a message back into its queue, in front of those that came later."""
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
        """Give up verdicts whose deadline is over: anywhere in the queue, since deadlines differ by camera."""
        with self._lock:
            waiting = list(self._verdicts)
            self._verdicts = deque(
                message for message in waiting if message.verdict and message.verdict.deadline_ns > now_ns
            )
        for message in waiting:
            if message.verdict and message.verdict.deadline_ns <= now_ns:
                self._expired(message)

    def give_up(self) -> None:
        """Give up all verdicts: nothing is sent any more."""
        for message in self._verdicts:
            self._expired(message)
