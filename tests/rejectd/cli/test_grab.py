"""rejectd.cli.grab: pictures for training are those that the service would judge, each once and none that shows
nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from peers import command

from rejectd.cli import grab
from rejectd.contract.messages import Pixels
from rejectd.contract.settings import FolderCamera, FolderMode


def _folder(directory: Path, values: list[int]) -> Path:
    """Pictures of a gradient of these brightnesses."""
    folder = directory / "shown"
    folder.mkdir()
    rows, columns = np.indices((40, 60))
    for number, value in enumerate(values):
        pixels = np.stack([rows + value, columns + value, rows // 2 + value], 2).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03}.png"), pixels)
    return folder


def _camera(folder: Path, **settings: Any) -> FolderCamera:
    return FolderCamera(product="cell", path=folder, rate_hz=200, **settings)


def _read(path: Path) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)


def test_pictures_are_the_pixels_of_the_cameras_region_without_loss(tmp_path: Path) -> None:
    folder, output = _folder(tmp_path, [10, 50, 90]), tmp_path / "good"
    done = grab.grab("top", _camera(folder, region=(5, 7, 30, 20)), 3, output)
    assert (done.kept, done.equal, done.faults) == (3, 0, [])
    kept, shown = sorted(output.iterdir()), sorted(folder.iterdir())
    assert len(kept) == 3
    for written, original in zip(kept, shown, strict=True):
        np.testing.assert_array_equal(_read(written), _read(original)[7:27, 5:35])


def test_equal_pictures_are_kept_once_also_when_grab_is_called_again(tmp_path: Path) -> None:
    folder, output = _folder(tmp_path, [10, 10, 50, 10, 90]), tmp_path / "good"
    first = grab.grab("top", _camera(folder), 3, output)
    assert (first.kept, first.equal) == (3, 2)
    again = grab.grab("top", _camera(folder), 3, output)
    assert (again.kept, again.equal) == (0, 5)
    assert len(list(output.iterdir())) == 3
    assert again.sentence(output).startswith("0 of 3 pictures")


def test_what_shows_nothing_is_told_at_once_and_not_kept(tmp_path: Path) -> None:
    folder, output, told = _folder(tmp_path, [10, 50, 90]), tmp_path / "good", []
    (folder / "001.png").write_bytes(b"torn")
    done = grab.grab(
        "top",
        _camera(folder),
        1,
        output,
        examine=lambda pixels: "black: it is dark" if pixels[0, 0, 2] == 10 else "",
        say=told.append,
    )
    assert (done.kept, len(done.faults)) == (1, 2)
    assert told[0] == "camera top is degraded: black: it is dark"
    assert told[1] == "000.png: not kept: black: it is dark"
    assert told[2].startswith("001.png: not kept: ")


def test_a_camera_that_shows_nothing_new_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    (tmp_path / "idle").mkdir()
    told: list[str] = []
    camera = FolderCamera(product="cell", path=tmp_path / "idle", mode=FolderMode.WATCH)
    done = grab.grab("top", camera, 1, tmp_path / "good", wait_s=0.5, say=told.append)
    assert done.kept == 0
    assert told[-1] == "camera top: nothing new for 0.5 s; is it triggered?"


def test_a_replay_that_loops_ends_when_it_shows_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grab, "_EQUAL_MOST", 10)
    done = grab.grab("top", _camera(_folder(tmp_path, [10, 50]), loop=True), 5, tmp_path / "good")
    assert (done.kept, done.equal) == (2, 10)


def test_the_command_takes_the_settings_file_and_says_what_it_kept(tmp_path: Path, cells: list[Path]) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    for path in cells[:4]:
        shutil.copy(path, shown)
    black = np.zeros((300, 300, 3), np.uint8)
    cv2.imwrite(str(shown / "0000.png"), black)
    settings = {
        "line": "l",
        "cameras": {"top": {"type": "folder", "product": "cell", "path": "shown", "rate_hz": 100}},
        "products": {"cell": {"bundle": "not-there-yet"}},
    }
    (tmp_path / "line.yaml").write_text(json.dumps(settings))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command("rejectd"), "grab", str(tmp_path / "line.yaml"), *words],
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = run("top", "--count", "4", "--output", str(tmp_path / "good"))
    assert (done.returncode, done.stdout) == (
        0,
        f"4 of 4 pictures in {tmp_path / 'good'}; left out: 0 equal, 1 faulty\n",
    ), done.stderr
    assert "0000.png: not kept: black: " in done.stderr
    wrong = run("side", "--count", "4", "--output", str(tmp_path / "good"))
    assert (wrong.returncode, "they have top" in wrong.stderr) == (2, True)
