"""Runs all that only a GPU can show, in under six minutes: `make gpu`. Ends with 2 where there is no GPU.

From the source tree with torch, NumPy and pytest alone; weights and pictures are random. Figures are kept row by row,
so that a run that is cut off leaves them. `--dry-run` proves the script itself on a processor, with small pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NEEDED = ("numpy", "torch", "pytest")
TESTS = "tests/revdist/engines/cuda/test_on_a_gpu.py"
TESTS_S = 150.0  # at most, of the whole time
CLOSE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 1e-2}  # relative, to the processor's scores
PYTEST_SETTINGS = "[pytest]\nmarkers =\n    gpu: needs a CUDA device\n"

if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    sys.exit(f"gpu: these modules are missing: {', '.join(missing)}; install them, or carry their wheels along")
sys.path.insert(0, str(ROOT / "model"))

import numpy as np  # noqa: E402 - what is missing is said first
import torch  # noqa: E402

from revdist.engines.engine import Engine  # noqa: E402
from revdist.networks.teacher import Teacher, build  # noqa: E402
from revdist.scoring.detector import Student  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--seconds", type=float, default=330.0, help="what does not fit is left out (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="on a processor: the script is tried, no figure counts")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        print(f"gpu: this machine has no GPU that torch {torch.__version__} ({built}) can use", file=sys.stderr)
        return 2
    run = Run(options.json, options.seconds, dry=options.dry_run)
    for part in (machine, marked_tests, scores, memory, changeover, speed):
        run.do(part)
    run.show()
    return 1 if run.faults else 0


class Run:
    """The figures so far, and the time that is left."""

    def __init__(self, path: Path | None, seconds: float, *, dry: bool) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self.dry = dry
        self.device = "cpu" if dry else "cuda"
        self.networks = ("resnet18",) if dry else ("efficientnet_lite0", "wide_resnet50_2")
        self.precisions = ("float32",) if dry else ("float32", "bfloat16", "float16")
        self.batches = (1, 2) if dry else (1, 2, 4, 8, 16, 32)
        self.size = (64, 64) if dry else (256, 256)
        self.products = [f"product{number}" for number in range(2 if dry else 8)]
        self.cell_s = 0.02 if dry else 0.3
        self.figures: dict[str, Any] = {}
        self.faults: list[str] = []

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def do(self, part: Callable[[Run], Iterator[dict[str, Any]]]) -> None:
        """Run a part while there is time, and keep each of its rows. An error ends the part, not the run."""
        name, rows, began = part.__name__, [], time.monotonic()
        self.figures[name] = rows
        try:
            for row in part(self):
                rows.append(row)
                print(name, *(f"{key} {value}" for key, value in row.items()), sep="  ", flush=True)
                self._write()
                if self.left_s < 0:
                    self.faults.append(f"{name}: no time was left for the rest")
                    break
        except Exception as error:  # a run on a GPU is rare: what else it can show must not be lost
            self.faults.append(f"{name}: {type(error).__name__}: {error}")
        self.figures.setdefault("seconds", {})[name] = round(time.monotonic() - began, 1)
        self._write()

    def _write(self) -> None:
        if self._path:
            self._path.write_text(json.dumps({**self.figures, "faults": self.faults}, indent=1) + "\n")

    def show(self) -> None:
        """The table of speeds, the time of each part, and what went wrong."""
        columns = (
            "network",
            "precision",
            "graphs",
            "products",
            "batch",
            "p50_ms",
            "p99_ms",
            "per_s",
            "overlapped_per_s",
        )
        print(*(f"{column:>17}" for column in columns))
        for row in self.figures["speed"]:
            print(*(f"{row[column]!s:>17}" for column in columns))
        print("seconds:", self.figures["seconds"])
        print("\n".join(f"FAULT: {fault}" for fault in self.faults) or "no fault")

    def engine(self, name: str, precision: str, count: int, *, device: str = "", graphs: bool = False) -> Engine:
        """With the same random weights on each device."""
        engine = Engine(_teacher(name), device=device or self.device, precision=precision, graphs=graphs)
        for product in self.products[:count]:
            engine.add(product, _student(name, int(product[-1])), self.size)
        return engine

    def pictures(self, count: int) -> list[Any]:
        noise = np.random.default_rng(7)
        return [noise.integers(0, 256, (*self.size, 3), dtype=np.uint8) for _ in range(count)]

    def mixed(self, batch: int, count: int) -> list[str]:
        """Products of a batch, in turn."""
        return [self.products[row % count] for row in range(batch)]


_kept: dict[tuple[str, int], Any] = {}


def _teacher(name: str) -> Teacher:
    if (name, -1) not in _kept:
        torch.manual_seed(0)
        _kept[name, -1] = Teacher(name, build(name), "0" * 64)
    return _kept[name, -1]  # type: ignore[no-any-return]


def _student(name: str, seed: int) -> Student:
    if (name, seed) not in _kept:
        torch.manual_seed(1 + seed)
        _kept[name, seed] = Student(name).eval()
    return _kept[name, seed]  # type: ignore[no-any-return]


def machine(run: Run) -> Iterator[dict[str, Any]]:
    """What the figures were measured on."""
    row = {"torch": torch.__version__, "cuda": torch.version.cuda, "processors": len(os.sched_getaffinity(0))}
    if not run.dry:
        known = torch.cuda.get_device_properties(0)
        row |= {
            "gpu": known.name,
            "gpu_gb": round(known.total_memory / 1e9, 1),
            "cudnn": torch.backends.cudnn.version(),
        }
    yield row


def marked_tests(run: Run) -> Iterator[dict[str, Any]]:
    """The tests that are marked `gpu`, without the plugins and fixtures of the others."""
    settings = ROOT / "tests/bench/.gpu-pytest.ini" if run._path is None else run._path.with_suffix(".pytest.ini")
    settings.write_text(PYTEST_SETTINGS)
    options = ["-m", "gpu", "-q", "-ra", "--noconftest", "--import-mode=importlib", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "--rootdir", str(ROOT), *options, str(ROOT / TESTS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "model"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=min(TESTS_S, run.left_s), check=False
        )
    finally:
        settings.unlink()
    if ended.returncode:
        run.faults.append("marked tests failed")
        print(ended.stdout[-8000:], ended.stderr[-2000:], flush=True)
    summary = ended.stdout.strip().split("\n")[-1]
    if "skipped" in summary and not run.dry:
        run.faults.append("marked tests were skipped")
    yield {"status": ended.returncode, "summary": summary}


def scores(run: Run) -> Iterator[dict[str, Any]]:
    """How far scores and maps are from the processor's in float32, relative to them."""
    count = 2 if run.dry else 8
    pictures, products = run.pictures(count), run.mixed(count, 2)
    for name in run.networks:
        wanted = run.engine(name, "float32", 2, device="cpu").inspect(pictures, products)
        for precision in run.precisions:
            for graphs in (False, True):
                engine = run.engine(name, precision, 2, graphs=graphs)
                engine.warm([count])
                found = engine.inspect(pictures, products)
                apart = float(np.max(np.abs(found.scores / wanted.scores - 1)))
                maps = max(float(np.max(np.abs(found.map(row) - wanted.map(row)))) for row in range(count))
                if not apart <= CLOSE[precision]:
                    run.faults.append(
                        f"{name} {precision} graphs={graphs}: a score is {apart:.2g} from the processor's"
                    )
                if graphs and not run.dry and not engine._passes._graphs.recording:
                    run.faults.append(f"{name} {precision}: graphs could not be recorded")
                ways = {"network": name, "precision": precision, "graphs": graphs}
                yield {**ways, "score": f"{apart:.2g}", "map": f"{maps:.2g}"}


def memory(run: Run) -> Iterator[dict[str, Any]]:
    """MB on the GPU: an engine with one product and with all, and the most while it sees the largest batch."""
    used = torch.cuda.memory_allocated if not run.dry else lambda: 0
    for name in run.networks:
        for precision in run.precisions:
            begun, held = used(), {}
            for count in (1, len(run.products)):
                engine = run.engine(name, precision, count)
                held[count] = round((used() - begun) / 1e6)
                if not run.dry:
                    torch.cuda.reset_peak_memory_stats()
                engine.inspect(run.pictures(run.batches[-1]), run.mixed(run.batches[-1], count))
                most = 0 if run.dry else torch.cuda.max_memory_allocated()
                del engine
            ways = {"network": name, "precision": precision}
            yield {**ways, "held_mb_by_products": held, "most_mb": round((most - begun) / 1e6)}


def changeover(run: Run) -> Iterator[dict[str, Any]]:
    """ms of a batch of four while products come and go in another thread, and how long each takes to come."""
    pictures, products = run.pictures(4), run.mixed(4, 2)
    for name in run.networks:
        for graphs in (False, True):
            engine = run.engine(name, run.precisions[-1], 2, graphs=graphs)
            engine.warm([1, 4])
            quiet = _times(lambda engine=engine: engine.inspect(pictures, products), 3 * run.cell_s)
            adding_ms: list[float] = []
            coming = threading.Thread(target=_come_and_go, args=(engine, name, run, adding_ms))
            coming.start()
            busy: list[float] = []
            while coming.is_alive():
                busy += _times(lambda engine=engine: engine.inspect(pictures, products), 0.0)
            coming.join()
            figures = {f"quiet_{key}": value for key, value in _quantiles(quiet).items()}
            figures |= {f"busy_{key}": value for key, value in _quantiles(busy).items()}
            yield {"network": name, "graphs": graphs, **figures, "busy_most_ms": max(busy), "adding_ms": adding_ms}


def _come_and_go(engine: Engine, name: str, run: Run, adding_ms: list[float]) -> None:
    for number in range(3):
        began = time.perf_counter()
        engine.add(f"new{number}", _student(name, number % len(run.products)), run.size)
        adding_ms.append(round((time.perf_counter() - began) * 1e3, 1))
        engine.remove(f"new{number}")


def speed(run: Run) -> Iterator[dict[str, Any]]:
    """Latency of batches one by one, and throughput of two under way at a time, from prepared pictures to scores."""
    for name in reversed(run.networks):
        for precision in reversed(run.precisions):
            for graphs in (False, True):
                for count in (1, len(run.products)):
                    engine = run.engine(name, precision, count, graphs=graphs)
                    engine.warm([batch for batch in run.batches if batch <= 8])
                    for batch in [batch for batch in run.batches if batch <= 8 or not graphs]:
                        ways = {"network": name, "precision": precision, "graphs": graphs, "products": count}
                        yield {**ways, "batch": batch, **_speeds(run, engine, batch, count)}
                    del engine


def _speeds(run: Run, engine: Engine, batch: int, count: int) -> dict[str, float]:
    pictures, products = run.pictures(batch), run.mixed(batch, count)
    engine.inspect(pictures, products)
    every = _times(lambda: engine.inspect(pictures, products), run.cell_s)
    began, begun, ended = time.perf_counter(), engine.begin(pictures, products), 0
    while ended < 3 or time.perf_counter() - began < run.cell_s:
        following = engine.begin(pictures, products)
        begun.result()
        begun, ended = following, ended + 1
    overlapped = batch * ended / (time.perf_counter() - began)
    begun.result()
    one_by_one = batch * len(every) / (sum(every) / 1e3)
    return {**_quantiles(every), "per_s": round(one_by_one, 1), "overlapped_per_s": round(overlapped, 1)}


def _times(call: Callable[[], object], seconds: float) -> list[float]:
    """ms of calls in a row: three at least."""
    every: list[float] = []
    while len(every) < 3 or sum(every) < seconds * 1e3:
        began = time.perf_counter()
        call()
        every.append(round((time.perf_counter() - began) * 1e3, 3))
    return every


def _quantiles(every: Sequence[float]) -> dict[str, float]:
    ordered = sorted(every)
    return {"p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]}


if __name__ == "__main__":
    sys.exit(main())
