"""Real peers of the tests, and how to wait for them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin") or "python3"  # which has GStreamer


class Mosquitto:
    """A real broker on a port of its own, with persistence, that can be stopped and started again."""

    def __init__(self, directory: Path, settings: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self.directory = directory
        self._config = directory / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\n{settings}\npersistence true\npersistence_location {directory}/\n"
            "autosave_interval 1\nautosave_on_changes true\nuser root\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        log = (self.directory / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen([mosquitto_path(), "-c", self._config], stdout=log, stderr=log)
        wait_for(self._accepts, "mosquitto accepts connections")

    def stop(self, *, kill: bool = False) -> None:
        if self._process:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(timeout=10)
            self._process = None

    def reload(self) -> None:
        """Have it read passwords and access lists again."""
        assert self._process
        self._process.send_signal(signal.SIGHUP)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class RtspServer:
    """The RTSP server of rtsp_server.py on one port, as often as it is started."""

    def __init__(self, codec: str, login: tuple[str, str] | None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/camera"
        self._arguments = [str(self.port), codec, *(login or ())]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        command = [SYSTEM_PYTHON, str(script), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def need_peer(found: object, what: str) -> None:
    """A real peer that is missing fails in CI; elsewhere the test is skipped, loudly."""
    if not found:
        message = f"{what} is not installed; .ci/run shows how to install it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def mosquitto_path() -> str:
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    need_peer(path, "mosquitto")
    assert path
    return path


def run_command(program: str, *arguments: object, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """Run a command of the project as a user would."""
    return subprocess.run([command(program), *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def command(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait on a condition of the outside world; for so long that a machine with other work gets there as well."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"waited {timeout_s:g} s in vain until: {what}"
        time.sleep(0.02)
