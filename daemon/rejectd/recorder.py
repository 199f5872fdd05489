"""What follows behind a verdict and can never delay it: journal, evidence, the defect event. One thread owns the disk.

What waits is bounded. When the disk is too slow, heat maps of evidence are given up first, then its pictures, then the
records of passes, each counted; when the disk is full, what waits is tried again until there is room.
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
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from rejectd.evidence import Evidence, EvidenceError, regions
from rejectd.logbook import Logbook
from rejectd.messages import GOLDEN, Cause, Decision, Frame, RejectdError, Verdict
from rejectd.metrics import Metrics
from rejectd.outbox import Change, Delivery, Entries, NewEvent, Outbox, OutboxError, Reading
from rejectd.payloads import defect_payload, defect_topic

log = logging.getLogger(__name__)

_WAITING = 4096  # records
_WITH_PASSES = 3072  # above this, passes are given up
_WITH_PICTURES = 256  # above this, pictures
_WITH_MAPS = 64  # above this, anomaly maps are not even fetched from the device
_GROUP = 64  # records in one transaction
_GATHER_S = 0.005  # a verdict and its acknowledgement share a transaction, which begins when both are through
_PRUNE_S = 60.0
_RETRY_S = 1.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A verdict on its way to the disk, with its frame if evidence is to be kept."""

    verdict: Verdict
    body: Mapping[str, Any]  # of its message
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Task(Generic[Answer]):
    """Work for whoever owns the disk, between two transactions."""

    work: Callable[[], Answer]
    future: Future[Answer]


_Item: TypeAlias = (
    "Record | Delivery | Reading | Change | Task[Any] | int | None"  # int: number of an acknowledged event
)


class Recorder:
    """Any thread may hand things in; that never blocks. `run` is one thread's life."""

    def __init__(
        self,
        line: str,
        *,
        outbox: Outbox,
        evidence: Evidence | None,
        logbook: Logbook | None,
        metrics: Metrics,
        more_events: Callable[[], None],
        marked: Callable[[Iterable[int]], None],
    ) -> None:
        """`more_events()` is told of new events in the outbox, `marked(numbers)` of acknowledged ones."""
        self._line = line
        self._outbox = outbox
        self._evidence = evidence
        self._logbook = logbook
        self._metrics = metrics
        self._more_events = more_events
        self._marked = marked
        self._items: queue.Queue[_Item] = queue.Queue(maxsize=_WAITING)
        self._acknowledged: deque[int] = deque()  # numbers of events
        self._ending = threading.Event()
        self.problem = ""  # why nothing can be written now

    @property
    def maps_affordable(self) -> bool:
        """Whether there is time for anomaly maps."""
        return self._items.qsize() < _WITH_MAPS

    def verdict(self, verdict: Verdict, body: Mapping[str, Any], frame: Frame) -> None:
        """Keep a verdict, and what there is to see of a part that did not pass."""
        waiting = self._items.qsize()
        seen = verdict.decision is not Decision.PASS and verdict.cause is not Cause.PAUSED
        wanted = seen and frame.picture is not None and self._evidence is not None
        affordable = verdict.cause is not Cause.OVERLOAD and waiting < _WITH_PICTURES
        if wanted and not affordable:
            self._metrics.sacrificed.labels("evidence").inc()
        if verdict.decision is Decision.PASS and waiting >= _WITH_PASSES:
            self._give_up(verdict)
            return
        kept = frame if seen and affordable else None
        try:
            self._items.put_nowait(Record(verdict=verdict, body=body, frame=kept))
        except queue.Full:
            self._give_up(verdict)

    def note(self, item: Delivery | Reading | Change | int) -> None:
        """Keep what the broker acknowledged, an actuator counted or a person changed. Counts go first without room."""
        if isinstance(item, int):
            self._acknowledged.append(item)  # few, for the publisher sends no more until they are marked
        elif self._items.qsize() >= _WITH_PASSES and not isinstance(item, Change):
            return
        with contextlib.suppress(queue.Full):
            self._items.put_nowait(item)

    def ask(self, work: Callable[[], Answer], timeout_s: float) -> Answer:
        """Have work done that needs the disk, and wait for it.

        Raises:
            RejectdError: if the work does, or the disk is too busy.
        """
        task = Task(work, Future())
        try:
            self._items.put_nowait(task)
            return task.future.result(timeout_s)
        except (queue.Full, TimeoutError) as error:
            task.future.cancel()
            raise RejectdError("the disk is too busy", hint="try again later; see the service's log") from error

    def run(self) -> None:
        """The life of the record thread; ends at `end`, when everything before it is on disk."""
        next_prune = 0.0
        while True:
            group = self._next_group()
            self._write([item for item in group if item is not None])
            for _ in group:
                self._items.task_done()
            if None in group or (not group and self._ending.is_set()):
                return
            if time.monotonic() >= next_prune:
                next_prune = time.monotonic() + _PRUNE_S
                self._prune()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that was handed in is on disk."""
        until = time.monotonic() + timeout_s
        while self._items.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)
        return not self._items.unfinished_tasks

    def end(self) -> None:
        """Let `run` end after what is queued. What a full disk does not take stays in the logbook."""
        self._ending.set()
        with contextlib.suppress(queue.Full):
            self._items.put(None, timeout=1)

    def _give_up(self, verdict: Verdict) -> None:
        self._metrics.sacrificed.labels("journal").inc()
        if self._logbook:
            self._logbook.clear([verdict.event_id])

    def _next_group(self) -> list[_Item]:
        """At least one item, and whatever else waits or comes soon, up to a group."""
        try:
            group = [self._items.get(timeout=0 if self._ending.is_set() else 1.0)]
        except queue.Empty:
            return []
        if self._items.qsize() < _GROUP:
            self._ending.wait(_GATHER_S)  # the one publishing has the interpreter to itself
        while len(group) < _GROUP and group[-1] is not None:
            try:
                group.append(self._items.get_nowait())
            except queue.Empty:
                break
        return group

    def _write(self, group: Sequence[Record | Delivery | Reading | Change | Task[Any] | int]) -> None:
        """One transaction for the group, tried until the disk takes it; then the tasks."""
        records = [item for item in group if isinstance(item, Record)]
        acknowledged = (
            self._take_acknowledged() if self._items.empty() or any(type(each) is int for each in group) else []
        )
        entries = Entries(
            verdicts=[record.body for record in records],
            events=[self._event(record) for record in records if _is_defect(record.verdict)],
            acknowledged=acknowledged,
            deliveries=[item for item in group if isinstance(item, Delivery)],
            readings=[item for item in group if isinstance(item, Reading)],
            changes=[item for item in group if isinstance(item, Change)],
        )
        if entries != Entries() and not self._commit(entries):
            self._metrics.sacrificed.labels("journal").inc(len(records))
            return
        if self._logbook:
            self._logbook.clear(record.verdict.event_id for record in records)
        if entries.events:
            self._more_events()
        if entries.acknowledged:
            self._marked(entries.acknowledged)
        for item in group:
            if isinstance(item, Task):
                _carry_out(item)

    def _take_acknowledged(self) -> list[int]:
        return [self._acknowledged.popleft() for _ in range(len(self._acknowledged))]

    def _commit(self, entries: Entries) -> bool:
        """Whether it is on disk. False only when the service ends before the disk takes it."""
        while True:
            try:
                self._outbox.write(entries)
                self._metrics.outbox.set(self._outbox.waiting())
            except OutboxError as error:
                if str(error) != self.problem:
                    self.problem = str(error)
                    log.error("%s", error)
                if self._ending.wait(_RETRY_S):
                    return False
            else:
                if self.problem:
                    log.info("the journal can be written again")
                self.problem = ""
                return True

    def _prune(self) -> None:
        try:
            lost = self._outbox.prune()
        except OutboxError as error:
            log.error("%s", error)
        else:
            if lost:
                log.error("journal full: %d defect events given up before the broker had them", lost)

    def _event(self, record: Record) -> NewEvent:
        """The defect event of a verdict, with its evidence on disk before it goes out."""
        verdict, frame = record.verdict, record.frame
        evidence, boxes = "", []
        if frame and verdict.result and verdict.result.anomaly_map is not None and frame.picture is not None:
            boxes = regions(verdict.result.anomaly_map, verdict.result.threshold, frame.picture.shape)
        if frame and self._evidence:
            try:
                evidence = self._evidence.keep(frame, verdict.result)
            except EvidenceError as error:
                log.error("%s", error)
                self._metrics.sacrificed.labels("evidence").inc()
        return defect_event(self._line, record.body, evidence=evidence, regions=boxes)


def defect_event(
    line: str, body: Mapping[str, Any], *, evidence: str = "", regions: Sequence[Sequence[int]] = ()
) -> NewEvent:
    """The defect event of a verdict with this body."""
    payload = defect_payload(body, evidence=evidence, regions=regions)
    return NewEvent(event_id=body["event_id"], topic=defect_topic(line, body["camera"]), payload=payload)


def _is_defect(verdict: Verdict) -> bool:
    return verdict.decision is not Decision.PASS and verdict.camera != GOLDEN


def _carry_out(task: Task[Any]) -> None:
    if not task.future.set_running_or_notify_cancel():
        return  # whoever asked has given up
    try:
        task.future.set_result(task.work())
    except Exception as error:  # whoever asked is told
        task.future.set_exception(error)
