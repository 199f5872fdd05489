"""What waits for the journal to take it: tried again, with longer and longer pauses, while the disk takes nothing."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rejectd.storage.outbox import Entries, Outbox, OutboxError

log = logging.getLogger(__name__)

_RETRY_S = 0.5  # after a failed transaction, then twice as long each time
_RETRY_MAX_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What goes into the journal in one transaction."""

    entries: Entries
    event_ids: Sequence[str]  # of its verdicts
    items: int  # how many were handed in


class Backlog:
    """Owned by the record thread; `problem` and `items` may be read by any."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._groups: deque[Group] = deque()
        self._retry_at = 0.0
        self._retry_s = _RETRY_S
        self.items = 0  # that wait
        self.unacknowledged = 0  # events, by the broker
        self.problem = ""  # why nothing can be written now

    @property
    def patience_s(self) -> float:
        """How long until something is to be tried again; a second if nothing is."""
        if not self._groups and not self.problem:
            return 1.0
        return min(1.0, max(0.0, self._retry_at - time.monotonic()))

    def open(self) -> None:
        """Open the journal if that is possible now."""
        try:
            self._outbox.open()
        except OutboxError as error:
            self.postpone(error)
        else:
            self.problem = ""

    def add(self, group: Group) -> None:
        """Have a group wait."""
        self._groups.append(group)
        self.items += group.items

    def write(self, settle: Callable[[Group], None], *, now: bool = False) -> None:
        """A transaction for each group, until the disk does not take one; not before it is time, but `now`."""
        while (self._groups or self.problem) and (now or time.monotonic() >= self._retry_at):
            group = self._groups[0] if self._groups else None
            if not self._commit(group.entries if group else Entries()):
                return
            if group:
                self._groups.popleft()
                self.items -= group.items
                settle(group)

    def give_up(self) -> list[Group]:
        """What has not been written, and never will be."""
        groups = list(self._groups)
        self._groups.clear()
        self.items = 0
        return groups

    def postpone(self, error: OutboxError) -> None:
        """Try again later what the disk did not take now."""
        if str(error) != self.problem:
            self.problem = str(error)
            log.error("%s", error)
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _RETRY_MAX_S)

    def _commit(self, entries: Entries) -> bool:
        """Whether it is on disk."""
        try:
            self._outbox.write(entries)
            self.unacknowledged = self._outbox.waiting()
        except OutboxError as error:
            self.postpone(error)
            return False
        self._retry_s = _RETRY_S
        if self.problem:
            log.info("the journal can be written again")
            self.problem = ""
        return True
