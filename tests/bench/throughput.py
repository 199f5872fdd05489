"""What the service makes of its engine: frames judged in a second with four cameras, as a share of the bare engine's.

    python tests/bench/throughput.py --teacher wide_resnet50_2 --precision bfloat16

The cameras watch folders and are shown a little more than can be judged, so that frames always wait; what cannot be
judged costs the cameras time too, and with much more than that they take it from the engine. Weights of a ResNet are
random (only time is measured), a student is trained for one step. Engine and service run in turn, so that both have the
same machine; and the time from the start of the process until it is ready is told.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from ground import RealLine, ground, load_average, options, report
from harness import Broker, Listener
from load import LoadedLine, kinds
from peers import run_command
from safetensors.torch import save_file
from stand_in_line import Device, StandInLine

from revdist.networks import teacher
from revdist.scoring import detector

_FILL_S = 8.0  # until frames wait for the engine, and it is known how long batches take

_ALONE = """
import json, sys, time
from itertools import cycle, islice
from pathlib import Path
from revdist.bundle import bundle
from revdist.networks import teacher
from revdist.engines.engine import Engine
path, runtime, precision, weights, batch, seconds = json.loads(sys.argv[1])
known = bundle.read(Path(path), weights=False)
engine = Engine(teacher.load(known.teacher.name, weights and Path(weights)), runtime=runtime, precision=precision)
bundle.install(known, engine, product="cell")
engine.warm([batch])
pictures = [pixels for _, pixels in bundle.golden_pictures(known)]
pictures = list(islice(cycle(pictures), batch))
begun, judged = time.monotonic(), 0
while time.monotonic() < begun + seconds:
    judged += len(engine.inspect(pictures, ["cell"] * batch).scores)
print(judged / (time.monotonic() - begun))
"""


def main() -> int:
    given = options(
        __doc__,
        teacher="wide_resnet50_2", runtime="torch", precision="float32",
        size=256, batch=4, rounds=3, seconds=30.0, overload=1.1,
    )  # fmt: skip
    rows = []
    with ground() as (directory, _, cells), ExitStack() as stack:
        weights = random_weights(given.teacher, directory / "teacher.safetensors")
        engine = f"{given.runtime}-cpu-{given.precision}"
        bundle = train(directory, cells, given.teacher, weights, given.size, engine)
        broker = Broker(directory / "broker", safe=False)
        stack.callback(broker.stop)
        for number in range(given.rounds):
            alone_hz = capacity_hz(bundle, engine, weights, given.batch, given.seconds / 2)
            listener = Listener(broker.port)
            service = RealLine(directory / f"line{number}", bundle, broker.port, Device(base_ms=1, per_frame_ms=1))
            stack.callback(service.close)
            service.settings["batch"] = {"max_batch": given.batch}
            service.settings["engine"] = {"runtime": given.runtime, "precision": given.precision}
            if weights:
                service.settings["engine"]["teacher_weights"] = str(weights)
            ready_s, judged_hz = serve(service, listener, cells, given.overload * alone_hz, given.seconds)
            listener.close()
            rows.append(
                {
                    "engine Hz": alone_hz,
                    "service Hz": judged_hz,
                    "share": judged_hz / alone_hz,
                    "ready after s": ready_s,
                    "machine's load": load_average(),
                }
            )
    report(rows, given.json)
    return 0


def random_weights(name: str, path: Path) -> Path | None:
    """Weights that keep activations finite; None where a package has the real ones."""
    if name == "efficientnet_lite0":
        return None
    torch.manual_seed(0)
    trunk = detector.initialise(teacher.build(name))
    for part in trunk.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_var.fill_(2.0)
    save_file(trunk.state_dict(), path)
    return path


def train(directory: Path, cells: list[Path], name: str, weights: Path | None, size: int, engine: str) -> Path:
    """A bundle after one step, calibrated for the engine."""
    good = directory / "good"
    good.mkdir()
    for cell in cells[:24]:
        shutil.copy(cell, good)
    bundle, own = directory / "bundle", ["--teacher-weights", weights] if weights else []
    wanted = ["--good", good, "--false-reject-rate", 0.2, *own]
    size_of_it = ["--size", size, "--steps", 1, "--batch", 2]
    commands = [["train", "--product", "cell", "--output", bundle, "--teacher", name, *size_of_it, *wanted]]
    if engine not in ("torch-cpu-float32", "openvino-cpu-float32"):  # `train` calibrates for these
        commands.append(["calibrate", bundle, "--engine", engine, *wanted])
    for command in commands:
        made = run_command("revdist", *command)
        assert made.returncode == 0, made.stderr
    return bundle


def capacity_hz(bundle: Path, engine: str, weights: Path | None, batch: int, seconds: float) -> float:
    """What the engine judges in full batches when nobody else is there."""
    runtime, _, precision = engine.split("-")
    given = json.dumps([str(bundle), runtime, precision, weights and str(weights), batch, seconds])
    found = subprocess.run([sys.executable, "-c", _ALONE, given], capture_output=True, text=True, check=True)
    return float(found.stdout)


def serve(
    service: StandInLine, listener: Listener, cells: list[Path], rate_hz: float, seconds: float
) -> tuple[float, float]:
    """Seconds until the service is ready, and the frames that it then judges in a second."""
    line = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=10_000)
    shown = kinds(cells[30], cells[31])
    begun = time.monotonic()
    service.spawn()
    while not service.is_ready():
        assert not service.ended(), service.log.read_text()[-3000:]
        time.sleep(0.01)
    ready_s = time.monotonic() - begun
    line.wait_for_cameras()
    feeder = line.feed(shown, rate_hz)
    time.sleep(_FILL_S)
    phase = line.phase([feeder], seconds)
    service.stop()
    return ready_s, phase.judged_hz


if __name__ == "__main__":
    sys.exit(main())
