"""Reads defect events from the outbox for the publish thread, which must never wait for a disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from rejectd.storage.outbox import OutboxError
from rejectd.storage.outbox_reader import DamagedError, Event, OutboxReader

log = logging.getLogger(__name__)

_PAUSE_S = 5.0  # before an outbox that cannot be read is tried again


class Feed:
    """Reads the outbox in one thread, `run`.

    Any thread may call `ask`, which never blocks. One question is open at most.
    """

    def __init__(
        self,
        path: Path,
        *,
        answer: Callable[[int, list[Event]], None],
        again: Callable[[], None],
        damaged: Callable[[], None],
    ) -> None:
        """`answer(question, events)` gets the events that were read.

        `again()` is called when the outbox can be tried again, `damaged()` when its file seems to be damaged.
        """
        self._path = path
        self._answer = answer
        self._again = again
        self._damaged = damaged
        self._condition = threading.Condition()
        self._question: tuple[int, int, Collection[int], Collection[str]] | None = None
        self._ended = False

    def ask(self, question: int, limit: int, busy: Collection[int], held: Collection[str]) -> None:
        """Have the next events read, except busy ones and those of held topics. Only the newest question counts."""
        with self._condition:
            self._question = question, limit, busy, held
            self._condition.notify_all()

    def run(self) -> None:
        """Run the events thread until `stop`."""
        reader = OutboxReader(self._path)
        trouble = ""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._question or self._ended, timeout=1.0)
                request, self._question = self._question, None
                if self._ended:
                    break
            if request is None:
                continue
            question, limit, busy, held_topics = request
            try:
                events = reader.waiting(limit, busy=busy, held=held_topics)
            except OutboxError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.error("%s", error)
                if isinstance(error, DamagedError):
                    self._damaged()
                self._answer(question, [])
                self._pause()
            else:
                trouble = ""
                self._answer(question, events)
        reader.close()

    def stop(self) -> None:
        """Let `run` end."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def _pause(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._ended, timeout=_PAUSE_S)
        self._again()
