"""A folder to watch, with rescans that come soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejectd.cameras.watched import watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hot").mkdir()
    return tmp_path / "hot"


@pytest.fixture
def quick_rescan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESCAN_S", 0.2)
