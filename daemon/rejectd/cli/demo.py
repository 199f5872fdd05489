"""`rejectd demo`: the main job on real photographs, with the commands that a line engineer would type.

Electroluminescence photographs of solar cells: Deitsch et al., "Automatic classification of defective photovoltaic
module cells in electroluminescence images", Solar Energy 185, 2019 (PyPI `elpv-dataset`, CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles

from rejectd.cli.watch import Tally, watch
from rejectd.contract import settings_file
from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Mqtt
from rejectd.mqtt import LinkError, connect
from revdist.files import trouble

_SHOWN = 100  # surely defective cells that pass the cameras: the first of the data set, as its authors numbered them
_GOOD = 300  # photographs of good cells to train and calibrate with; all others are unseen
_RATE_HZ = 6  # of each of the two cameras
_SEED = 7


class DemoError(RejectdError):
    """The demonstration cannot run here."""


def run(directory: Path, *, steps: int | None = None) -> None:
    """Train (once), evaluate, serve two cameras, show the account.

    Raises:
        DemoError: if a part is missing or a step failed.
    """
    directory = directory.absolute()
    if wrong := trouble.why_not_writable(directory / "line.yaml"):
        raise DemoError(f"{directory}: cannot be written: {wrong.cause}", hint=wrong.hint or "give another --directory")
    _title("1. Real photographs of solar cells")
    _lay_out(directory)
    bundle = directory / "bundle"
    _train(directory, bundle, steps)
    _title("3. Evaluate on cells that training never saw")
    print(f"The cells that will pass the cameras: unseen good ones and the first {_SHOWN} that are surely defective.")
    _command("revdist", "evaluate", str(bundle), "--data", str(directory / "pictures"))
    print("\nAll surely defective cells, among them many whose cracks are faint:")
    _command("revdist", "evaluate", str(bundle), "--data", str(directory / "all-pictures"))
    _title("4. Run the line: two cameras, one service, one broker")
    with contextlib.ExitStack() as stack:
        broker = _broker(stack)
        file = _configure(directory, broker)
        _command("rejectd", "check", str(file))
        tally = _serve(file)
    _account(tally, directory)


def _lay_out(directory: Path) -> None:
    """Sort the photographs into the folders of training, evaluation and the two cameras."""
    good, all_defective = _cells()
    defective = all_defective[:_SHOWN]
    random.Random(_SEED).shuffle(good)
    folders = {
        "pictures/train/good": good[:_GOOD],
        "pictures/test/good": good[_GOOD:],
        "pictures/test/defective": defective,
        "all-pictures/train/good": good[:_GOOD],
        "all-pictures/test/good": good[_GOOD:],
        "all-pictures/test/defective": all_defective,
    }
    for name, cells in folders.items():
        for cell in cells:
            _link(cell, directory / name / cell.name)
    unseen = [(cell, "good") for cell in good[_GOOD:]] + [(cell, "defective") for cell in defective]
    random.Random(_SEED + 1).shuffle(unseen)
    for number, (cell, kind) in enumerate(unseen):
        camera = ("left", "right")[number % 2]
        _link(cell, directory / "cameras" / camera / f"{number:04}-{kind}-{cell.name}")
    print(f"{_GOOD} good cells to train with; unseen: {len(good) - _GOOD} good and {len(defective)} defective")


def _cells() -> tuple[list[Path], list[Path]]:
    """Monocrystalline cells, surely functional and surely defective; those that the experts left open are left out."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise DemoError("the photographs are missing", hint='run `pip install "rejectd[demo]"`')
    data = Path(package.origin).parent / "data"
    good: list[Path] = []
    defective: list[Path] = []
    for line in (data / "labels.csv").read_text(encoding="ascii").splitlines():
        path, probability, kind = line.split()
        if kind == "mono" and float(probability) in (0, 1):
            (defective if float(probability) else good).append(data / path)
    return good, defective


def _train(directory: Path, bundle: Path, steps: int | None) -> None:
    _title("2. Train on good cells only")
    if (bundle / "bundle.json").is_file():
        print(f"{bundle} is there already; delete it to train again")
        return
    options = ["--steps", str(steps)] if steps else []
    good = str(directory / "pictures" / "train" / "good")
    _command("revdist", "train", "--good", good, "--product", "cell", "--output", str(bundle),
             "--teacher", "efficientnet_lite0", "--false-reject-rate", "0.02", *options)  # fmt: skip


def _configure(directory: Path, broker: Mqtt) -> Path:
    """Write the settings file of the line, as a line engineer would."""
    file = directory / "line.yaml"
    cameras = "".join(
        f"  {name}:\n    type: folder\n    product: cell\n    path: cameras/{name}\n    rate_hz: {_RATE_HZ}\n"
        for name in ("left", "right")
    )
    file.write_text(
        f"line: demo\n\ncameras:\n{cameras}\nproducts:\n  cell:\n    bundle: bundle\n\n"
        f"mqtt:\n  host: {broker.host}\n  port: {broker.port}\n\nmetrics:\n  port: {_free_port(9108)}\n",
        encoding="utf-8",
    )
    shutil.rmtree(directory / "state", ignore_errors=True)
    return file


def _broker(stack: contextlib.ExitStack) -> Mqtt:
    """A broker that listens here already, or an embedded one."""
    here = Mqtt()
    with contextlib.suppress(LinkError):
        connect(here, client_id=f"rejectd-demo-{os.getpid()}").close()
        print(f"using the broker that listens on {here.host}:{here.port}")
        return here
    embedded = Mqtt(port=_free_port(here.port))
    stack.enter_context(_embedded(embedded))
    print(f"embedded broker (amqtt) on {embedded.host}:{embedded.port}; a plant uses mosquitto or another real one")
    return embedded


@contextlib.contextmanager
def _embedded(where: Mqtt) -> Iterator[None]:
    try:
        from amqtt.broker import Broker
    except ImportError as error:
        raise DemoError("no broker", hint='run `pip install "rejectd[demo]"`, or start mosquitto') from error
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"{where.host}:{where.port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # it reports its own shutdown as an error
    loop = asyncio.new_event_loop()
    started: threading.Event = threading.Event()
    broker = Broker(config, loop=loop)

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(broker.start())
        started.set()
        loop.run_forever()

    thread = threading.Thread(target=serve, name="embedded broker", daemon=True)
    thread.start()
    if not started.wait(10):
        raise DemoError("the embedded broker does not start", hint="start mosquitto, then run the demo again")
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)


def _serve(file: Path) -> Tally:
    """Run the real service until both cameras have shown everything, and watch as a subscriber does."""
    settings = settings_file.load(file)
    log = (file.parent / "service.log").open("w", encoding="utf-8")
    with log, subprocess.Popen([*_program("rejectd"), "run", str(file), "--until-ended"], stderr=log) as service:
        print(f"$ rejectd run {file} --until-ended   (its log: {log.name})\n$ rejectd watch {file}", flush=True)
        try:
            tally = watch(settings, out=sys.stdout, until=_until_over(service, settings.metrics.port))
        finally:
            service.terminate()
            code = service.wait(timeout=30)
    if code:
        raise DemoError(f"the service ended with {code}", hint=f"see {log.name}")
    return tally


def _until_over(service: subprocess.Popen[bytes], metrics_port: int) -> Callable[[], bool]:
    """True a moment after the service ended, so that its last messages have come. Scrapes the metrics once."""
    started, over_at = time.monotonic(), 0.0
    scraped = False

    def until() -> bool:
        nonlocal over_at, scraped
        if not scraped and time.monotonic() > started + 15:
            scraped = True
            _scrape(metrics_port)
        if service.poll() is not None and not over_at:
            over_at = time.monotonic() + 1
        return bool(over_at) and time.monotonic() > over_at

    return until


def _scrape(port: int) -> None:
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            lines = page.read().decode().splitlines()
    except (urllib.error.URLError, OSError) as error:
        print(f"-- {url}: {error}")
        return
    shown = [line for line in lines if line.startswith(("rejectd_frames_captured_total", "rejectd_frames_in_flight"))]
    print(f"-- Prometheus can scrape {url}: {', '.join(shown)}", flush=True)


def _account(tally: Tally, directory: Path) -> None:
    """The end: what the ledger counted, what the subscriber received, how fast, and where the heat maps are."""
    _title("5. The account")
    status = tally.line_status
    ends = {name: int(status.get(name, 0)) for name in ("pass", "reject", "unjudged")}
    captured = int(status.get("captured", 0))
    sums = " + ".join(f"{count} {name}" for name, count in ends.items())
    print(f"ledger:     {captured} captured = {sums}{'' if captured == sum(ends.values()) else '  DOES NOT BALANCE'}")
    received = " + ".join(f"{tally.decisions[name]} {name}" for name in ends)
    print(f"subscriber: {len(tally.latencies_s)} received = {received}")
    if len(tally.latencies_s) > 1:
        cuts = quantiles(tally.latencies_s, n=100, method="inclusive")
        print(f"latency:    exposure to subscriber p50 {cuts[49] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms")
    unpublished = int(status.get("unpublished", 0))
    missed = tally.late + unpublished
    print(f"deadlines:  {missed} missed of {captured}{'; is this machine busy with something else?' if missed else ''}")
    heat_maps = sorted((directory / "state" / "evidence").glob("*/*-heat.jpg"))
    where = heat_maps[0].parent if heat_maps else directory / "state" / "evidence"
    print(f"heat maps:  {len(heat_maps)} of rejected cells in {where}")
    if captured == 0 or captured != sum(ends.values()) or len(tally.latencies_s) + unpublished != captured:
        raise DemoError("the account does not balance", hint=f"see {directory / 'service.log'}")


def _command(program: str, *arguments: str) -> None:
    """Show a command and run it."""
    print(f"$ {program} {' '.join(arguments)}", flush=True)
    code = subprocess.run([*_program(program), *arguments], check=False).returncode
    if code:
        raise DemoError(f"`{program} {arguments[0]}` ended with {code}", hint="the lines above say why")


def _program(name: str) -> list[str]:
    """The command of this environment."""
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.is_file() else shutil.which(name)
    if not program:
        raise DemoError(f"the command {name} is missing", hint="install the project: pip install .")
    return [program]


def _link(source: Path, target: Path) -> None:
    """The same picture under another name, without a copy where the file system allows it."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("no port is free", hint="stop other programs")


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)
