"""A machine with a real systemd: the root of this one under an overlay, booted by systemd-nspawn without a network.

Everything lives in mount and process namespaces of its own, so that nothing is left when it goes, however it goes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

TOOLS = ("systemd-nspawn", "systemd-analyze", "unshare", "nsenter", "setpriv")
TARGET = "rejectd-test.target"
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# Positional: a folder to mount on, the files to add, this machine's control group folders, `--`, options of nspawn.
_BOOT = """
set -e
base=$1 seed=$2; shift 2
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
cp -a "$seed/." "$base/upper"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
systemd-nspawn --quiet --boot --directory="$base/root" --register=no --keep-unit --private-network \
  --notify-ready=yes --link-journal=no --console=pipe "$@"
"""


class BootError(Exception):
    """No machine can be booted here."""


class Machine:
    """A booted machine. `close` ends it, and so does the death of this process."""

    def __init__(self, directory: Path, seed: Path, read_only: Mapping[str, Path], timeout_s: float = 40) -> None:
        """Boot with the files of `seed` laid over this machine's, and folders of it to be seen elsewhere.

        Raises:
            BootError: if that is not possible here.
        """
        if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
            raise BootError(f"not installed: {', '.join(missing)}")
        if os.geteuid() != 0:
            raise BootError("only root may boot a machine")
        self._console = directory / "console"
        self._groups: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        _prepare(seed)
        try:
            with ExitStack() as undo:
                undo.callback(self.close)
                self._boot(directory, seed, read_only, timeout_s)
                undo.pop_all()
        except (OSError, BootError) as error:
            console = self._console.read_text(errors="replace") if self._console.exists() else ""
            raise BootError(f"{error}; the console said: {console[-2000:]}") from error

    def run(self, *command: object, text: str | None = None, check: bool = True) -> str:
        """Run a command as root in the machine; returns what it prints. A failure fails the test unless wished."""
        enter = ["nsenter", f"--target={self._init}", "--all", "--wd=/", "--"]
        made = subprocess.run(
            [*enter, *map(str, command)], input=text, capture_output=True, text=True, timeout=60, env=_ENVIRONMENT
        )
        what = " ".join(map(str, command))
        assert not check or made.returncode == 0, f"{what}: exit {made.returncode}: {made.stdout}{made.stderr}"
        return made.stdout + ("" if check else made.stderr)

    def write(self, path: str, text: str) -> None:
        """Write a file in the machine."""
        self.run("tee", path, text=text)

    def show(self, unit: str) -> dict[str, str]:
        """What the service manager knows of a unit."""
        rows = (row.partition("=") for row in self.run("systemctl", "show", unit).splitlines())
        return {name: value for name, _, value in rows}

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """Every entry of a unit, and of the service manager about it, in order."""
        rows = self.run("journalctl", "--boot", "--output=json", "--all", "--unit", unit).splitlines()
        return [json.loads(row) for row in rows]

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
        """Wait on a condition in the machine."""
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, f"waited {timeout_s:g} s in vain until: {what}"
            time.sleep(0.2)

    def close(self) -> None:
        """End every process of the machine, and with the last one its mounts."""
        if self._process:
            self._process.kill()  # and with it, by --kill-child, the namespace
            self._process.wait(timeout=10)
        until = time.monotonic() + 10
        while left := [group for group in self._groups if not _remove(group)]:
            assert time.monotonic() < until, f"processes of the machine are left in {left}"
            time.sleep(0.05)

    def _boot(self, directory: Path, seed: Path, read_only: Mapping[str, Path], timeout_s: float) -> None:
        base = directory / "machine"
        base.mkdir()
        name = f"rejectd-test-{uuid.uuid4().hex[:8]}"
        for hierarchy in _hierarchies():
            (hierarchy / name).mkdir()
            self._groups.append(hierarchy / name)
        binds = [f"--bind-ro={source}:{target}" for target, source in read_only.items()]
        isolate = [
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        command = [
            *isolate,
            "sh",
            "-c",
            _BOOT,
            "boot",
            base,
            seed,
            *self._groups,
            "--",
            *binds,
            "--",
            f"--unit={TARGET}",
        ]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self._console.open("wb") as console:
            notified.bind(f"\0{name}")
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**_ENVIRONMENT, "NOTIFY_SOCKET": f"@{name}"},
            )
            self._init = self._find(self._wait_ready(notified, timeout_s))

    def _wait_ready(self, notified: socket.socket, timeout_s: float) -> str:
        """Wait until the machine is up. Returns the process id of its init as nspawn sees it."""
        assert self._process
        leader, until = "", time.monotonic() + timeout_s
        notified.settimeout(0.5)
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise BootError(f"systemd-nspawn ended with {self._process.returncode}")
            try:
                words = dict(line.split("=", 1) for line in notified.recv(4096).decode().splitlines() if "=" in line)
            except TimeoutError:
                continue
            leader = words.get("X_NSPAWN_LEADER_PID", leader)
            if words.get("READY") == "1" and leader:
                return leader
        raise BootError(f"not up after {timeout_s:g} s")

    def _find(self, leader: str) -> int:
        """The init of the machine as this process sees it: its own namespace gives it number 1."""
        for processes in (file for group in self._groups for file in group.rglob("cgroup.procs")):
            for process in processes.read_text().split():
                status = Path(f"/proc/{process}/status")
                rows = status.read_text().splitlines() if status.exists() else []
                numbers = [row.split()[1:] for row in rows if row.startswith("NSpid:")]
                if numbers and numbers[0][-2:] == [leader, "1"]:
                    return int(process)
        raise BootError("its init is not to be found")


def _prepare(seed: Path) -> None:
    """What every machine needs to boot alone: an identity, none of this machine's disks, services and timers."""
    seed.chmod(0o755)
    units = seed / "etc" / "systemd" / "system"
    units.mkdir(parents=True, exist_ok=True)
    (seed / "etc" / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    (seed / "etc" / "fstab").touch()
    (units / TARGET).write_text("[Unit]\nRequires=basic.target\nAfter=basic.target\n")
    for name in ("timers.target", "systemd-networkd-wait-online.service", "NetworkManager-wait-online.service"):
        (units / name).symlink_to("/dev/null")


def _hierarchies() -> list[Path]:
    """Where control groups are mounted that systemd keeps its units in."""
    mounts = [row.split() for row in Path("/proc/mounts").read_text().splitlines()]
    found = [
        Path(where)
        for _, where, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(","))
    ]
    if not found:
        raise BootError("no control groups are mounted")
    return found


def _remove(group: Path) -> bool:
    """Remove a control group and those in it. False while there are processes in it."""
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True
