"""Collects frames of all cameras into batches that can be judged in time.

- A batch closes when it is full, when its oldest frame has waited `max_wait_ns`, or when the earliest deadline leaves
  just enough time to inspect it.
- It holds as many frames as pay, but lasts no longer than half the time that a frame of a modest camera usually has:
  one that comes just after the start is judged in the other half. Modest is who asks for no more than its share.
- Cameras share the device by start-time fair queueing (Goyal, Vin, Cheng 1996): a camera that floods waits for itself
  alone, and a modest one may come with a burst. Among those who have had no more than their share the earliest deadline
  goes first, and within a camera the order of capture. If somebody would be late in that order but nobody with the
  earliest deadline first, and no queue is full, that order is taken.
- Frames that cannot be judged in time any more come out as `hopeless` and are answered at once. Under overload these
  are the frames that do not fit a batch of the size at which the device judges most: they would cost others more.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rejectd.messages import Frame

_PROBE_NS = 1_000_000_000  # how long the device may idle on the belief that it is too slow before it is asked again
_WAKE_NS = 5_000_000  # how late a waiting thread may wake up; else what waited for company would be too late by that
_SILENT_NS = 10_000_000_000  # no batch is kept short for a camera that has sent nothing for so long
_HOPE = 0.9  # how much of the time in parts a larger batch than was ever tried is believed to take: so it is tried
_PAYS = 0.96  # a smaller batch ends earlier: it is taken if the device judges this much of the most that it could


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What to inspect now, and what cannot be inspected in time."""

    frames: tuple[Frame, ...] = ()
    hopeless: tuple[Frame, ...] = ()


class ServiceTime:
    """How long a batch takes on this engine, learned for each size while running."""

    def __init__(self) -> None:
        self._mean: dict[int, float] = {}  # ns
        self._deviation = 0.05  # mean absolute deviation, as a part of the mean: noise belongs to the engine
        self._seen: Counter[int] = Counter()
        self._sizes: list[int] = []
        self._bounds: list[float] = []  # ns, for each of the sizes

    def learn(self, size: int, elapsed_ns: int) -> None:
        """Take in one measurement. A surprise counts for little at first: a hang is forgotten, a trend is believed.

        If the first measurement was a hang, the next one replaces it.
        """
        elapsed_ns = max(1, elapsed_ns)
        if size not in self._mean or self._mean[size] > 4 * elapsed_ns:
            self._mean[size] = float(elapsed_ns)
        else:
            error = min(elapsed_ns / self._mean[size] - 1, max(0.2, 3 * self._deviation), 3.0)
            self._mean[size] *= 1 + 0.1 * error
            self._deviation += 0.1 * (abs(error) - self._deviation)
        self._seen[size] += 1
        self._bound()

    def _bound(self) -> None:
        """A batch takes no longer than its frames in smaller ones, and no longer than a larger one.

        So no size stays shut out. One that was far too slow the first time counts as never tried.
        """
        sizes: list[int] = []
        bounds: list[float] = []
        self._sizes, self._bounds = sizes, bounds
        for size in sorted(self._mean):
            bound = self._mean[size] * (1 + 3 * self._deviation)
            in_parts = bounds[-1] * size / sizes[-1] if sizes else bound
            if bound <= 1.5 * in_parts or self._seen[size] > 1:
                sizes.append(size)
                bounds.append(min(bound, in_parts))
        for place in reversed(range(len(sizes) - 1)):
            bounds[place] = min(bounds[place], bounds[place + 1])

    def expect(self, size: int) -> int:
        """A time in ns that a batch of this size rarely exceeds: mean plus three mean absolute deviations.

        A size never seen lies on the straight line between its neighbours; beyond the largest it is hoped to pay.
        """
        place = bisect_left(self._sizes, size)
        if place == 0:
            return int(self._bounds[0]) if self._bounds else 0
        less, less_ns = self._sizes[place - 1], self._bounds[place - 1]
        if place == len(self._sizes):
            return int(less_ns * max(1.0, _HOPE * size / less))
        part = (size - less) / (self._sizes[place] - less)
        return int(less_ns + part * (self._bounds[place] - less_ns))


class _Queue:
    """The waiting frames of one camera, the share of the device that it has had, and how much time it usually has."""

    __slots__ = ("arrived_ns", "frames", "share", "usual_ns")

    def __init__(self) -> None:
        self.frames: deque[tuple[int, Frame]] = deque()  # (arrived_ns, frame)
        self.share = 0
        self.arrived_ns = 0  # when its last frame came
        self.usual_ns = 0  # how long before its deadline a frame comes; follows at once when that becomes shorter

    def append(self, frame: Frame, now: int) -> None:
        """Let a frame wait, and learn from it how much time the camera's frames have."""
        left_ns = max(0, frame.deadline_ns - now)
        self.usual_ns = min(left_ns, self.usual_ns + (left_ns - self.usual_ns) // 4) if self.usual_ns else left_ns
        self.arrived_ns = now
        self.frames.append((now, frame))


class Batcher:
    """Frames in, batches out. `put` never blocks; iterating waits, and ends once closed and empty.

    Below, `start` is the present plus the margin: a frame is in time if `start` and the service time of its batch are
    not beyond its deadline.
    """

    def __init__(
        self,
        cameras: Iterable[str],
        *,
        max_batch: int,
        max_wait_ns: int,
        queue_per_camera: int,
        margin_ns: int | Callable[[], int],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`margin_ns`: how long before its deadline a frame must have been judged, or a function that tells it."""
        self.service_time = ServiceTime()
        self._max_batch = max_batch
        self._max_wait_ns = max_wait_ns
        self._limit = queue_per_camera
        self._margin_ns = margin_ns
        self._clock = clock
        self._queues = {camera: _Queue() for camera in cameras}
        self._now_served = 0  # the share that the device has given to whom it serves
        self._largest = max_batch  # the largest batch that leaves time for others
        self._changed = threading.Condition()
        self._closed = False
        self._last_batch_ns = clock()

    def has_room(self, camera: str) -> bool:
        """Whether a frame of this camera would be taken."""
        with self._changed:
            return not self._closed and len(self._queues[camera].frames) < self._limit

    def put(self, frame: Frame) -> bool:
        """Queue a frame. False if too many frames of its camera wait already: the caller answers it as overload."""
        with self._changed:
            queue = self._queues[frame.camera]
            if self._closed or len(queue.frames) >= self._limit:
                return False
            burst = min(self._max_batch, 2 * self._largest)  # what the device judges while a frame usually waits
            queue.share = max(queue.share, self._now_served - burst)
            queue.append(frame, self._clock())
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """No more frames; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more frames are taken."""
        return self._closed

    def waiting(self) -> int:
        """Frames that wait for a batch."""
        with self._changed:
            return sum(len(queue.frames) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self.take()) is not None:
            yield batch

    def take(self) -> Batch | None:
        """The next batch; None once closed and empty. Waits with a timeout, so that it may return an empty batch."""
        with self._changed:
            for _ in range(2):
                now = self._clock()
                start = now + (self._margin_ns() if callable(self._margin_ns) else self._margin_ns)
                believed = now - self._last_batch_ns <= _PROBE_NS  # else one frame finds out how long it takes
                hopeless = self._pop_unfit(start + believed * self.service_time.expect(1))
                close_ns = self._close_at(now, start)
                if close_ns is not None and now >= close_ns:
                    given_up, frames = self._choose(now, start)
                    self._last_batch_ns = now
                    return Batch(frames=frames, hopeless=hopeless + given_up)
                if hopeless:
                    return Batch(hopeless=hopeless)
                if close_ns is None and self._closed:
                    return None
                wait_ns = min(close_ns - now, 10**9) if close_ns is not None else 10**9
                self._changed.wait(wait_ns / 1e9)
            return Batch()

    def _close_at(self, now: int, start: int) -> int | None:
        """When the next batch closes; None if nothing waits."""
        heads = [queue.frames[0] for queue in self._queues.values() if queue.frames]
        if not heads:
            return None
        waiting = sum(len(queue.frames) for queue in self._queues.values())
        if waiting >= self._max_batch or self._closed:
            return now
        oldest = min(arrived for arrived, _ in heads)
        spare_ns = min(frame.deadline_ns for _, frame in heads) - start - self.service_time.expect(waiting + 1)
        return min(oldest + self._max_wait_ns, now + spare_ns - _WAKE_NS)

    def _pop_unfit(self, ends: int) -> tuple[Frame, ...]:
        """Take out the frames that would be late in a batch that ends then."""
        unfit = []
        for queue in self._queues.values():
            while queue.frames and queue.frames[0][1].deadline_ns < ends:
                unfit.append(queue.frames.popleft()[1])
        return tuple(unfit)

    def _choose(self, now: int, start: int) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
        """Frames given up under overload, and the frames of the next batch."""
        self._largest = self._leaving_time(now, start)
        order = self._fair_order()
        size = self._size(order, start)
        floods = any(len(queue.frames) >= self._limit for queue in self._queues.values())
        for attempt in [order] if floods else [order, sorted(order, key=lambda frame: frame.deadline_ns)]:
            if self._keeps_up(attempt, size, start):
                return (), self._pop(attempt[: self._fitting(attempt, size, start)])
        given_up = self._pop_unfit(start + self.service_time.expect(size))
        order = self._fair_order()
        if not order:  # the device is asked again after a pause, though none is expected to be in time
            probe = max(given_up, key=lambda frame: frame.deadline_ns)
            return tuple(frame for frame in given_up if frame is not probe), (probe,)
        return given_up, self._pop(order[: self._fitting(order, size, start)])

    def _leaving_time(self, now: int, start: int) -> int:
        """The largest batch that lasts no longer than half the time that a frame of any modest camera has.

        A camera whose frames have no time for even two batches of one frame cannot be protected and is not considered.
        """
        expect = self.service_time.expect
        halves = [(queue.usual_ns - (start - now)) // 2 for queue in self._modest(now)]
        longest_ns = min((half for half in halves if half >= expect(1)), default=2**63)
        return next((size - 1 for size in range(2, self._max_batch + 1) if expect(size) > longest_ns), self._max_batch)

    def _modest(self, now: int) -> list[_Queue]:
        """The cameras that ask for no more than their part of a batch. The others lose their claim to a burst."""
        active = [queue for queue in self._queues.values() if now - queue.arrived_ns < _SILENT_NS]
        most = self._now_served + self._largest / max(1, len(active))
        modest = [queue for queue in active if queue.share + len(queue.frames) <= most + 1]
        for queue in active:
            if queue not in modest:
                queue.share = max(queue.share, self._now_served)
        return modest

    def _fair_order(self) -> list[Frame]:
        """All waiting frames in the order of equal sharing; among those within their share the deadline decides."""
        places = [
            (max(queue.share + place, self._now_served), frame.deadline_ns, number, place, frame)
            for number, queue in enumerate(self._queues.values())
            for place, (_, frame) in enumerate(queue.frames)
        ]
        places.sort()  # never compares frames: each has another number or place
        return [place[-1] for place in places]

    def _size(self, frames: list[Frame], start: int) -> int:
        """The size of batch at which the device judges most in time, among those that leave time for others."""
        deadlines = sorted(frame.deadline_ns for frame in frames)
        rates = []
        for size in range(1, min(len(frames), self._largest) + 1):
            takes_ns = self.service_time.expect(size)
            in_time = len(frames) - bisect_left(deadlines, start + takes_ns)
            rates.append(min(size, in_time) / max(1, takes_ns))
        enough = max(rates) * _PAYS
        return next(size for size, rate in enumerate(rates, 1) if rate >= enough)

    def _fitting(self, order: list[Frame], size: int, start: int) -> int:
        """How many of the first frames, up to a size, can be one batch that is late for none of them; at least one."""
        earliest = order[0].deadline_ns
        for count, frame in enumerate(order[1:size], 2):
            earliest = min(earliest, frame.deadline_ns)
            if start + self.service_time.expect(count) > earliest:
                return count - 1
        return min(len(order), size)

    def _keeps_up(self, order: list[Frame], size: int, start: int) -> bool:
        """Whether all can be judged in time in this order: one batch that fits, then batches of this size."""
        first = self._fitting(order, size, start)
        ends = start + self.service_time.expect(first)
        takes_ns = self.service_time.expect(size)
        return all(
            ends + (place // size + 1) * takes_ns <= frame.deadline_ns for place, frame in enumerate(order[first:])
        )

    def _pop(self, frames: list[Frame]) -> tuple[Frame, ...]:
        """Take so many of each camera out of its queue, in this order of cameras and in the order of capture."""
        popped = []
        for queue in [self._queues[frame.camera] for frame in frames]:
            popped.append(queue.frames.popleft()[1])
            self._now_served = max(self._now_served, queue.share)
            queue.share += 1
        return tuple(popped)
