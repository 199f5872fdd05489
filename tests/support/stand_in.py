"""The command `rejectd` on a device that no machine here has: a processor of its own with a known, constant speed.

    python stand_in.py --base-ms 20 --per-frame-ms 10 [--hang FILE] [--log FILE] [--wait] run line.yaml

A batch of n frames takes base + n * per_frame, in which the thread sleeps and holds nothing. The score of a picture is
its mean brightness, 0 to 1, so that a test knows the right verdict. All else is the real service.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from rejectd import inspector
from rejectd.cli import command
from revdist.engines.engine import Engine
from revdist.engines.lanes import Later
from revdist.engines.loaded_product import Inspection
from revdist.networks.teacher import Teacher

_LOOK_S = 0.002  # how often a hung device looks whether it may go on


class Processor:
    """Takes its time. It hangs as long as the file `hang` exists, and logs each batch as `started_ns ended_ns n`."""

    def __init__(self, *, base_ms: float, per_frame_ms: float, hang: Path | None, log: Path | None) -> None:
        self._base_ns = base_ms * 1e6
        self._per_frame_ns = per_frame_ms * 1e6
        self._hang = hang
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None

    def work(self, frames: int) -> None:
        """Be busy with a batch."""
        started_ns = time.monotonic_ns()
        while self._hang and self._hang.exists():
            time.sleep(_LOOK_S)
        left_ns = started_ns + self._base_ns + self._per_frame_ns * frames - time.monotonic_ns()
        time.sleep(max(0.0, left_ns / 1e9))
        if self._log is not None:
            os.write(self._log, f"{started_ns} {time.monotonic_ns()} {frames}\n".encode())


class StandIn(Engine):
    """Real until it is warmed, so that the golden pictures of a bundle agree; from then on the stand-in."""

    processor: ClassVar[Processor]

    def __init__(
        self,
        teacher: Teacher,
        *,
        device: str = "auto",
        precision: str = "float32",
        runtime: str = "torch",
    ) -> None:
        super().__init__(teacher, device="cpu", precision=precision, runtime=runtime)
        self._warm = False

    def at_once(self, product: str) -> int:
        """All of a batch."""
        return 0

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """The models are loaded."""
        self._warm = True

    def begin(self, pixels: Sequence[npt.NDArray[np.uint8]], products: Sequence[str]) -> Later[Inspection]:
        """Scores of pictures, uint8 (h, w, 3) each; an anomaly map is the score everywhere."""
        if not self._warm:
            return super().begin(pixels, products)
        self.processor.work(len(pixels))
        scores = np.array([picture.mean() / 255 for picture in pixels], np.float32)
        maps = [torch.full(picture.shape[:2], score) for picture, score in zip(pixels, scores.tolist(), strict=True)]
        return Later.known(Inspection(scores, scores, maps))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-ms", type=float, required=True)
    parser.add_argument("--per-frame-ms", type=float, required=True)
    parser.add_argument("--hang", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--wait", action="store_true", help="do nothing before stdin is closed")
    options, arguments = parser.parse_known_args()
    StandIn.processor = Processor(
        base_ms=options.base_ms, per_frame_ms=options.per_frame_ms, hang=options.hang, log=options.log
    )
    inspector.Engine = StandIn  # type: ignore[misc]
    if options.wait:  # everything is imported, which takes seconds
        sys.stdin.read()
    command.main(arguments)


if __name__ == "__main__":
    main()
