"""Work that somebody has the record thread do, because it owns the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Task(Generic[Answer]):
    """Work, and who waits for what comes of it."""

    work: Callable[[], Answer]
    future: Future[Answer]


def carry_out(task: Task[Any]) -> None:
    """Do the work, unless whoever asked has given up."""
    if not task.future.set_running_or_notify_cancel():
        return
    try:
        task.future.set_result(task.work())
    except Exception as error:  # whoever asked is told
        task.future.set_exception(error)
