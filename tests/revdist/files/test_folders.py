"""revdist.files.folders"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revdist.files import folders


def test_a_folder_is_written_whole_with_usual_permissions(tmp_path: Path) -> None:
    folders.write(tmp_path / "deep" / "new", {"a": b"1", "b/c": b"2"})
    assert (tmp_path / "deep" / "new" / "b" / "c").read_bytes() == b"2"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["new"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "deep" / "new").stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_older_folder_is_replaced_and_its_other_files_are_gone(tmp_path: Path) -> None:
    folders.write(tmp_path / "x", {"old": b"1", "both": b"1"})
    folders.write(tmp_path / "x", {"both": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == {"both": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failed_write_leaves_the_old_folder_and_no_debris(tmp_path: Path) -> None:
    folders.write(tmp_path / "x", {"old": b"1"})
    with pytest.raises(OSError, match="File name too long"):
        folders.write(tmp_path / "x", {"new": b"2", "n" * 300: b"3"})
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_replaces_an_older_one_or_leaves_it_without_debris(tmp_path: Path) -> None:
    folders.write_file(tmp_path / "deep" / "x", b"1")
    folders.write_file(tmp_path / "deep" / "x", b"2")
    assert {path.name: path.read_bytes() for path in (tmp_path / "deep").iterdir()} == {"x": b"2"}
    (tmp_path / "deep" / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        folders.write_file(tmp_path / "deep" / "folder", b"3")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["folder", "x"]


WRITER = """
import sys
from pathlib import Path
from revdist.files import folders
turn = 0
while True:
    turn += 1
    folders.write(Path(sys.argv[1]), {"a": b"%d" % turn, "b": b"%d" % turn})
    print(turn, flush=True)
"""


def test_a_killed_writer_leaves_the_old_folder_or_the_new_one_whole(tmp_path: Path) -> None:
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "x")], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        ends = time.monotonic() + 0.05
        while time.monotonic() < ends:  # the path is there at every moment, never between two folders
            assert (tmp_path / "x" / "a").exists()
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert (tmp_path / "x" / "a").read_bytes() == (tmp_path / "x" / "b").read_bytes()
