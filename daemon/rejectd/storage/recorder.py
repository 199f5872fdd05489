"""Records verdicts behind the line, never delaying them: journal, evidence, defect events. One thread owns the disk.

The queue is bounded. affordable.py says what is given up first when the disk is too slow. While the journal cannot be
opened or written, the line runs without it. Waiting entries are tried again until the disk takes them, evidence and
tasks go on, and entries without room are counted.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from rejectd.contract.messages import Frame, RejectdError, Verdict
from rejectd.metrics import Metrics
from rejectd.storage.affordable import MOST_RECORDS, MOST_WITH_PASSES, Affordable
from rejectd.storage.backlog import Backlog, Group
from rejectd.storage.defect_events import Defects, Record, is_defect
from rejectd.storage.evidence import Evidence
from rejectd.storage.in_flight_file import Slots
from rejectd.storage.outbox import Body, Change, Delivery, Entries, NewEvent, Outbox, OutboxError, Reading, is_usable
from rejectd.storage.picture_budget import Memory
from rejectd.storage.tasks import Answer, Task, carry_out

log = logging.getLogger(__name__)

_GROUP = 64  # records in one transaction
_GATHER_S = 0.005  # a transaction waits so long, so that a verdict and its acknowledgement share it
_PRUNE_S = 60.0
_LOOK_S = 10.0  # how often the recorder checks that the journal is whole, and whether evidence can be kept again
_HUNG_S = 2.0  # a disk that has not answered for so long is a problem

_Kept: TypeAlias = Record | Delivery | Reading | Change | int  # int: number of an acknowledged event
_Item: TypeAlias = "_Kept | Task[Any] | None"


class Recorder:
    """Writes to the disk in one thread, `run`. Any thread may hand in verdicts and notes, which never blocks."""

    def __init__(
        self,
        line: str,
        *,
        outbox: Outbox,
        evidence: Evidence | None,
        inflight: Slots | None,
        memory: Memory,
        metrics: Metrics,
        more_events: Callable[[], None],
        marked: Callable[[Iterable[int]], None],
    ) -> None:
        """`more_events()` is called when the outbox has new events, `marked(numbers)` when it has marked these."""
        self._outbox = outbox
        self._defects = Defects(line, evidence, metrics)
        self._inflight = inflight
        self._affordable = Affordable(memory, metrics, evidence=evidence is not None)
        self._metrics = metrics
        self._more_events = more_events
        self._marked = marked
        self._items: queue.Queue[_Item] = queue.Queue(maxsize=MOST_RECORDS)
        self._acknowledged: deque[int] = deque()  # numbers of events
        self._backlog = Backlog(outbox)
        self._left: Sequence[Body] = ()  # verdicts that an earlier run left
        self._prune_at = self._look_at = 0.0
        self._busy_since: float | None = None  # since when the disk works on a request; None if it has none
        self._suspect = threading.Event()  # a reader of the journal thinks that it is damaged
        self._ending = threading.Event()
        self.tried = threading.Event()  # set once the recorder has tried to open the journal
        metrics.journal_available.set_function(lambda: self.tried.is_set() and not self.problem and not self._hung)

    @property
    def maps_affordable(self) -> bool:
        """Whether there is time and room for anomaly maps."""
        return self._affordable.maps(self._items.qsize())

    @property
    def problem(self) -> str:
        """Why nothing can be written now; empty if all is well."""
        return self._backlog.problem

    @property
    def problems(self) -> list[str]:
        """What is wrong with the disk or the journal, for people; empty if all is well."""
        problems = [problem for problem in (self.problem, self._defects.problem) if problem]
        if self._hung and not self.problem:
            problems.append("the disk does not answer: journal and evidence wait")
        if self._outbox.aside:
            problems.append(f"the journal was damaged, and set aside as {self._outbox.aside}")
        return problems

    @property
    def _hung(self) -> bool:
        busy_since = self._busy_since
        return busy_since is not None and time.monotonic() - busy_since > _HUNG_S

    def verdict(self, verdict: Verdict, body: Mapping[str, Any], frame: Frame) -> None:
        """Record a verdict, with the evidence of a part that did not pass."""
        waiting = self._items.qsize()
        unwritten = waiting + self._backlog.items
        record = self._affordable.record(verdict, body, frame, waiting=waiting, unwritten=unwritten)
        if record is None:
            self._give_up(verdict)
            return
        try:
            self._items.put_nowait(record)
        except queue.Full:
            self._give_up(verdict)

    def note(self, item: Delivery | Reading | Change | int) -> None:
        """Record an acknowledgement, an actuator's count or a person's change. Without room, counts go first."""
        if isinstance(item, int):
            self._acknowledged.append(item)  # few, for the publisher sends no more until they are marked
        elif self._items.qsize() + self._backlog.items >= MOST_WITH_PASSES and not isinstance(item, Change):
            return
        with contextlib.suppress(queue.Full):
            self._items.put_nowait(item)

    def take_up(self, left: Sequence[Body]) -> None:
        """Take the verdicts that an earlier run left. Call this before `run`."""
        self._left = left

    def suspect(self) -> None:
        """Note that a reader of the journal thinks that it is damaged."""
        self._suspect.set()

    def ask(self, work: Callable[[], Answer], timeout_s: float) -> Answer:
        """Have the record thread do work that needs the disk, and wait for its result.

        Raises:
            RejectdError: if the work raises it, or the disk is too busy.
        """
        task = Task(work, Future())
        try:
            self._items.put_nowait(task)
            return task.future.result(timeout_s)
        except (queue.Full, TimeoutError) as error:
            task.future.cancel()
            raise RejectdError("the disk is too busy", hint="try again later; see the service's log") from error

    def run(self) -> None:
        """Run the record thread until `end`, and until everything that was handed in before is on disk."""
        try:
            self._begin()
            self.tried.set()
            self._live()
        finally:
            self._outbox.close()

    def _live(self) -> None:
        while self._serve():
            if time.monotonic() >= self._prune_at and not self.problem:
                self._prune_at = time.monotonic() + _PRUNE_S
                self._prune()
            if time.monotonic() >= self._look_at or self._suspect.is_set():
                self._suspect.clear()
                self._look_at = time.monotonic() + _LOOK_S
                self._look()
            self._busy_since = None
        self._give_up_unwritten()

    def _serve(self) -> bool:
        """Write the waiting items, and do the tasks. Returns False at the end. No picture is held between two calls."""
        group = self._next_group()
        self._busy_since = time.monotonic()
        self._take([item for item in group if item is not None and not isinstance(item, Task)])
        self._backlog.write(self._settle, now=self._ending.is_set())
        for item in group:
            if isinstance(item, Task):
                carry_out(item)
            if item is None or isinstance(item, Task):
                self._items.task_done()
        return not (None in group or (not group and self._ending.is_set()))

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything that was handed in is on disk. Returns whether it is, within `timeout_s`."""
        until = time.monotonic() + timeout_s
        while self._items.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)
        return not self._items.unfinished_tasks

    def end(self) -> None:
        """Let `run` end after the queued items. Verdicts that a full disk does not take stay in the in-flight file."""
        self._ending.set()
        with contextlib.suppress(queue.Full):
            self._items.put(None, timeout=1)

    def _begin(self) -> None:
        """Open journal and evidence if possible, and write the verdicts of an earlier run. Failures are tried again."""
        self._busy_since = time.monotonic()
        self._backlog.open()
        for start in range(0, len(self._left), _GROUP):
            bodies = [body for body in self._left[start : start + _GROUP] if self._usable(body)]
            events = [self._defects.event_of(body) for body in bodies if is_defect(body)]
            self._add(Entries(verdicts=bodies, events=events), items=0)
        self._backlog.write(self._settle)
        self._defects.open()
        self._busy_since = None
        self._more_events()

    def _give_up(self, verdict: Verdict) -> None:
        self._metrics.sacrificed.labels("journal").inc()
        if self._inflight:
            self._inflight.clear([verdict.event_id])

    def _give_up_unwritten(self) -> None:
        """Give up the entries that the disk does not take before the service ends. They stay in the in-flight file."""
        for group in self._backlog.give_up():
            self._metrics.sacrificed.labels("journal").inc(len(group.event_ids))
            for _ in range(group.items):
                self._items.task_done()

    def _next_group(self) -> list[_Item]:
        """The next items, up to a whole group; empty if none came in time."""
        try:
            group = [self._items.get(timeout=0 if self._ending.is_set() else self._backlog.patience_s)]
        except queue.Empty:
            return []
        if self._items.qsize() < _GROUP:
            self._ending.wait(_GATHER_S)  # meanwhile the publish thread has the interpreter to itself
        while len(group) < _GROUP and group[-1] is not None:
            try:
                group.append(self._items.get_nowait())
            except queue.Empty:
                break
        return group

    def _take(self, group: Sequence[_Kept]) -> None:
        """Prepare a transaction, with the evidence of its defects on disk before their events go out."""
        records = [item for item in group if isinstance(item, Record)]
        acknowledged = (
            self._take_acknowledged() if self._items.empty() or any(type(item) is int for item in group) else []
        )
        events = [self._event(record) for record in records if is_defect(record.body)]
        entries = Entries(
            verdicts=[record.body for record in records],
            events=events,
            acknowledged=acknowledged,
            deliveries=[item for item in group if isinstance(item, Delivery)],
            readings=[item for item in group if isinstance(item, Reading)],
            changes=[item for item in group if isinstance(item, Change)],
        )
        if group or acknowledged:
            self._add(entries, items=len(group))

    def _add(self, entries: Entries, *, items: int) -> None:
        event_ids = [body["event_id"] for body in entries.verdicts]
        self._backlog.add(Group(entries=entries, event_ids=event_ids, items=items))

    def _usable(self, body: Body) -> bool:
        if is_usable(body):
            return True
        log.error("a frame of an earlier run was noted by another version and cannot be kept: %s", body["event_id"])
        self._metrics.sacrificed.labels("journal").inc()
        if self._inflight:
            self._inflight.clear([body["event_id"]])
        return False

    def _look(self) -> None:
        """See whether the journal is damaged, and whether evidence can be kept again."""
        if self._defects.problem:
            self._defects.open()
        if not self.problem:
            try:
                self._outbox.examine()
            except OutboxError as error:
                self._backlog.postpone(error)

    def _settle(self, group: Group) -> None:
        """Note that a group is on disk."""
        if self._inflight:
            self._inflight.clear(group.event_ids)
        self._busy_since = time.monotonic()  # the disk answers
        self._metrics.outbox.set(self._backlog.unacknowledged)
        if group.entries.events:
            self._more_events()
        if group.entries.acknowledged:
            self._marked(group.entries.acknowledged)
        for _ in range(group.items):
            self._items.task_done()

    def _event(self, record: Record) -> NewEvent:
        self._busy_since = time.monotonic()
        return self._defects.event(record)

    def _take_acknowledged(self) -> list[int]:
        return [self._acknowledged.popleft() for _ in range(len(self._acknowledged))]

    def _prune(self) -> None:
        try:
            lost = self._outbox.prune()
        except OutboxError as error:
            self._backlog.postpone(error)
        else:
            if lost:
                log.error("journal full: %d defect events given up before the broker had them", lost)
