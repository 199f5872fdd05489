"""torch against OpenVINO on this machine's processors: one and four pictures, alone and beside a program that computes.

    python tests/bench/runtimes.py                              # both teachers and the service: some ten minutes
    python tests/bench/runtimes.py --teachers efficientnet_lite0 --engines torch-cpu-float32,openvino-cpu-float32

A call prepares pictures of 900 pixels and inspects them. Each engine has a process of its own, which waits while others
are measured; engines take turns in rounds, and a figure is the median of all rounds. `beside` is the time of one
picture while another program computes without a pause, by the quiet time: at most 2 is wanted. On a machine that others
use, only the processor time is comparable (`CPU ms`); networks are random, because only time is measured. The service
runs a tiny bundle of 64 pixels on what `auto` takes and on torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from ground import RealLine, ground, load_average, options, quantile, report
from harness import Broker
from overhead import measure
from stand_in_line import Device, pictures

SIZES = {"efficientnet_lite0": 224, "wide_resnet50_2": 256}
SIDE = 900  # pixels of the camera's picture
COUNTS = 1, 4
LIMIT = 2.0

_ENGINE = """
import json, sys, time
from dataclasses import asdict
from statistics import median
from revdist.bench import subject
from revdist.data import images
from revdist.engines import backend
from revdist.engines.engine import Engine
teacher, size, name, side = json.loads(sys.argv[1])
judged = subject.random(teacher, (size, size))
engine = Engine(judged.teacher, **asdict(backend.parse(name)))
judged.add_to(engine)
engine.warm([1, 4])
picture = judged.picture(side)
print("ready", flush=True)
for line in sys.stdin:
    count, seconds = json.loads(line)
    begun, wall, used = time.perf_counter(), [], []
    while len(wall) < 3 or time.perf_counter() < begun + seconds:
        at, computed = time.perf_counter(), time.process_time()
        prepared = [images.prepare(picture, judged.size) for _ in range(count)]
        engine.inspect(prepared, [judged.name] * count)
        wall.append(time.perf_counter() - at)
        used.append(time.process_time() - computed)
    print(json.dumps([1e3 * median(wall), 1e3 * median(used)]), flush=True)
"""
_NAMES = """
from revdist.engines import backend
from revdist.engines.openvino import compiled
print(*[b.identity for b in backend.available("cpu")])
print(*[f"openvino-cpu-{p}" for p in ("float32", "bfloat16", "int8") if compiled.computes(p)])
"""


class Process:
    """An engine in a process of its own."""

    def __init__(self, teacher: str, name: str) -> None:
        given = json.dumps([teacher, SIZES[teacher], name, SIDE])
        command = [sys.executable, "-c", _ENGINE, given]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def wait(self) -> None:
        assert self._line() == "ready\n"

    def measure(self, count: int, seconds: float) -> tuple[float, float]:
        """Median ms of a call and of its processor time."""
        assert self._process.stdin
        print(json.dumps([count, seconds]), file=self._process.stdin, flush=True)
        wall, used = json.loads(self._line())
        return wall, used

    def close(self) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def busy() -> Iterator[None]:
    """One other program that computes without a pause."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def engines(teacher: str, names: list[str], rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Measure engines in turn; a row for each."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        running = {}
        for name in names:  # one after the other: all at once would only slow one another down
            running[name] = Process(teacher, name)
            stack.callback(running[name].close)
            running[name].wait()
        for _ in range(rounds):
            for name, process in running.items():
                for count in COUNTS:
                    wall, used = process.measure(count, seconds)
                    found[name, f"{count} ms"].append(wall)
                    found[name, f"{count} CPU ms"].append(used)
            with busy():
                for name, process in running.items():
                    found[name, "beside"].append(process.measure(1, seconds)[0])
    for name in names:
        row = {column: median(values) for (of, column), values in found.items() if of == name}
        beside = row.pop("beside") / row["1 ms"]
        yield {"of": teacher, "engine": name, **row, "beside": beside, "steady": beside <= LIMIT}


def services(seconds: float) -> Iterator[dict[str, Any]]:
    """The time from exposure to the broker's acknowledgement in the running service, alone and beside a program."""
    with ground() as (directory, bundle, cells):
        shown = {"good": pictures(cells[:1], directory)[0].read_bytes()}
        for runtime in ("auto", "torch"):
            times: list[float] = []
            for beside in (False, True):
                place = directory / f"{runtime}{beside}"
                with ExitStack() as stack:
                    broker = Broker(place / "broker", safe=False)
                    stack.callback(broker.stop)
                    service = RealLine(place, bundle, broker.port, Device(base_ms=1, per_frame_ms=1))
                    stack.callback(service.close)
                    service.settings["engine"] = {"runtime": runtime}
                    if beside:
                        stack.enter_context(busy())
                    rows = measure(service, broker.port, shown, 1, 10, seconds)
                    times.append(quantile([total_ms for _, total_ms, _ in rows], 0.5))
            quiet, crowded = times
            none = dict.fromkeys(("1 CPU ms", "4 ms", "4 CPU ms"), float("nan"))
            row = {"of": "service", "engine": runtime, "1 ms": quiet, **none}
            yield {**row, "beside": crowded / quiet, "steady": crowded / quiet <= LIMIT}


def main() -> int:
    given = options(__doc__, teachers=",".join(SIZES), engines="", rounds=3, seconds=5.0, service_seconds=20.0)
    here = subprocess.run([sys.executable, "-c", _NAMES], capture_output=True, text=True, check=True).stdout.split()
    names = given.engines.split(",") if given.engines else here
    rows: list[dict[str, Any]] = []
    for teacher in filter(None, given.teachers.split(",")):
        rows += engines(teacher, names, given.rounds, given.seconds)
    if given.service_seconds:
        rows += services(given.service_seconds)
    report([{**row, "load": load_average()} for row in rows], given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
