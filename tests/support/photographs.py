"""The real photographs of the tests: electroluminescence pictures of solar cells."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def photographs(probability: float) -> list[Path]:
    found = importlib.util.find_spec("elpv_dataset")
    assert found
    assert found.origin
    data = Path(found.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [data / path for path, label, kind in rows if kind == "mono" and float(label) == probability]
