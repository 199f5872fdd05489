"""Collects frames of all cameras into batches that can be judged in time.

- A batch closes when it is full, when its oldest frame has waited `max_wait_ns`, or when the earliest deadline leaves
  just enough time to inspect it.
- Cameras share the device by start-time fair queueing (Goyal, Vin, Cheng 1996): a camera that floods waits for itself
  alone. Among cameras with an equal share the earliest deadline goes first, and within a camera the order of capture.
  If somebody would be late in that order but nobody with the earliest deadline first, that order is taken.
- Frames that cannot be judged in time any more come out as `hopeless` and are answered at once. Under overload these
  are the frames that do not fit a batch of the size at which the device judges most: they would cost others more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rejectd.messages import Frame

_PROBE_NS = 1_000_000_000  # how long the device may idle on the belief that it is too slow before it is asked again
_WAKE_NS = 5_000_000  # how late a waiting thread may wake up; else what waited for company would be too late by that


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What to inspect now, and what cannot be inspected in time."""

    frames: tuple[Frame, ...] = ()
    hopeless: tuple[Frame, ...] = ()


class ServiceTime:
    """How long a batch takes on this engine, learned for each size while running."""

    def __init__(self) -> None:
        self._mean: dict[int, float] = {}
        self._deviation: dict[int, float] = {}

    def learn(self, size: int, elapsed_ns: int) -> None:
        """Take in one measurement. A hang counts as no more than four times the mean.

        If the first measurement was a hang, the next one replaces it.
        """
        if size not in self._mean or self._mean[size] > 4 * elapsed_ns:
            self._mean[size], self._deviation[size] = float(elapsed_ns), elapsed_ns * 0.1
            return
        elapsed = min(float(elapsed_ns), 4 * self._mean[size])
        error = elapsed - self._mean[size]
        self._mean[size] += 0.1 * error
        self._deviation[size] += 0.1 * (abs(error) - self._deviation[size])

    def expect(self, size: int) -> int:
        """A time in ns that a batch of this size rarely exceeds: mean plus three mean absolute deviations.

        A batch takes no longer than a larger one, and no longer than its frames in smaller ones. So a size that was
        slow once, or was never seen, is judged by the others; none stays shut out, for only what is tried is learned.
        """
        bounds = ((self._mean[known] + 3 * self._deviation[known]) * max(1.0, size / known) for known in self._mean)
        return int(min(bounds, default=0))


class _Queue:
    """The waiting frames of one camera and the share of the device that it has had."""

    __slots__ = ("frames", "share")

    def __init__(self) -> None:
        self.frames: deque[tuple[int, Frame]] = deque()  # (arrived_ns, frame)
        self.share = 0


class Batcher:
    """Frames in, batches out. `put` never blocks; iterating waits, and ends once closed and empty."""

    def __init__(
        self,
        cameras: Iterable[str],
        *,
        max_batch: int,
        max_wait_ns: int,
        queue_per_camera: int,
        margin_ns: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`margin_ns`: how long before its deadline a frame must have been judged."""
        self.service_time = ServiceTime()
        self._max_batch = max_batch
        self._max_wait_ns = max_wait_ns
        self._limit = queue_per_camera
        self._margin_ns = margin_ns
        self._clock = clock
        self._queues = {camera: _Queue() for camera in cameras}
        self._now_served = 0  # the share that the device has given to whom it serves
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
            if not queue.frames:
                queue.share = max(queue.share, self._now_served)
            queue.frames.append((self._clock(), frame))
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """No more frames; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether frames are still taken."""
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
                hopeless = self._pop_unfit(now, self._alone(now))
                close_ns = self._close_at(now)
                if close_ns is not None and now >= close_ns:
                    sacrificed, frames = self._choose(now)
                    self._last_batch_ns = now
                    return Batch(frames=frames, hopeless=hopeless + sacrificed)
                if hopeless:
                    return Batch(hopeless=hopeless)
                if close_ns is None and self._closed:
                    return None
                wait_ns = min(close_ns - now, 10**9) if close_ns is not None else 10**9
                self._changed.wait(wait_ns / 1e9)
            return Batch()

    def _alone(self, now: int) -> int:
        """How long a frame of its own takes. When the device has idled for long, one frame may find out again."""
        return 0 if now - self._last_batch_ns > _PROBE_NS else self.service_time.expect(1)

    def _close_at(self, now: int) -> int | None:
        """When the next batch closes; None if nothing waits."""
        heads = [queue.frames[0] for queue in self._queues.values() if queue.frames]
        if not heads:
            return None
        waiting = sum(len(queue.frames) for queue in self._queues.values())
        if waiting >= self._max_batch or self._closed:
            return now
        latest_start = min(frame.deadline_ns for _, frame in heads) - self._margin_ns
        oldest = min(arrived for arrived, _ in heads)
        return min(oldest + self._max_wait_ns, latest_start - self.service_time.expect(waiting + 1) - _WAKE_NS)

    def _pop_unfit(self, now: int, takes_ns: int) -> tuple[Frame, ...]:
        """Take out the frames that would be late in a batch that starts now and takes so long."""
        unfit = []
        for queue in self._queues.values():
            while queue.frames and queue.frames[0][1].deadline_ns - self._margin_ns < now + takes_ns:
                unfit.append(queue.frames.popleft()[1])
        return tuple(unfit)

    def _choose(self, now: int) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
        """Frames given up under overload, and the frames of the next batch."""
        fair = self._fair_order()
        by_deadline = sorted(fair, key=lambda frame: frame.deadline_ns)
        for order in (fair, by_deadline):
            if self._keeps_up(order, now):
                return (), self._pop(order[: self._fitting(order, now)])
        sacrificed = self._pop_unfit(now, self.service_time.expect(self._best_size(fair, now)))
        order = self._fair_order()
        if not order:  # the device is asked again after a pause, though none is expected to be in time
            probe = max(sacrificed, key=lambda frame: frame.deadline_ns)
            return tuple(frame for frame in sacrificed if frame is not probe), (probe,)
        return sacrificed, self._pop(order[: self._fitting(order, now)])

    def _fair_order(self) -> list[Frame]:
        """All waiting frames in the order in which equal sharing would serve them."""
        places = []
        for queue in self._queues.values():
            places += [(queue.share + place, frame.deadline_ns, frame) for place, (_, frame) in enumerate(queue.frames)]
        places.sort(key=lambda place: place[:2])
        return [frame for _, _, frame in places]

    def _fitting(self, order: list[Frame], now: int) -> int:
        """How many of the first frames can be one batch that is late for none of them; at least one."""
        earliest = order[0].deadline_ns
        for size, frame in enumerate(order[1 : self._max_batch], 2):
            earliest = min(earliest, frame.deadline_ns)
            if now + self.service_time.expect(size) > earliest - self._margin_ns:
                return size - 1
        return min(len(order), self._max_batch)

    def _keeps_up(self, order: list[Frame], now: int) -> bool:
        """Whether all can be judged in time in this order: one batch that fits, then batches of the best size."""
        first = self._fitting(order, now)
        ends = now + self.service_time.expect(first)
        size = self._best_size(order, now)
        takes_ns = self.service_time.expect(size)
        return all(
            ends + (place // size + 1) * takes_ns <= frame.deadline_ns - self._margin_ns
            for place, frame in enumerate(order[first:])
        )

    def _best_size(self, order: list[Frame], now: int) -> int:
        """The size of batch at which the device judges most, among those that can be filled and still end in time."""
        left_ns = max(frame.deadline_ns for frame in order) - self._margin_ns - now
        largest = min(len(order), self._max_batch)
        sizes = [size for size in range(1, largest + 1) if size == 1 or self.service_time.expect(size) <= left_ns]
        return min(sizes, key=lambda size: (self.service_time.expect(size) / size, -size))

    def _pop(self, frames: list[Frame]) -> tuple[Frame, ...]:
        """Take these out of their queues; each is the first of its camera when its turn comes."""
        for frame in frames:
            queue = self._queues[frame.camera]
            popped = queue.frames.popleft()[1]
            assert popped is frame, "within a camera the order of capture is kept"
            self._now_served = max(self._now_served, queue.share)
            queue.share += 1
        return tuple(frames)
