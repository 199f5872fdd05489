"""The entries that wait for the journal. While the disk takes nothing, they are tried again after longer pauses."""

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
    """The entries that go into the journal in one transaction."""

    entries: Entries
    event_ids: Sequence[str]  # of its verdicts
    items: int  # how many items of the recorder's queue these entries came from


class Backlog:
    """The groups that wait for the journal. Owned by the record thread; any thread may read `problem` and `items`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._groups: deque[Group] = deque()
        self._retry_at = 0.0
        self._retry_s = _RETRY_S
        self.items = 0  # how many items wait
        self.unacknowledged = 0  # events that the broker has not acknowledged
        self.problem = ""  # why nothing can be written now

    @property
    def patience_s(self) -> float:
        """How many seconds until the next attempt; 1 if nothing waits."""
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
        """Queue a group."""
        self._groups.append(group)
        self.items += group.items

    def write(self, settle: Callable[[Group], None], *, now: bool = False) -> None:
        """Write each group in a transaction of its own, until the disk does not take one.

        Writes nothing before the pause after a failure is over, unless `now`. `settle(group)` is called after each.
        """
        while (self._groups or self.problem) and (now or time.monotonic() >= self._retry_at):
            group = self._groups[0] if self._groups else None
            if not self._commit(group.entries if group else Entries()):
                return
            if group:
                self._groups.popleft()
                self.items -= group.items
                settle(group)

    def give_up(self) -> list[Group]:
        """Remove and return the groups that have not been written, and never will be."""
        groups = list(self._groups)
        self._groups.clear()
        self.items = 0
        return groups

    def postpone(self, error: OutboxError) -> None:
        """Note that the disk did not take a group, and choose when to try again."""
        if str(error) != self.problem:
            self.problem = str(error)
            log.error("%s", error)
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _RETRY_MAX_S)

    def _commit(self, entries: Entries) -> bool:
        """Write entries. Returns whether they are on disk."""
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
