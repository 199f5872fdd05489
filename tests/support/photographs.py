"""The real photographs of the tests, electroluminescence pictures of solar cells, and a tiny bundle trained on them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from peers import run_command


def photographs(probability: float) -> list[Path]:
    found = importlib.util.find_spec("elpv_dataset")
    assert found
    assert found.origin
    data = Path(found.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [data / path for path, label, kind in rows if kind == "mono" and float(label) == probability]


def train_tiny(directory: Path, cells: list[Path], *, size: int, seed: int) -> Path:
    good = directory / "good"
    good.mkdir()
    for cell in cells:
        shutil.copy(cell, good)
    made = run_command(
        "revdist", "train", "--good", good, "--product", "cell", "--output", directory / "cell", "--teacher",
        "efficientnet_lite0", "--steps", "12", "--size", size, "--false-reject-rate", "0.1", "--seed", seed,
        "--threads", "2",  # the same bundle whatever else runs: tests know its scores
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return directory / "cell"
