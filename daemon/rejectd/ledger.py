"""The account of frames: captured = pass + reject + unjudged + in flight, at every instant.

`Ledger.open` makes every frame, and `Ledger.close` ends it. Two threads may try to end the same frame: the thread that
has its score, and the deadline watch, which answers frames that would be late. `close` returns True only to the first,
and only the first publishes its verdict.
"""

from __future__ import annotations

import dataclasses
import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rejectd.contract.messages import Account, Cause, Decision, Exposure, Frame, Pixels, Policy, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The ledger at one instant, in detail."""

    captured: dict[str, int]  # by camera
    verdicts: dict[tuple[str, Decision, Cause | None], int]  # by camera, decision and cause
    in_flight: dict[str, int]  # by camera

    @property
    def account(self) -> Account:
        """The sums over all cameras."""
        ends: Counter[Decision] = Counter()
        for (_, decision, _), count in self.verdicts.items():
            ends[decision] += count
        return Account(
            captured=sum(self.captured.values()),
            passed=ends[Decision.PASS],
            rejected=ends[Decision.REJECT],
            unjudged=ends[Decision.UNJUDGED],
            in_flight=sum(self.in_flight.values()),
        )


class Book(Protocol):
    """Notes each frame when it is opened, and its verdict before it is published. The in-flight file is one."""

    def open(self, frame: Frame) -> None:
        """Note that a frame is in flight."""

    def end(self, event_id: str, body: bytes) -> None:
        """Note the verdict of a frame."""


class Margin:
    """How long before its deadline a frame must have its verdict, so that the verdict reaches the broker in time.

    The smallest margin is a setting. If verdicts took longer from decision to acknowledgement by the broker, the margin
    is 1.25 times the longest such time, which fades by a hundredth with each verdict. The learned margin is at most a
    quarter of a frame's time.
    """

    def __init__(self, least_ns: int) -> None:
        self._least_ns = least_ns
        self._seen_ns = 0.0

    def learn(self, took_ns: int) -> None:
        """Learn how many ns a verdict took from the decision to the acknowledgement."""
        self._seen_ns = max(float(took_ns), self._seen_ns * 0.99)

    def of(self, lifetime_ns: int) -> int:
        """The margin in ns of a frame, from the time in ns between its exposure and its deadline."""
        return max(self._least_ns, min(int(self._seen_ns * 1.25), lifetime_ns // 4))


class Ledger:
    """Opens and closes frames, and knows which of them must be answered now. Safe for any number of threads."""

    def __init__(
        self, run: str, *, margin: Margin, book: Book | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`margin`: how long before its deadline a frame is due, so that its message arrives in time."""
        self.run = run
        self._margin = margin
        self._book = book
        self._clock = clock
        self._lock = threading.RLock()
        self._earlier = threading.Condition(self._lock)  # something is due before `_wakes_ns`
        self._emptied = threading.Condition(self._lock)  # no frame is in flight
        self._wakes_ns = 0  # when `wait_due` looks next; who opens and closes frames seldom has to wake it
        self._open: dict[str, Frame] = {}
        self._due: list[tuple[int, str]] = []  # heap of (instant, event_id); closed frames leave it lazily
        self._captured: Counter[str] = Counter()
        self._verdicts: Counter[tuple[str, Decision, Cause | None]] = Counter()
        self._ended = False

    def open(
        self,
        exposure: Exposure,
        *,
        camera: str,
        product: str,
        policy: Policy,
        deadline_ns: int,
        pixels: Pixels | None = None,
        model: str = "",
        trigger: int | None = None,
    ) -> Frame:
        """Enter an exposure as a frame with an identity and a deadline. From here on it must be closed.

        Args:
            exposure: as noticed; `deadline_ns` is counted from its capture.
            camera, product, policy: whose, of what, and what the line should do if it is not judged.
            pixels: uint8 (h, w, 3), prepared for `model`, where they are known already; else `fill` brings them.
            trigger: number of the part; the exposure's own, or a count of the exposures, if not given.
        """
        with self._lock:
            self._captured[camera] += 1
            seq = self._captured[camera]
            trigger = exposure.trigger if trigger is None else trigger
            frame = Frame(
                event_id=f"{self.run}-{camera}-{seq}",
                camera=camera,
                product=product,
                seq=seq,
                captured_ns=exposure.captured_ns,
                captured_unix_ns=exposure.captured_unix_ns,
                deadline_ns=exposure.captured_ns + deadline_ns,
                due_ns=exposure.captured_ns + deadline_ns - self._margin.of(deadline_ns),
                policy=policy,
                source=exposure.source,
                trigger=seq if trigger is None else trigger,
                model=model,
                pixels=pixels,
            )
            if self._book:
                self._book.open(frame)
            self._open[frame.event_id] = frame
            heapq.heappush(self._due, (frame.due_ns, frame.event_id))
            if frame.due_ns < self._wakes_ns:
                self._earlier.notify_all()
        return frame

    def fill(self, frame: Frame) -> bool:
        """Keep a frame with the picture that was read for it. False if it has its end already: nobody needs it now."""
        with self._lock:
            if frame.event_id not in self._open:
                return False
            self._open[frame.event_id] = frame
            return True

    def hasten(self, frame: Frame, exposure: Exposure) -> Frame:
        """Give a part in flight an earlier exposure; its deadline comes earlier by as much. Returns the new frame."""
        earlier_ns = frame.captured_ns - exposure.captured_ns
        hastened = dataclasses.replace(
            frame,
            captured_ns=exposure.captured_ns,
            captured_unix_ns=exposure.captured_unix_ns,
            deadline_ns=frame.deadline_ns - earlier_ns,
            due_ns=frame.due_ns - earlier_ns,
        )
        with self._lock:
            if frame.event_id in self._open:
                self._open[frame.event_id] = hastened
                heapq.heappush(self._due, (hastened.due_ns, frame.event_id))  # what it had there finds it closed
                if hastened.due_ns < self._wakes_ns:
                    self._earlier.notify_all()
        return hastened

    def close(self, verdict: Verdict, body: bytes = b"") -> bool:
        """End a frame. True for the first verdict, which counts; False for any other, which must not be published.

        `body` is the verdict as the book keeps it.
        """
        with self._lock:
            frame = self._open.pop(verdict.event_id, None)
            if frame is None:
                return False
            if self._book:
                self._book.end(verdict.event_id, body)
            self._verdicts[verdict.camera, verdict.decision, verdict.cause] += 1
            if not self._open:
                self._due.clear()
                self._emptied.notify_all()
            return True

    def wait_due(self, timeout_s: float) -> list[Frame]:
        """Wait at most `timeout_s` for frames that must be answered now. They stay open until closed."""
        until = self._clock() + int(timeout_s * 1e9)
        with self._lock:
            while True:
                now = self._clock()
                due = self._pop_due(now)
                if due or now >= until or self._ended:
                    return due
                self._wakes_ns = min(until, self._due[0][0]) if self._due else until
                self._earlier.wait((self._wakes_ns - now) / 1e9)

    def end(self) -> None:
        """Note that no more frames will come, and wake the threads that wait for frames."""
        with self._lock:
            self._ended = True
            self._earlier.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no frame is in flight."""
        with self._lock:
            return self._emptied.wait_for(lambda: not self._open, timeout_s)

    def in_flight(self) -> list[Frame]:
        """The frames that have no verdict yet, the earliest deadline first."""
        with self._lock:
            return sorted(self._open.values(), key=lambda frame: frame.deadline_ns)

    def snapshot(self) -> Snapshot:
        """All counts of one instant."""
        with self._lock:
            in_flight = Counter(frame.camera for frame in self._open.values())
            return Snapshot(captured=dict(self._captured), verdicts=dict(self._verdicts), in_flight=dict(in_flight))

    def _pop_due(self, now: int) -> list[Frame]:
        due = []
        while self._due and self._due[0][0] <= now:
            _, event_id = heapq.heappop(self._due)
            if event_id in self._open:
                due.append(self._open[event_id])
        return due
