"""Settings files for tests: a good one with something added, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejectd.contract import settings_file
from rejectd.contract.declaration import SettingsError

CAMERAS = "cameras: {a: {type: folder, product: cell, path: pictures}}\n"
PRODUCTS = "products: {cell: {bundle: cell}}\n"
REST = CAMERAS + PRODUCTS  # two lines
GOOD = "line: l\n" + REST


def camera(more: str, start: str = "type: folder, product: cell, path: pictures") -> str:
    """A good file but for what is added to its camera, in line 2."""
    return f"line: l\ncameras: {{a: {{{start}, {more}}}}}\n{PRODUCTS}"


def video(url: str, more: str = "") -> str:
    return camera(f"url: '{url}'{more}", start="type: video, product: cell")


def group(text: str) -> str:
    """A good file with one more group, in line 4."""
    return GOOD + text + "\n"


def load(directory: Path, text: str) -> settings_file.Settings:
    file = directory / "line.yaml"
    file.write_bytes(text.encode())
    return settings_file.load(file)


def complaints(directory: Path, text: str) -> list[str]:
    """What a person reads, one line for each mistake, without the folder's name."""
    with pytest.raises(SettingsError) as caught:
        load(directory, text)
    return str(caught.value).replace(f"{directory}/", "").splitlines()


NO_GROUP = "is not a group of settings; write `name: value` lines, indented below the key"
