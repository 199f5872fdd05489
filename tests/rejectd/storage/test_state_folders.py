"""rejectd.storage.state_folders: the folders of a service's state. Real folders, locks and processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rejectd.storage import state_folders
from rejectd.storage.state_folders import Claim, StateError, TakenError, in_memory, set_aside, within

# the claim


def test_a_folder_is_made_and_claimed_for_one_service_until_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    first = Claim(folder)
    first.ensure()
    first.ensure()
    assert folder.is_dir()
    assert list(folder.iterdir()) == [], "the claim writes nothing"
    hint = "stop it, or give this line a state_directory of its own"
    with pytest.raises(TakenError, match=rf"state: another rejectd uses this state directory; {hint}"):
        Claim(folder).ensure_within(5)
    first.close()
    second = Claim(folder)
    second.ensure_within(5)
    second.close()


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from rejectd.storage.state_folders import Claim; "
        "Claim(Path(sys.argv[1])).ensure()"
    )
    killed = subprocess.run([sys.executable, "-c", f"{script}; os.kill(os.getpid(), 9)", str(tmp_path)])
    assert killed.returncode == -9
    with contextlib.closing(Claim(tmp_path)) as claim:
        claim.ensure()


def test_a_folder_that_cannot_be_used_is_said_and_the_start_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    claim = Claim(tmp_path / "file" / "state")
    with pytest.raises(StateError, match=r"state: cannot be used: .*; let the service's user write there"):
        claim.ensure()
    claim.ensure_within(5)
    assert "the line runs without what it keeps there" in caplog.text
    (tmp_path / "file").unlink()
    claim.ensure()
    assert (tmp_path / "file" / "state").is_dir(), "it is claimed later, when it can be"
    claim.close()


def test_another_users_folder_is_said_and_the_start_goes_on(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    script = """
import logging, os, sys
from pathlib import Path
from rejectd.storage.state_folders import Claim
logging.basicConfig()
os.setgid(65534)
os.setuid(65534)
Claim(Path(sys.argv[1]) / "closed" / "state").ensure_within(5)
"""
    (tmp_path / "closed" / "state").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.stat().st_uid == 0 and "pytest" in parent.name:
            parent.chmod(0o755)
    other = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert other.returncode == 0, other.stderr
    assert "cannot be used: Permission denied" in other.stderr


def test_a_disk_that_does_not_answer_holds_up_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(state_folders, "make", lambda _directory: answers.wait(20))
    claim = Claim(tmp_path)
    claim.ensure_within(0.02)
    assert "the disk has not answered for 0.02 s; the line starts without it" in caplog.text
    answers.set()
    claim.ensure()
    claim.close()


def test_a_file_system_that_locks_no_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_file: int, _how: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with contextlib.closing(Claim(tmp_path)) as claim:
        claim.ensure()
    assert "cannot be locked: Bad file descriptor; see that no other rejectd uses it" in caplog.text


def test_what_work_raises_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)  # type: ignore[arg-type, return-value]


# memory


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where any user may make folders, without a folder given by systemd."""
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setattr(state_folders, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(state_folders, "_file_system", lambda _directory: "tmpfs")
    return tmp_path


def test_each_state_directory_has_a_private_folder_in_memory_that_the_next_start_finds(shared: Path) -> None:
    first, other = in_memory(Path("/var/lib/rejectd/line1")), in_memory(Path("/var/lib/rejectd/line2"))
    assert first
    assert other
    assert first != other
    assert first == in_memory(Path("/var/lib/rejectd/line1"))
    assert first.parent.name == f"rejectd-{os.geteuid()}"
    assert [folder.stat().st_mode & 0o777 for folder in (first, first.parent)] == [0o700, 0o700]
    assert first.is_relative_to(shared)


def test_a_folder_that_others_can_write_to_or_have_made_is_not_used(shared: Path) -> None:
    ours = shared / f"rejectd-{os.geteuid()}"
    ours.mkdir()
    ours.chmod(0o777)
    assert in_memory(Path("/state")) is None
    ours.rmdir()
    (shared / "elsewhere").mkdir(mode=0o700)
    ours.symlink_to(shared / "elsewhere")
    assert in_memory(Path("/state")) is None


def test_a_folder_on_a_disk_is_not_taken_for_memory(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if state_folders._file_system(shared) in ("tmpfs", "ramfs"):
        pytest.skip("the folder for temporary files lies in memory here")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setattr(state_folders, "_SHARED_MEMORY", shared)
    assert in_memory(Path("/state")) is None
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(shared))
    assert in_memory(Path("/state")) is None


def test_what_systemd_gives_comes_first() -> None:
    folder = in_memory(Path("/state"))
    assert folder
    assert str(folder.parent) == os.environ["RUNTIME_DIRECTORY"]


# what is damaged


def test_what_is_damaged_gets_a_name_with_the_time_and_takes_what_belongs_to_it_with_it(tmp_path: Path) -> None:
    names = []
    for content in ("one", "two", "three"):
        for ending in ("", "-wal"):
            (tmp_path / f"j.sqlite{ending}").write_text(content + ending)
        names.append(set_aside(tmp_path / "j.sqlite", ("-wal", "-shm")))
    assert len(set(names)) == 3, "also within one second"
    assert re.fullmatch(r"j\.sqlite\.damaged-\d{8}T\d{6}Z", names[0].name)
    for name, content in zip(names, ("one", "two", "three"), strict=True):
        assert name.read_text() == content
        assert name.with_name(f"{name.name}-wal").read_text() == f"{content}-wal"
    assert len(list(tmp_path.iterdir())) == 6, "nothing is deleted"
