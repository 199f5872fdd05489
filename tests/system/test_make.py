"""Makefile: any Python from 3.11 on makes the environment; where there is none, a person reads what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"  # what stands in the way where pyenv is
OLD = "#!/bin/sh\nexit 1\n"  # 3.10 says so to the question whether it is 3.11 or later
WITHOUT_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n'  # Debian's, as it comes
WORKS = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder that is the whole PATH: the shell and a few tools, but no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("make", "sh", "basename", "rm"):
        place = shutil.which(name)
        assert place is not None
        (folder / name).symlink_to(place)
    return folder


def _make(tools: Path, venv: Path, **pythons: str) -> subprocess.CompletedProcess[str]:
    for name, script in pythons.items():
        program = tools / name.replace("_", ".")
        program.write_text(script)
        program.chmod(0o755)
    words = ["make", "--no-print-directory", "-C", str(CHECKOUT), f"VENV={venv}", f"{venv}/bin/python"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON" and "MAKE" not in name}
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment | {"PATH": str(tools)})


def test_the_first_python_that_runs_and_is_new_enough_makes_the_environment(tools: Path, tmp_path: Path) -> None:
    done = _make(tools, tmp_path / "venv", python3_11=SHIM, python3_12=WITHOUT_VENV, python3_13=OLD, python3=WORKS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("(python3)")
    assert (tmp_path / "venv" / "bin" / "pip").exists()


def test_without_a_python_the_names_that_were_tried_are_told(tools: Path, tmp_path: Path) -> None:
    done = _make(tools, tmp_path / "venv", python3=OLD)
    assert done.returncode == 2
    assert "no Python from 3.11 on" in done.stderr
    assert "python3.14 python3" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_named_with_the_package_that_it_lacks(tools: Path, tmp_path: Path) -> None:
    done = _make(tools, tmp_path / "venv", python3_12=WITHOUT_VENV)
    assert done.returncode == 2
    assert "python3.12 has no venv" in done.stderr
    assert "apt install python3.12-venv" in done.stderr
