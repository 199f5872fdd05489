"""Work that other threads hand to the record thread, because that thread owns the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Task(Generic[Answer]):
    """Work, and the future by which its result is awaited."""

    work: Callable[[], Answer]
    future: Future[Answer]


def carry_out(task: Task[Any]) -> None:
    """Do the work, unless the thread that asked has given up."""
    if not task.future.set_running_or_notify_cancel():
        return
    try:
        task.future.set_result(task.work())
    except Exception as error:  # whoever asked is told
        task.future.set_exception(error)
