"""What every bench stands on: real photographs, a tiny bundle, and a place for figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from peers import command
from photographs import photographs, train_tiny
from stand_in_line import Device, StandInLine


def options(description: str | None, **defaults: Any) -> argparse.Namespace:
    """The arguments of a bench, each with its default, and `--json FILE`."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


@contextmanager
def ground() -> Iterator[tuple[Path, Path, list[Path]]]:
    """A folder that goes away, a bundle for 64 x 64 pixels, and photographs of good solar cells."""
    with tempfile.TemporaryDirectory(prefix="rejectd-bench-") as name:
        directory, cells = Path(name), photographs(0)
        (directory / "training").mkdir()
        yield directory, train_tiny(directory / "training", cells[:40], size=64, seed=1), cells


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class RealLine(StandInLine):
    """The same line with the real engine, on this machine's processors, and the bundle's own threshold."""

    def __init__(self, directory: Path, bundle: Path, broker_port: int, device: Device) -> None:
        super().__init__(directory, bundle, broker_port, device)
        del self.settings["products"]["cell"]["threshold"]

    def _process(self, log: Path, *options: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen([command("rejectd"), "run", str(self.file)], stderr=out, stdout=out)


def load_average() -> float:
    """How many programs wanted a processor in the last minute; on a busy machine figures say little of the service."""
    return os.getloadavg()[0]


def report(rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print a table, and write the rows if wished."""
    names = list(rows[0])
    texts = [[f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(text[column]) for text in texts)) for column, name in enumerate(names)]
    for line in (names, *texts):
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)), flush=True)
    if json_file:
        json_file.write_text(json.dumps(list(rows), indent=1))
