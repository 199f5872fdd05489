"""A folder with what settings name."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder with a bundle, a password and a certificate."""
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "bundle.json").write_text("{}")
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "ca.pem").write_text("-")
    return tmp_path
