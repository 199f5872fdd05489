"""A line under load for the batcher: arrivals, a device and a clock, all simulated."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from rejectd.batching.batcher import Batcher
from rejectd.contract.messages import Frame, Policy

MS = 1_000_000
S = 1000 * MS
MARGIN_NS = 20 * MS


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def a_frame(camera: str, seq: int, deadline_ns: int, margin_ns: int = 0) -> Frame:
    return Frame(
        event_id=f"{camera}{seq}",
        camera=camera,
        product="cell",
        seq=seq,
        captured_ns=0,
        captured_unix_ns=0,
        deadline_ns=deadline_ns,
        due_ns=deadline_ns - margin_ns,
        policy=Policy.REJECT,
        source="",
        pixels=None,
        picture=None,
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a camera sends: frames at an even or a random rate, singly or several at once."""

    rate_hz: float
    deadline_ns: int
    burst: int = 1
    uneven: bool = False
    from_s: float = 0
    until_s: float = 60

    def arrivals(self, seconds: float, rng: random.Random) -> Iterator[int]:
        gap_ns = self.burst / self.rate_hz * S
        at = self.from_s * S + rng.random() * gap_ns
        while at < min(seconds, self.until_s) * S:
            yield from (int(at) + number for number in range(self.burst))
            at += rng.expovariate(1) * gap_ns if self.uneven else gap_ns


class SimulatedWait(threading.Condition):
    """The batcher's condition; whoever waits for it lets the simulated time pass instead of the real one."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._pass_time(timeout)
        return True


Device: TypeAlias = Callable[[int, random.Random], int]  # ns that a batch of this size takes


class Line:
    """Any number of cameras and one device; runs the batcher as the inspect thread does, on a simulated clock."""

    def __init__(
        self, sources: dict[str, Source], device: Device, *, seconds: float = 4, warm: bool = True, **settings: int
    ) -> None:
        self.ends: dict[str, Counter[str]] = {camera: Counter() for camera in sources}
        self.latencies_ms: dict[str, list[float]] = {camera: [] for camera in sources}
        self.judged_hz = 0.0  # while frames arrive
        self._rng = random.Random(1)
        self._device, self._seconds, self._clock = device, seconds, Clock()
        arrivals = [
            (at, camera, source.deadline_ns)
            for camera, source in sources.items()
            for at in source.arrivals(seconds, self._rng)
        ]
        self._arrivals = deque(
            replace(a_frame(camera, seq, at + deadline_ns, MARGIN_NS), captured_ns=at)
            for seq, (at, camera, deadline_ns) in enumerate(sorted(arrivals), 1)
        )
        limits = {"max_batch": 8, "max_wait_ns": 0, "queue_per_camera": 32} | settings
        self._batcher = Batcher(sources, **limits, clock=self._clock)
        self._batcher._changed = SimulatedWait(self._wait)
        for size in (1, limits["max_batch"]) if warm else ():  # as the service does before the first part comes
            self._batcher.service_time.learn(size, device(size, self._rng))

    def run(self) -> Line:
        captured = Counter(frame.camera for frame in self._arrivals)
        while self._arrivals or self._batcher.waiting():
            batch = self._batcher.take()
            assert batch is not None
            for frame in batch.hopeless:
                self._end(frame, "hopeless")
            if batch.frames:
                took = self._device(len(batch.frames), self._rng)
                self._pass(self._clock.now + took)
                self._batcher.service_time.learn(len(batch.frames), took)
            for frame in batch.frames:
                self._end(frame, "judged" if self._clock.now <= frame.deadline_ns - MARGIN_NS else "late")
        assert captured == Counter({camera: ends.total() for camera, ends in self.ends.items()}), "each ends once"
        return self

    def lost(self, *cameras: str) -> Counter[str]:
        """The frames of these cameras, or of all, that were not judged in time, by how they ended."""
        ends = sum((self.ends[camera] for camera in cameras or self.ends), Counter[str]())
        return Counter({end: count for end, count in ends.items() if end != "judged"})

    def p99_ms(self, *cameras: str) -> float:
        """What one in a hundred frames of these cameras exceeded from the capture to its verdict."""
        latencies = sorted(latency for camera in cameras for latency in self.latencies_ms[camera])
        return latencies[len(latencies) * 99 // 100]

    def _end(self, frame: Frame, how: str) -> None:
        self.ends[frame.camera][how if self._clock.now <= frame.deadline_ns else "overdue"] += 1
        if how == "judged":
            self.latencies_ms[frame.camera].append((self._clock.now - frame.captured_ns) / MS)
            self.judged_hz += (self._clock.now <= self._seconds * S) / self._seconds

    def _wait(self, timeout_s: float) -> None:
        until = self._clock.now + int(timeout_s * S) + self._rng.randrange(MS)  # a thread wakes up a little late
        self._pass(min(until, self._arrivals[0].captured_ns) if self._arrivals else until)

    def _pass(self, until: int) -> None:
        """Time passes, and frames arrive meanwhile."""
        while self._arrivals and self._arrivals[0].captured_ns <= until:
            frame = self._arrivals.popleft()
            self._clock.now = max(self._clock.now, frame.captured_ns)
            if not self._batcher.put(frame):
                self._end(frame, "refused")
        self._clock.now = max(self._clock.now, until)


def gpu_ns(size: int) -> int:
    """A device for which large batches pay: one frame takes 11 ms, eight take 18."""
    return (10 + size) * MS


def gpu(size: int, rng: random.Random) -> int:
    return int(gpu_ns(size) * rng.gauss(1, 0.02))


def cpu(size: int, rng: random.Random) -> int:
    """A device for which large batches do not pay: 8 ms for each frame."""
    return int(8 * MS * size * rng.gauss(1, 0.02))


def between(size: int, rng: random.Random) -> int:
    """A device for which large batches pay a little: one frame takes 8 ms, eight take 42."""
    return int(8 * MS * size**0.8 * rng.gauss(1, 0.02))


CAPACITY_HZ: dict[Device, float] = {gpu: 8 / 0.018, cpu: 1 / 0.008, between: 8 / 0.0422}
DEADLINES_MS = [(gpu, 60), (gpu, 1000), (cpu, 60), (cpu, 1000), (between, 120), (between, 1000)]


def equal(number: int, rate_hz: float, deadline_ms: int) -> dict[str, Source]:
    """Cameras that share a rate."""
    return {camera: Source(rate_hz=rate_hz / number, deadline_ns=deadline_ms * MS) for camera in "bcdefghi"[:number]}
