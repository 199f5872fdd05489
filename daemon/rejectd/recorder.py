"""What follows behind a verdict and can never delay it: journal, evidence, the defect event. One thread owns the disk.

What waits is bounded. When the disk is too slow, heat maps of evidence are given up first, then its pictures, then the
records of passes, each counted. While the journal cannot be opened or written the line runs without it: what waits is
tried again until the disk takes it, evidence and tasks go on, and what finds no room to wait is counted.
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

from rejectd.backlog import Backlog, Group
from rejectd.evidence import Evidence, EvidenceError, regions
from rejectd.inflight import Slots
from rejectd.messages import GOLDEN, Cause, Decision, Frame, RejectdError, Verdict
from rejectd.metrics import Metrics
from rejectd.outbox import Body, Change, Delivery, Entries, NewEvent, Outbox, OutboxError, Reading, is_usable
from rejectd.payloads import defect_payload, defect_topic

log = logging.getLogger(__name__)

_WAITING = 4096  # records
_WITH_PASSES = 3072  # above this, passes are given up
_WITH_PICTURES = 256  # above this, pictures
_WITH_MAPS = 64  # above this, anomaly maps are not even fetched from the device
_GROUP = 64  # records in one transaction
_GATHER_S = 0.005  # a verdict and its acknowledgement share a transaction, which begins when both are through
_PRUNE_S = 60.0
_LOOK_S = 10.0  # how often it is seen whether the journal is whole, and evidence can be kept again
_HUNG_S = 2.0  # a disk that has not answered for so long is a problem

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


_Kept: TypeAlias = Record | Delivery | Reading | Change | int  # int: number of an acknowledged event
_Item: TypeAlias = "_Kept | Task[Any] | None"


class Recorder:
    """Any thread may hand things in; that never blocks. `run` is one thread's life."""

    def __init__(
        self,
        line: str,
        *,
        outbox: Outbox,
        evidence: Evidence | None,
        inflight: Slots | None,
        metrics: Metrics,
        more_events: Callable[[], None],
        marked: Callable[[Iterable[int]], None],
    ) -> None:
        """`more_events()` is told of new events in the outbox, `marked(numbers)` of acknowledged ones."""
        self._line = line
        self._outbox = outbox
        self._evidence = evidence
        self._inflight = inflight
        self._metrics = metrics
        self._more_events = more_events
        self._marked = marked
        self._items: queue.Queue[_Item] = queue.Queue(maxsize=_WAITING)
        self._acknowledged: deque[int] = deque()  # numbers of events
        self._backlog = Backlog(outbox)
        self._left: Sequence[Body] = ()  # what an earlier run left
        self._busy_since: float | None = None  # when the disk was asked for what it has not done yet
        self._suspect = threading.Event()  # somebody who reads the journal thinks that it is damaged
        self._ending = threading.Event()
        self.tried = threading.Event()  # to open the journal, for the first time
        self._evidence_problem = ""
        metrics.journal_available.set_function(lambda: self.tried.is_set() and not self.problem and not self._hung)

    @property
    def maps_affordable(self) -> bool:
        """Whether there is time for anomaly maps."""
        return self._items.qsize() < _WITH_MAPS

    @property
    def problem(self) -> str:
        """Why nothing can be written now; empty if all is well."""
        return self._backlog.problem

    @property
    def problems(self) -> list[str]:
        """What a person should see to."""
        problems = [problem for problem in (self.problem, self._evidence_problem) if problem]
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
        """Keep a verdict, and what there is to see of a part that did not pass."""
        waiting = self._items.qsize()
        seen = verdict.decision is not Decision.PASS and verdict.cause is not Cause.PAUSED
        wanted = seen and frame.picture is not None and self._evidence is not None
        affordable = verdict.cause is not Cause.OVERLOAD and waiting < _WITH_PICTURES
        if wanted and not affordable:
            self._metrics.sacrificed.labels("evidence").inc()
        unwritten = waiting + self._backlog.items
        if unwritten >= (_WITH_PASSES if verdict.decision is Decision.PASS else _WAITING):
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
        elif self._items.qsize() + self._backlog.items >= _WITH_PASSES and not isinstance(item, Change):
            return
        with contextlib.suppress(queue.Full):
            self._items.put_nowait(item)

    def take_up(self, left: Sequence[Body]) -> None:
        """Keep what an earlier run left; before `run`."""
        self._left = left

    def suspect(self) -> None:
        """Somebody who reads the journal thinks that it is damaged."""
        self._suspect.set()

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
        try:
            self._begin()
            self.tried.set()
            self._live()
        finally:
            self._outbox.close()

    def _live(self) -> None:
        next_prune, next_look = 0.0, 0.0
        while True:
            group = self._next_group()
            self._busy_since = time.monotonic()
            self._take([item for item in group if item is not None and not isinstance(item, Task)])
            self._backlog.write(self._settle, now=self._ending.is_set())
            for item in group:
                if isinstance(item, Task):
                    _carry_out(item)
                if item is None or isinstance(item, Task):
                    self._items.task_done()
            if time.monotonic() >= next_prune and not self.problem:
                next_prune = time.monotonic() + _PRUNE_S
                self._prune()
            if time.monotonic() >= next_look or self._suspect.is_set():
                self._suspect.clear()
                next_look = time.monotonic() + _LOOK_S
                self._look()
            self._busy_since = None
            if None in group or (not group and self._ending.is_set()):
                self._give_up_unwritten()
                return

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that was handed in is on disk."""
        until = time.monotonic() + timeout_s
        while self._items.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)
        return not self._items.unfinished_tasks

    def end(self) -> None:
        """Let `run` end after what is queued. What a full disk does not take stays in the in-flight file."""
        self._ending.set()
        with contextlib.suppress(queue.Full):
            self._items.put(None, timeout=1)

    def _begin(self) -> None:
        """Open what can be opened; the rest is tried again when there is something to write."""
        self._busy_since = time.monotonic()
        self._backlog.open()
        for start in range(0, len(self._left), _GROUP):
            bodies = [body for body in self._left[start : start + _GROUP] if self._usable(body)]
            events = [defect_event(self._line, body) for body in bodies if _is_defect(body)]
            self._add(Entries(verdicts=bodies, events=events), items=0)
        self._backlog.write(self._settle)
        self._open_evidence()
        self._busy_since = None
        self._more_events()

    def _open_evidence(self) -> None:
        if self._evidence:
            try:
                self._evidence.open()
                self._evidence_problem = ""
            except EvidenceError as error:
                self._without_evidence(error)

    def _give_up(self, verdict: Verdict) -> None:
        self._metrics.sacrificed.labels("journal").inc()
        if self._inflight:
            self._inflight.clear([verdict.event_id])

    def _give_up_unwritten(self) -> None:
        """The service ends before the disk takes these; they stay in the in-flight file."""
        for group in self._backlog.give_up():
            self._metrics.sacrificed.labels("journal").inc(len(group.event_ids))
            for _ in range(group.items):
                self._items.task_done()

    def _next_group(self) -> list[_Item]:
        """At least one item, and whatever else waits or comes soon, up to a group."""
        try:
            group = [self._items.get(timeout=0 if self._ending.is_set() else self._backlog.patience_s)]
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

    def _take(self, group: Sequence[_Kept]) -> None:
        """Prepare a transaction, with the evidence of its defects on disk before their events go out."""
        records = [item for item in group if isinstance(item, Record)]
        acknowledged = (
            self._take_acknowledged() if self._items.empty() or any(type(item) is int for item in group) else []
        )
        events = [self._event(record) for record in records if _is_defect(record.body)]
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
        if self._evidence_problem:
            self._open_evidence()
        if not self.problem:
            try:
                self._outbox.examine()
            except OutboxError as error:
                self._backlog.postpone(error)

    def _settle(self, group: Group) -> None:
        """A group is on disk."""
        if self._inflight:
            self._inflight.clear(group.event_ids)
        self._busy_since = time.monotonic()  # it answers
        self._metrics.outbox.set(self._backlog.unacknowledged)
        if group.entries.events:
            self._more_events()
        if group.entries.acknowledged:
            self._marked(group.entries.acknowledged)
        for _ in range(group.items):
            self._items.task_done()

    def _take_acknowledged(self) -> list[int]:
        return [self._acknowledged.popleft() for _ in range(len(self._acknowledged))]

    def _without_evidence(self, error: EvidenceError) -> None:
        if str(error) != self._evidence_problem:
            log.error("%s", error)
        self._evidence_problem = str(error)

    def _prune(self) -> None:
        try:
            lost = self._outbox.prune()
        except OutboxError as error:
            self._backlog.postpone(error)
        else:
            if lost:
                log.error("journal full: %d defect events given up before the broker had them", lost)

    def _event(self, record: Record) -> NewEvent:
        """The defect event of a verdict, with its evidence on disk before it goes out."""
        self._busy_since = time.monotonic()
        verdict, frame = record.verdict, record.frame
        evidence, boxes = "", []
        if frame and verdict.result and verdict.result.anomaly_map is not None and frame.picture is not None:
            boxes = regions(verdict.result.anomaly_map, verdict.result.threshold, frame.picture.shape)
        if frame and self._evidence:
            try:
                evidence = self._evidence.keep(frame, verdict.result)
                self._evidence_problem = ""
            except EvidenceError as error:
                self._without_evidence(error)
                self._metrics.sacrificed.labels("evidence").inc()
        return defect_event(self._line, record.body, evidence=evidence, regions=boxes)


def defect_event(
    line: str, body: Mapping[str, Any], *, evidence: str = "", regions: Sequence[Sequence[int]] = ()
) -> NewEvent:
    """The defect event of a verdict with this body."""
    payload = defect_payload(body, evidence=evidence, regions=regions)
    return NewEvent(event_id=body["event_id"], topic=defect_topic(line, body["camera"]), payload=payload)


def _is_defect(body: Body) -> bool:
    return bool(body["decision"] != Decision.PASS and body["camera"] != GOLDEN)


def _carry_out(task: Task[Any]) -> None:
    if not task.future.set_running_or_notify_cancel():
        return  # whoever asked has given up
    try:
        task.future.set_result(task.work())
    except Exception as error:  # whoever asked is told
        task.future.set_exception(error)
