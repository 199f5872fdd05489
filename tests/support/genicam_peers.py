"""Cameras that speak GigE Vision, as processes of their own: Aravis's fake camera and viva-genicam's.

Run as a script, this file is viva-genicam's camera: it says `ready` and works until it is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_NUMBERS = itertools.count(1)


def need_aravis() -> None:
    """The library that the service reaches cameras with."""
    from peers import need_peer

    try:
        from rejectd.cameras.genicam.aravis import bindings

        bindings()
    except Exception as error:
        need_peer(False, f"Aravis ({error})")


def own_address() -> str:
    """An address of this machine that no other test uses: cameras listen on one fixed port."""
    return f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}.{next(_NUMBERS)}"


class _Camera:
    """A camera that can be killed, stopped and started again."""

    def __init__(self, command: list[str], address: str) -> None:
        self.address = address
        self._command = command
        self.process: subprocess.Popen[str] | None = None
        try:
            self.start()
        except BaseException:
            self.kill()
            raise

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process = None


class AravisFake(_Camera):
    """Aravis's own: its frames are numbered from about 65,400 on, so that they wrap soon; it knows no resend."""

    def __init__(self, *, serial: str = "GV07", lost_of_thousand: int = 0) -> None:
        program = shutil.which("arv-fake-gv-camera-0.8")
        assert program
        command = [program, "-i", "127.0.0.1", "-s", serial, "-r", str(lost_of_thousand)]
        super().__init__(command, "127.0.0.1")


class VivaCamera(_Camera):
    """viva-genicam's: it resends lost packets, and drops what it is told to drop."""

    def __init__(self, **options: object) -> None:
        """`options` are those of FakeGigeCamera."""
        address = own_address()
        super().__init__([sys.executable, __file__, json.dumps({"bind_ip": address, **options})], address)

    def start(self) -> None:
        super().start()
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, what: str) -> int | None:
        """`sent`: how many frames were sent. `revoke`: the camera takes control away."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())  # type: ignore[no-any-return]


@contextlib.contextmanager
def aravis_fake(**options: int) -> Iterator[AravisFake]:
    """Aravis's fake camera. There is one on a machine: it listens on 127.0.0.1 alone."""
    from peers import need_peer

    need_aravis()
    need_peer(shutil.which("arv-fake-gv-camera-0.8"), "Aravis's fake camera (aravis-tools)")
    with (Path(tempfile.gettempdir()) / "rejectd-test-gige.lock").open("w") as lock:
        _wait_for_lock(lock)
        camera = AravisFake(**options)  # type: ignore[arg-type]
        try:
            yield camera
        finally:
            camera.kill()


def _wait_for_lock(lock: IO[str]) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert time.monotonic() < until, "another test run keeps Aravis's fake camera for itself"
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def viva_camera(**options: object) -> Iterator[VivaCamera]:
    """viva-genicam's camera on an address of its own."""
    from peers import need_peer

    need_aravis()
    need_peer(importlib.util.find_spec("viva_genicam"), "viva-genicam")
    camera = VivaCamera(**options)
    try:
        yield camera
    finally:
        camera.kill()


def _serve(options: dict[str, object]) -> None:
    from viva_genicam.testing import FakeGigeCamera

    dropped = [(frame, packet) for frame, packet in options.pop("drop_packets", ())]  # type: ignore[attr-defined]
    with FakeGigeCamera(**options, drop_packets=dropped) as camera:  # type: ignore[arg-type]
        print("ready", flush=True)
        for line in sys.stdin:
            answer = camera.revoke_control() if line == "revoke\n" else camera.blocks_sent()
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
