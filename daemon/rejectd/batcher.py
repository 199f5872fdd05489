"""Collects frames of all cameras into batches that can be judged in time.

- A batch closes when it is full, when its oldest frame has waited `max_wait_ns`, or when the earliest deadline leaves
  just enough time to inspect it.
- Cameras share the device by start-time fair queueing (Goyal, Vin, Cheng 1996): a camera that floods waits for itself
  alone. Among cameras with an equal share the earliest deadline goes first, and within a camera the order of capture.
- Frames that cannot be judged in time any more come out as `hopeless` and are answered at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rejectd.messages import Frame

_PROBE_NS = 1_000_000_000  # how long the device may idle on the belief that it is too slow before it is asked again


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
        """Take in one measurement. A hang counts as no more than four times the expected time."""
        if size not in self._mean:
            self._mean[size], self._deviation[size] = float(elapsed_ns), elapsed_ns * 0.1
            return
        elapsed = min(float(elapsed_ns), 4 * self._mean[size])
        error = elapsed - self._mean[size]
        self._mean[size] += 0.1 * error
        self._deviation[size] += 0.1 * (abs(error) - self._deviation[size])

    def expect(self, size: int) -> int:
        """A time in ns that a batch of this size rarely exceeds: mean plus three mean absolute deviations.

        A size never seen is estimated from the nearest: in proportion if larger, at most as long if smaller.
        """
        if not self._mean:
            return 0
        nearest = min(self._mean, key=lambda known: (abs(known - size), -known))
        scale = max(1.0, size / nearest)
        return int((self._mean[nearest] + 3 * self._deviation[nearest]) * scale)


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
                hopeless = self._pop_hopeless(now)
                close_ns = self._close_at(now)
                if hopeless or (close_ns is not None and now >= close_ns):
                    break
                if close_ns is None and self._closed:
                    return None
                wait_ns = min(close_ns - now, 10**9) if close_ns is not None else 10**9
                self._changed.wait(wait_ns / 1e9)
            else:
                return Batch()
            frames = self._choose(now) if close_ns is not None and now >= close_ns else ()
            if frames:
                self._last_batch_ns = now
            return Batch(frames=frames, hopeless=hopeless)

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
        return min(oldest + self._max_wait_ns, latest_start - self.service_time.expect(waiting + 1))

    def _pop_hopeless(self, now: int) -> tuple[Frame, ...]:
        """Frames that even a batch of their own would judge too late. One is kept as a probe when the device idles."""
        alone = self.service_time.expect(1)
        if now - self._last_batch_ns > _PROBE_NS:
            alone = 0
        hopeless = []
        for queue in self._queues.values():
            while queue.frames and queue.frames[0][1].deadline_ns - self._margin_ns - alone < now:
                hopeless.append(queue.frames.popleft()[1])
        return tuple(hopeless)

    def _choose(self, now: int) -> tuple[Frame, ...]:
        """Fill a batch fairly, as long as all that is in it can still be judged in time."""
        chosen: list[Frame] = []
        earliest = 0
        while len(chosen) < self._max_batch:
            ready = [queue for queue in self._queues.values() if queue.frames]
            if not ready:
                break
            queue = min(ready, key=lambda queue: (queue.share, queue.frames[0][1].deadline_ns))
            frame = queue.frames[0][1]
            earliest = min(earliest, frame.deadline_ns) if chosen else frame.deadline_ns
            if chosen and now + self.service_time.expect(len(chosen) + 1) > earliest - self._margin_ns:
                break
            queue.frames.popleft()
            self._now_served = queue.share
            queue.share += 1
            chosen.append(frame)
        return tuple(chosen)
