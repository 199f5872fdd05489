"""A line whose device is the stand-in of stand_in.py: how fast it is, what it shows, and what came of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from line import Line
from peers import wait_for

SIZE = 64
THRESHOLD = 0.5  # of the mean brightness
_GOOD, _BAD = 0.35, 0.65


@dataclass(frozen=True, kw_only=True)
class Device:
    """A processor that takes base + n * per_frame for a batch of n frames."""

    base_ms: float
    per_frame_ms: float
    max_batch: int = 8

    def batch_ms(self, frames: int) -> float:
        return self.base_ms + self.per_frame_ms * frames

    @property
    def capacity_hz(self) -> float:
        """Frames in a second when every batch is full."""
        return 1000 * self.max_batch / self.batch_ms(self.max_batch)


@dataclass(frozen=True)
class Busy:
    """One batch that the device had."""

    started_ns: int
    ended_ns: int
    frames: int


class StandInLine(Line):
    """The service of one line, on the stand-in device."""

    def __init__(self, directory: Path, bundle: Path, broker_port: int, device: Device) -> None:
        super().__init__(directory, bundle, broker_port)
        self.device = device
        self.settings["products"]["cell"]["threshold"] = THRESHOLD
        self.settings["batch"] = {"max_batch": device.max_batch}
        self._hang = directory / "hang"
        self._busy = directory / "busy.log"
        self._next: tuple[subprocess.Popen[bytes], Path] | None = None

    def stand_by(self, log: Path) -> None:
        """Have the next process import everything meanwhile."""
        self._next = self._process(log, "--wait", stdin=subprocess.PIPE), log

    def spawn(self) -> None:
        """Start the process, or let the one that stands by begin, and wait for nothing."""
        self.write()
        if self._next:
            (self.process, self.log), self._next = self._next, None
            assert self.process.stdin
            self.process.stdin.close()
        else:
            self.process = self._process(self.log)

    def start(self, *options: str) -> None:
        assert not options
        self.spawn()
        wait_for(lambda: self.ended() or self.is_ready(), "the service is ready", 90)

    def close(self) -> None:
        """Kill what runs."""
        for process in (self.process, self._next and self._next[0]):
            if process:
                process.kill()
                process.wait(timeout=10)
                if process.stdin:
                    process.stdin.close()

    def _process(self, log: Path, *options: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
        device = ["--base-ms", str(self.device.base_ms), "--per-frame-ms", str(self.device.per_frame_ms)]
        script = [sys.executable, str(Path(__file__).with_name("stand_in.py")), *options]
        files = ["--hang", str(self._hang), "--log", str(self._busy)]
        with log.open("ab") as out:
            arguments = [*script, *device, *files, "run", str(self.file)]
            return subprocess.Popen(arguments, stdin=stdin, stderr=out, stdout=out)

    def is_ready(self) -> bool:
        return self.log.exists() and "ready line=" in self.log.read_text(errors="replace")

    def hang(self) -> None:
        """Let the device hang with the next batch, until `go_on`."""
        self._hang.touch()

    def go_on(self) -> None:
        self._hang.unlink()

    def busy(self) -> list[Busy]:
        """What the device did so far; the last line of a killed process may be a piece."""
        rows = self._busy.read_text().splitlines() if self._busy.exists() else []
        return [Busy(*map(int, row.split())) for row in rows if row.count(" ") == 2]


def pictures(photographs: Sequence[Path], directory: Path, *, bad: bool = False) -> list[Path]:
    """Real photographs, made small, and dark or bright enough for the device to pass or to reject them."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for number, photograph in enumerate(photographs):
        grey = cv2.imread(str(photograph), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(float)
        light = _BAD if bad else _GOOD
        picture = 255 * light + 0.4 * (small - small.mean())  # 0.4: nothing is cut off at black or white
        made.append(directory / f"{'bad' if bad else 'good'}{number:02}.png")
        cv2.imwrite(str(made[-1]), np.clip(picture, 0, 255).astype(np.uint8))
    return made
