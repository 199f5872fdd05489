"""Collects frames of all cameras into batches that can be judged in time.

When a batch closes: when it is full, when its oldest frame has waited `max_wait_ns`, or when the earliest deadline
leaves just enough time to inspect it.

How large a batch is:
- Large enough that the device judges nearly as many frames a second as it can (`_PAYS`). A smaller batch ends earlier.
- Short enough for others: it lasts no longer than half the time that a frame usually has. A frame that comes just after
  the start of a batch is then judged in the other half. Only cameras within their share count: those that send no more
  frames than their part of a batch.
- While every camera has more frames waiting than fit, only the rate counts. A larger batch that was no better before is
  tried again after some batches (`_AGAIN`), since that measurement may have been disturbed.

In which order frames go: cameras share the device by start-time fair queueing (Goyal, Vin, Cheng 1996). A camera that
sends more than its share delays only its own frames; a camera within its share may send a burst. Among cameras within
their share, the earliest deadline goes first; within a camera, the order of capture holds. If that order would make a
frame late, "earliest deadline first" would not, and no queue is full, then earliest deadline first is used.

Which frames are given up: frames that can no longer be judged in time come out as `hopeless` and are answered at once.
Under overload these include the frames beyond the best batch size, since inspecting them would make others late.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rejectd.batching.service_time import ServiceTime
from rejectd.contract.messages import Frame

_PROBE_NS = 1_000_000_000  # how long the device may idle on the belief that it is too slow before it is asked again
_WAKE_NS = 5_000_000  # how late a waiting thread may wake up; else what waited for company would be too late by that
_SILENT_NS = 10_000_000_000  # a camera that has sent nothing for so long counts no more: no batch is kept short for it
_LEAST = 0.8  # batches are kept short only as far as the device still judges this part of the most that it could
_ALIKE = 0.999  # rates that differ by less are the same
_AGAIN = 16  # batches until a larger one, which was found to be no better, is tried again
_PAYS = 0.96  # a smaller batch ends earlier: it is taken if the device judges this much of the most that it could


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The frames to inspect now, and the frames that cannot be inspected in time."""

    frames: tuple[Frame, ...] = ()
    hopeless: tuple[Frame, ...] = ()


class _Queue:
    """The waiting frames of one camera, its share of the device so far, and how much time its frames usually have."""

    __slots__ = ("arrived_ns", "frames", "share", "usual_ns")

    def __init__(self) -> None:
        self.frames: deque[tuple[int, Frame]] = deque()  # (arrived_ns, frame)
        self.share = 0
        self.arrived_ns = 0  # when its last frame came
        self.usual_ns = 0  # how long before its deadline a frame comes; follows at once when that becomes shorter

    def append(self, frame: Frame, now: int) -> None:
        """Queue a frame, and learn from it how much time the camera's frames have."""
        left_ns = max(0, frame.due_ns - now)
        self.usual_ns = min(left_ns, self.usual_ns + (left_ns - self.usual_ns) // 4) if self.usual_ns else left_ns
        self.arrived_ns = now
        self.frames.append((now, frame))


class Batcher:
    """Frames in, batches out. `put` never blocks.

    Frames have until `due_ns`, which leaves a margin before the deadline for the message to arrive.
    """

    def __init__(
        self,
        cameras: Iterable[str],
        *,
        max_batch: int,
        max_wait_ns: int,
        queue_per_camera: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.service_time = ServiceTime()
        self._max_batch = max_batch
        self._max_wait_ns = max_wait_ns
        self._limit = queue_per_camera
        self._clock = clock
        self._queues = {camera: _Queue() for camera in cameras}
        self._now_served = 0  # the share that the device has given to whom it serves
        self._passed_over = 0  # how often larger batches were, since they were tried
        self._largest = max_batch  # the largest batch that leaves time for others
        self._changed = threading.Condition()
        self._closed = False
        self._last_batch_ns = clock()

    def has_room(self, camera: str) -> bool:
        """Whether the camera's queue has room for a frame."""
        with self._changed:
            return not self._closed and len(self._queues[camera].frames) < self._limit

    def put(self, frame: Frame) -> bool:
        """Queue a frame. Returns False if too many frames of its camera wait: the caller answers it as overload."""
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
        """Take no more frames; the waiting ones are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more frames are taken."""
        return self._closed

    def waiting(self) -> int:
        """How many frames wait for a batch."""
        with self._changed:
            return sum(len(queue.frames) for queue in self._queues.values())

    def take(self, *, wait: bool = True) -> Batch | None:
        """The next batch; None once closed and empty. An empty batch means that no frame was ready in time.

        With `wait` it waits up to a second for frames; without, it returns at once.
        """
        with self._changed:
            for _ in range(2):
                now = self._clock()
                believed = now - self._last_batch_ns <= _PROBE_NS  # else one frame finds out how long it takes
                hopeless = self._pop_unfit(now + believed * self.service_time.expect(1))
                close_ns = self._close_at(now)
                if close_ns is not None and now >= close_ns:
                    given_up, frames = self._choose(now)
                    self._last_batch_ns = now
                    return Batch(frames=frames, hopeless=hopeless + given_up)
                if hopeless:
                    return Batch(hopeless=hopeless)
                if close_ns is None and self._closed:
                    return None
                if not wait:
                    break
                wait_ns = min(close_ns - now, 10**9) if close_ns is not None else 10**9
                self._changed.wait(wait_ns / 1e9)
            return Batch()

    def _close_at(self, now: int) -> int | None:
        """When the next batch closes; None if nothing waits."""
        heads = [queue.frames[0] for queue in self._queues.values() if queue.frames]
        if not heads:
            return None
        waiting = sum(len(queue.frames) for queue in self._queues.values())
        if waiting >= self._max_batch or self._closed:
            return now
        oldest = min(arrived for arrived, _ in heads)
        spare_ns = min(frame.due_ns for _, frame in heads) - now - self.service_time.expect(waiting + 1)
        return min(oldest + self._max_wait_ns, now + spare_ns - _WAKE_NS)

    def _pop_unfit(self, ends: int) -> tuple[Frame, ...]:
        """Remove and return the frames that would be late in a batch that ends at the given time."""
        unfit = []
        for queue in self._queues.values():
            while queue.frames and queue.frames[0][1].due_ns < ends:
                unfit.append(queue.frames.popleft()[1])
        return tuple(unfit)

    def _choose(self, now: int) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
        """Choose the frames to give up under overload, and the frames of the next batch."""
        self._largest = self._leaving_time(now)
        order = self._fair_order()
        size = self._size(order, self._largest, now, crowded=self._crowded(now))
        floods = any(len(queue.frames) >= self._limit for queue in self._queues.values())
        for attempt, upto in self._attempts(order, size, now, floods=floods):
            if self._keeps_up(attempt, upto, now):
                return (), self._pop(attempt[: self._fitting(attempt, upto, now)])
        given_up = self._pop_unfit(now + self.service_time.expect(size))
        order = self._fair_order()
        if not order:  # the device is asked again after a pause, though none is expected to be in time
            probe = max(given_up, key=lambda frame: frame.due_ns)
            return tuple(frame for frame in given_up if frame is not probe), (probe,)
        return given_up, self._pop(order[: self._fitting(order, size, now)])

    def _attempts(self, order: list[Frame], size: int, now: int, *, floods: bool) -> Iterator[tuple[list[Frame], int]]:
        """Orders of the frames and sizes of batch to try, the preferred one first."""
        yield order, size
        if floods:
            return
        earliest_first = sorted(order, key=lambda frame: frame.due_ns)
        yield earliest_first, size
        largest = self._size(order, self._max_batch, now)
        if largest > size:
            yield order, largest
            yield earliest_first, largest

    def _leaving_time(self, now: int) -> int:
        """The largest batch that lasts no longer than half the time that a frame has, of any camera within its share.

        A camera whose frames have no time for even two batches of one frame cannot be protected and is left out. Nor is
        a batch made so short that the device judges too little (`_LEAST`).
        """
        expect = self.service_time.expect
        halves = [queue.usual_ns // 2 for queue in self._within_share(now)]
        longest_ns = min((half for half in halves if half >= expect(1)), default=2**63)
        short = next((size - 1 for size in range(2, self._max_batch + 1) if expect(size) > longest_ns), self._max_batch)
        rates = [size / max(1, expect(size)) for size in range(1, self._max_batch + 1)]
        return max(short, next(size for size, rate in enumerate(rates, 1) if rate >= max(rates) * _LEAST))

    def _active(self, now: int) -> list[_Queue]:
        return [queue for queue in self._queues.values() if now - queue.arrived_ns < _SILENT_NS]

    def _crowded(self, now: int) -> bool:
        """Whether each camera that is not silent has more frames waiting than its part of a full batch.

        Then all wait for the device and not for each other, so only the number of frames that it judges counts.
        """
        active = self._active(now)
        return all(len(queue.frames) * len(active) > self._max_batch for queue in active)

    def _within_share(self, now: int) -> list[_Queue]:
        """The cameras within their share: they send no more than their part of a batch. The others may not burst."""
        active = self._active(now)
        most = self._now_served + self._largest / max(1, len(active))
        within = [queue for queue in active if queue.share + len(queue.frames) <= most + 1]
        for queue in active:
            if queue not in within:
                queue.share = max(queue.share, self._now_served)
        return within

    def _fair_order(self) -> list[Frame]:
        """All waiting frames in the order of equal sharing; among those within their share the deadline decides."""
        places = [
            (max(queue.share + place, self._now_served), frame.due_ns, number, place, frame)
            for number, queue in enumerate(self._queues.values())
            for place, (_, frame) in enumerate(queue.frames)
        ]
        places.sort()  # never compares frames: each has another number or place
        return [place[-1] for place in places]

    def _size(self, frames: list[Frame], largest: int, now: int, *, crowded: bool = False) -> int:
        """The smallest size of batch, up to a largest one, at which the device judges enough of the most in time.

        When crowded, now and then the largest that is as good as any, to be tried again.
        """
        deadlines = sorted(frame.due_ns for frame in frames)
        rates = []
        for size in range(1, min(len(frames), largest) + 1):
            takes_ns = self.service_time.expect(size)
            in_time = len(frames) - bisect_left(deadlines, now + takes_ns)
            rates.append(min(size, in_time) / max(1, takes_ns))
        enough = max(rates) * (_ALIKE if crowded else _PAYS)
        paying = [size for size, rate in enumerate(rates, 1) if rate >= enough]
        if crowded and len(paying) > 1:
            self._passed_over = (self._passed_over + 1) % _AGAIN
            return paying[0 if self._passed_over else -1]
        return paying[0]

    def _fitting(self, order: list[Frame], size: int, now: int) -> int:
        """How many of the first frames, up to a size, can be one batch without any being late; at least one."""
        earliest = order[0].due_ns
        for count, frame in enumerate(order[1:size], 2):
            earliest = min(earliest, frame.due_ns)
            if now + self.service_time.expect(count) > earliest:
                return count - 1
        return min(len(order), size)

    def _keeps_up(self, order: list[Frame], size: int, now: int) -> bool:
        """Whether all can be judged in time in this order: one batch that fits, then batches of this size."""
        first = self._fitting(order, size, now)
        ends = now + self.service_time.expect(first)
        takes_ns = self.service_time.expect(size)
        return all(ends + (place // size + 1) * takes_ns <= frame.due_ns for place, frame in enumerate(order[first:]))

    def _pop(self, frames: list[Frame]) -> tuple[Frame, ...]:
        """Take the given number of frames out of each camera's queue, in the order of cameras and of capture."""
        popped = []
        for queue in [self._queues[frame.camera] for frame in frames]:
            popped.append(queue.frames.popleft()[1])
            self._now_served = max(self._now_served, queue.share)
            queue.share += 1
        return tuple(popped)
