"""Files that attack the service: each ends as a fault in time, runs no program, and the next part is judged."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from line import Line, Subscriber
from peers import wait_for
from picture_files import png_chunk, png_of, saved, smooth
from PIL import Image

pytestmark = pytest.mark.system

JPEG = saved(Image.fromarray(smooth(160, 200)), "JPEG")
HOSTILE = {
    "bomb.png": png_of(png_chunk(b"IDAT", zlib.compress(bytes(13_001 * 13_000), 9)), width=13_000, height=13_000),
    "endless.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n%%EOF\n",
    "replaced_end.jpg": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "zeros.jpg": JPEG[: len(JPEG) // 2] + bytes(600) + JPEG[len(JPEG) // 2 + 600 :],
    "int32.tif": saved(Image.fromarray(np.full((90, 90), 200, np.int32)), "TIFF"),
    "animation.png": saved(
        Image.fromarray(smooth(64, 64)), "PNG", save_all=True, append_images=[Image.fromarray(255 - smooth(64, 64))]
    ),
}
LARGEST_MB = 300  # a part of what one of these files would take if it were decoded


def _memory_mb(line: Line, kind: str) -> float:
    assert line.process is not None
    status = Path(f"/proc/{line.process.pid}/status").read_text()
    return next(int(row.split()[1]) / 1000 for row in status.splitlines() if row.startswith(kind))


def _children(line: Line) -> list[str]:
    assert line.process is not None
    tasks = Path(f"/proc/{line.process.pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def test_hostile_files_are_faults_in_time_and_the_parts_between_them_are_judged(
    line: Line, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    hot = tmp_path / "hot"
    hot.mkdir()
    line.settings["cameras"]["cam"] = {
        "type": "folder", "mode": "watch", "product": "cell", "path": str(hot), "deadline_ms": 4000,
    }  # fmt: skip
    line.settings["products"]["cell"]["threshold"] = 1000  # every picture that can be read is a pass
    line.start()
    wait_for(lambda: subscriber.states("cam")[-1:] == ["up"], "the camera is up")
    before_mb = _memory_mb(line, "VmRSS")

    def verdict(name: str) -> dict[str, object]:
        def came() -> list[dict[str, object]]:
            return [body for body in subscriber.of("verdict").values() if body["source"] == name]

        wait_for(lambda: bool(came()), f"the verdict of {name}", 10)
        return came()[0]

    def show(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).rename(hot / name)

    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "pipe.png").rename(hot / "pipe.png")
    assert verdict("pipe.png")["cause"] == "camera_fault"
    for number, (name, content) in enumerate(HOSTILE.items()):
        show(name, content)
        hostile = verdict(name)
        assert (hostile["decision"], hostile["cause"]) == ("unjudged", "camera_fault"), name
        show(f"good{number}.png", cells[number].read_bytes())
        assert verdict(f"good{number}.png")["decision"] == "pass"
    assert _children(line) == []
    assert _memory_mb(line, "VmHWM") - before_mb < LARGEST_MB
    assert line.stop(timeout_s=10) == 0
