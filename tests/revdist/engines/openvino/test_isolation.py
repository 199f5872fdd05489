"""OpenVINO as this library imports it: it connects to nobody, and a verdict waits for no file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers import need_peer

from revdist.bundle.bundle import Bundle
from revdist.engines.openvino import compiled

# counts what the kernel was asked to send: in a network of its own, where nothing but this program could ask
COUNTING = """
import fcntl, json, os, runpy, socket, struct, sys
WATCHED = "OutNoRoutes", "ActiveOpens", "AttemptFails", "OutDatagrams", "Ip6OutNoRoutes", "Udp6OutDatagrams"

def attempts():
    lines = [line.split() for line in open("/proc/net/snmp")]
    counted = [pair for names, values in zip(lines[::2], lines[1::2]) for pair in zip(names, values)]
    counted += [line.split() for line in open("/proc/net/snmp6")]
    return sum(int(value) for name, value in counted if name in WATCHED)

def mapped():
    return {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if len(line.split(maxsplit=5)) == 6}

with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
before, status = attempts(), 0
"""
PREDICTING = """
sys.argv = ["revdist", *sys.argv[1:]]
try:
    runpy.run_module("revdist", run_name="__main__")
except SystemExit as end:
    status = end.code
import openvino
import openvino.tools.ovc  # which is where OpenVINO would report from
"""
ASKING = """
for address in ("192.0.2.1", "2001:db8::1", "example.org"):
    try:
        socket.create_connection((address, 80), timeout=1)
    except OSError:
        pass
"""
REPORTING = """
print(json.dumps({
    "status": status, "attempts": attempts() - before, "mapped": sorted(mapped()),
    "openvino": "openvino" in sys.modules, "telemetry": sys.modules.get("openvino_telemetry") is not None,
}), file=sys.stderr)
"""


def _alone(program: str, folder: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    """Run a program in a network of its own that leads nowhere; return its output and what it counted."""
    unshare = shutil.which("unshare")
    need_peer(unshare and os.geteuid() == 0, "unshare, run as root,")
    command = [str(unshare), "--net", sys.executable, "-c", COUNTING + program + REPORTING, *map(str, arguments)]
    places = {"HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder)}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=250, cwd=folder, env={**os.environ, **places}
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads(ended.stderr.splitlines()[-1])


def test_attempts_to_connect_would_be_counted(tmp_path: Path) -> None:
    _, counted = _alone(ASKING, tmp_path)
    assert counted["attempts"] >= 3


def test_an_inspection_connects_to_nobody_and_maps_and_writes_no_file(
    tiny: Bundle, good_cells: list[Path], tmp_path: Path
) -> None:
    out, counted = _alone(PREDICTING, tmp_path, "predict", tiny.path, good_cells[50], "--threads", 1)
    assert json.loads(out)["threshold"] == tiny.calibration("openvino-cpu-float32").threshold
    assert (counted["status"], counted["openvino"], counted["telemetry"], counted["attempts"]) == (0, True, False, 0)
    files = [name for name in counted["mapped"] if name.startswith("/") and ".so" not in Path(name).name]
    home = Path(sys.executable).resolve()
    assert [name for name in files if Path(name) != home and not name.startswith(("/usr/", "/dev/"))] == []
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_mapped_or_kept_in_a_cache() -> None:
    core = compiled._core()
    assert core.get_property("ENABLE_MMAP") is False
    assert core.get_property("CACHE_DIR") == ""


def test_telemetry_is_kept_out_before_openvino_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    compiled.openvino_package()
    with pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401
