"""Signals at any instant of the start, what a reload leaves to a restart, and clients of the metrics port."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from line import Line, Subscriber
from peers import command, wait_for

pytestmark = pytest.mark.system


def catches(process: subprocess.Popen[bytes], number: int) -> bool:
    """Whether a process has a handler for a signal, or has ended."""
    if process.poll() is not None:
        return True
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


@pytest.fixture
def starting(line: Line, cells: list[Path]) -> Line:
    """A line at the first instant of its start at which it catches signals."""
    line.folder("left", cells[:10], rate_hz=20, loop=True)
    line.write()
    with line.log.open("wb") as log:
        line.process = subprocess.Popen([command("rejectd"), "run", str(line.file)], stderr=log, stdout=log)
    wait_for(lambda: catches(line.process, signal.SIGHUP), "signals are caught")
    return line


def loads_torch(line: Line) -> bool:
    return line.ended() or "libtorch" in Path(f"/proc/{line.process.pid}/maps").read_text()


def is_ready(line: Line) -> bool:
    return line.ended() or "ready line=" in line.log.read_text()


def test_sighup_during_the_start_does_no_harm_and_is_honoured_afterwards(starting: Line) -> None:
    assert starting.process
    starting.process.send_signal(signal.SIGHUP)
    wait_for(lambda: loads_torch(starting), "torch is loaded", 60)
    starting.process.send_signal(signal.SIGHUP)
    wait_for(lambda: is_ready(starting), "the service is ready", 60)
    wait_for(lambda: starting.log.read_text().count("settings reloaded") == 2, "it reloads as often as it was told")
    assert starting.stop() == 0


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start_ends_it_soon_and_without_an_error(
    starting: Line, number: signal.Signals, late: bool
) -> None:
    if late:
        wait_for(lambda: loads_torch(starting), "torch is loaded", 60)
    before = time.monotonic()
    assert starting.stop(number) == 0
    assert time.monotonic() - before < 10, "the whole start takes longer on a busy machine"
    assert "Traceback" not in starting.log.read_text()
    assert "ready line=" not in starting.log.read_text()


def test_sighup_names_what_needs_a_restart(line: Line, cells: list[Path]) -> None:
    line.folder("left", cells[:10], rate_hz=20, loop=True)
    line.start()
    assert line.process
    line.settings["cameras"]["left"]["deadline_ms"] = 4321
    line.settings["products"]["cell"]["threshold"] = 0.5
    line.write()
    line.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "cameras.left.deadline_ms changed, which needs a restart" in line.log.read_text(), "it is named")
    assert "after=4321" in line.log.read_text()
    assert line.log.read_text().count("needs a restart") == 1, "a threshold needs none"
    assert line.stop() == 0


def test_idle_connections_to_the_metrics_port_take_nothing_from_the_service(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.folder("left", cells[:10], rate_hz=10, loop=True)
    line.start(program=["prlimit", "--nofile=1024:1024", command("rejectd")])
    wait_for(lambda: subscriber.of("verdict"), "verdicts arrive")
    assert line.process
    with ExitStack() as stack:
        for number in range(1010):
            idle = socket.create_connection(("127.0.0.1", line.metrics_port), timeout=10)
            stack.enter_context(idle)
            if number % 2:
                idle.sendall(b"GET /metrics HT")
        captured = line.total("rejectd_frames_captured_total")
        assert len(list(Path(f"/proc/{line.process.pid}/fd").iterdir())) < 300
        wait_for(lambda: line.total("rejectd_frames_captured_total") > captured + 20, "the line goes on")
        assert line.metrics()["rejectd_broker_connected"] == 1
    assert line.stop() == 0
    assert "Too many open files" not in line.log.read_text()


def test_the_soft_limit_of_open_files_is_raised(line: Line, cells: list[Path]) -> None:
    line.folder("left", cells[:10], rate_hz=10, loop=True)
    line.start(program=["prlimit", "--nofile=512:4096", command("rejectd")])
    assert line.process
    limits = Path(f"/proc/{line.process.pid}/limits").read_text().splitlines()
    (files,) = (text.split() for text in limits if text.startswith("Max open files"))
    assert files[3:5] == ["4096", "4096"]
    assert line.stop() == 0
