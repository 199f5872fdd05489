"""A line under a known load: what the cameras are shown in one phase, and how the service stood it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import Feeder, Listener
from peers import wait_for
from reckoning import Received, Span
from stand_in_line import StandInLine

_FILL_S = 1.5  # from the start of a phase until there is enough to do


@dataclass(frozen=True)
class Phase:
    """What was shown in a while, and the first verdict on each of it."""

    shown: Mapping[str, float]  # name of a file to when it was moved in
    verdicts: Mapping[str, Received]  # by the same names
    unanswered: Sequence[str]  # names
    repeated: int  # verdicts that came a second time
    span: Span  # in which it was shown
    statuses: Sequence[Received]  # of the line, meanwhile

    @property
    def ends(self) -> Counter[str]:
        """How many frames ended how: a decision, or the cause of an unjudged frame."""
        return Counter(each.body["cause"] or each.body["decision"] for each in self.verdicts.values())

    @property
    def late_s(self) -> list[float]:
        """How long after its deadline each verdict came; below zero if in time."""
        return [each.at - _unix(each.body["valid_until"]) for each in self.verdicts.values()]

    @property
    def judged_hz(self) -> float:
        """Frames judged in a second, once there was enough to do."""
        begin = self.span.since + _FILL_S
        return sum(begin < at < self.span.until for at in self._judged_at) / (self.span.until - begin)

    def judged_share(self, line: StandInLine) -> float:
        """Frames judged and published, as a part of what the device can judge at most.

        The time counts from the start of a batch to the end of a batch by the log of the device itself, so that it
        does not matter where in a batch the phase begins and ends.
        """
        offset_ns = time.time_ns() - time.monotonic_ns()
        since_ns, until_ns = (round(at * 1e9) - offset_ns for at in (self.span.since + _FILL_S, self.span.until))
        batches = [each for each in line.busy() if each.started_ns >= since_ns and each.ended_ns <= until_ns]
        if len(batches) < 2:
            return 0.0
        half_a_batch_s = line.device.batch_ms(1) / 2000  # a verdict is decided a little after the end of its batch
        begin, end = ((at + offset_ns) / 1e9 + half_a_batch_s for at in (batches[0].started_ns, batches[-1].ended_ns))
        return sum(begin < at < end for at in self._judged_at) / (end - begin) / line.device.capacity_hz

    @property
    def _judged_at(self) -> list[float]:
        judged = [each.body for each in self.verdicts.values() if each.body["decision"] != "unjudged"]
        return [_unix(body["captured_at"]) + body["latency_ms"] / 1000 for body in judged]

    def latencies_s(self, camera: str | None = None) -> list[float]:
        """From the exposure to the subscriber."""
        verdicts = [each for each in self.verdicts.values() if camera in (None, each.body["camera"])]
        return [each.at - _unix(each.body["captured_at"]) for each in verdicts]


class LoadedLine:
    """Cameras that watch folders, a listener, and phases in which they are shown something."""

    def __init__(self, line: StandInLine, listener: Listener, cameras: Sequence[str], *, deadline_ms: int) -> None:
        self.line = line
        self.listener = listener
        self._deadline_s = deadline_ms / 1000
        self.folders = {name: line.directory / "pictures" / name for name in cameras}
        for name, folder in self.folders.items():
            folder.mkdir(parents=True)
            camera = {"type": "folder", "product": "cell", "mode": "watch", "path": str(folder)}
            line.settings["cameras"][name] = {**camera, "deadline_ms": deadline_ms, "retry_max_s": 0.5}

    def start(self) -> None:
        """Start the service and wait until each camera watches."""
        self.line.start()
        self.wait_for_cameras()

    def wait_for_cameras(self) -> None:
        """Wait until each camera watches."""
        assert not self.line.ended(), self.line.log.read_text()[-3000:]
        wait_for(lambda: all(self.state(name) == "up" for name in self.folders), "every camera is up")

    def feed(self, kinds: Mapping[str, bytes], rate_hz: float, cameras: Sequence[str] | None = None) -> Feeder:
        """Show pictures of these kinds, as often each, to these cameras or all of them."""
        folders = [self.folders[name] for name in cameras or self.folders]
        return Feeder(folders, kinds, rate_hz=rate_hz, weights=[1] * len(kinds))

    def phase(self, feeders: Sequence[Feeder], seconds: float) -> Phase:
        """Let it run for a while, stop it, wait for the last verdict, and look at what came."""
        begin = time.time()
        time.sleep(seconds)
        for feeder in feeders:
            feeder.stop()
        return self.after(feeders, Span(begin, time.time()))

    def after(self, feeders: Sequence[Feeder], span: Span) -> Phase:
        """Wait for the last verdict and look at what came."""
        shown = {name: at for feeder in feeders for name, at in feeder.shown.items()}
        until = time.monotonic() + 2 * self._deadline_s + 5
        while time.monotonic() < until and not shown.keys() <= self._received().keys():
            time.sleep(0.25)
        verdicts = {name: verdict for name, verdict in self._received().items() if name in shown}
        repeated = sum(each.body["source"] in shown for each in self.listener.of("/verdict")) - len(verdicts)
        for folder in self.folders.values():
            for file in folder.glob("*.png"):
                file.unlink()
        unanswered = sorted(shown.keys() - verdicts.keys())
        statuses = [each for each in self.listener.of("/status") if each.topic == "/status" and each.at > span.since]
        return Phase(shown, verdicts, unanswered, repeated, span, statuses)

    def _received(self) -> dict[str, Received]:
        verdicts: dict[str, Received] = {}
        for each in self.listener.of("/verdict"):
            verdicts.setdefault(each.body["source"], each)
        return verdicts

    def state(self, camera: str) -> object:
        """What the line said last of a camera."""
        topic = f"/{camera}/status"
        return next((each.body["state"] for each in reversed(self.listener.of("/status")) if each.topic == topic), None)


class SlowWay:
    """A way to a broker on which everything takes its time, in each direction."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._to_port, self._delay_s = port, delay_s
        self._writers: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow way")
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._writers += [writer, to_writer]
        await asyncio.gather(self._pass_on(reader, to_writer), self._pass_on(to_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self._loop.call_later(self._delay_s, writer.write, data)
        self._loop.call_later(self._delay_s, writer.close)

    def close(self) -> None:
        """Hang up on both sides."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 5)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


def kinds(good: Path, bad: Path) -> dict[str, bytes]:
    """Pictures by what the device makes of them."""
    return {"good": good.read_bytes(), "bad": bad.read_bytes()}


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
