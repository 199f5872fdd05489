"""revdist.files.console: how commands end, whatever becomes of their output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PRINTS = "for number in range({count}): print(number, {flush})"


def run(body: str, redirect: str, more: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """A command of a few lines, as a process whose output goes somewhere."""
    code = f"""
import sys
import time
from revdist.files import console
console.prepare()
def command():
    {body}
    return 0
sys.exit(console.run("it", command))
"""
    shell = f'"{sys.executable}" -c "$CODE" {redirect}; echo "status ${{PIPESTATUS[0]}}" >&2'
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | (more or {})
    return subprocess.run(["bash", "-c", shell], capture_output=True, env=env | {"CODE": code}, timeout=60)


@pytest.mark.parametrize("flush", ["flush=True", "flush=False"])
@pytest.mark.parametrize("count", [10, 100_000])
def test_a_reader_that_leaves_ends_the_command_quietly_as_unix_tools_do(flush: str, count: int) -> None:
    done = run(PRINTS.format(count=count, flush=flush), "| true")
    assert done.stderr == b"status 141\n"
    assert run(PRINTS.format(count=count, flush=flush), "| cat | tail -n 1").stderr == b"status 0\n"


def test_help_into_a_reader_that_leaves_is_quiet_as_well() -> None:
    done = run("import argparse; argparse.ArgumentParser().parse_args(['--help'])", "| true")
    assert done.stderr == b"status 141\n"


@pytest.mark.parametrize("flush", ["flush=True", "flush=False"])
def test_output_that_cannot_be_written_is_told_and_is_no_success(flush: str) -> None:
    for unbuffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        done = run(PRINTS.format(count=10, flush=flush), "> /dev/full", unbuffered)
        assert done.stderr == b"it: the output cannot be written: No space left on device\nstatus 2\n"


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_that_the_command_opens_is_never_taken_for_a_closed_stream(tmp_path: Path, redirect: str) -> None:
    opens = f"import os; f = open({str(tmp_path / 'file')!r}, 'w')"
    run(f"{opens}; print(1, flush=True); os.write(1, b'x'); os.write(2, b'y')", redirect)
    assert (tmp_path / "file").read_bytes() == b""


def test_ctrl_c_ends_the_command_without_a_traceback() -> None:
    done = run("import os, signal; os.kill(os.getpid(), signal.SIGINT)", "")
    assert done.stderr == b"status 130\n"
    assert 128 + signal.SIGINT == 130


def test_a_name_in_latin_1_is_printed_with_an_escape() -> None:
    done = run("import os; print(os.fsdecode(b'T\\xfcr')); print(os.fsdecode(b'T\\xfcr'), file=sys.stderr)", "")
    assert done.stdout == b"T\\udcfcr\n"
    assert done.stderr == b"T\\udcfcr\nstatus 0\n"


def test_a_file_that_no_command_thought_of_is_told_without_a_traceback() -> None:
    done = run("open('/nowhere/at/all')", "")
    assert done.stderr == b"it: /nowhere/at/all: No such file or directory: there is no folder /nowhere\nstatus 2\n"


@pytest.mark.parametrize("wait_s", [0.3, 0.8, 1.5])
def test_ctrl_c_while_the_command_is_still_imported_is_quiet(tmp_path: Path, wait_s: float) -> None:
    command = [sys.executable, "-m", "revdist", "show", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        time.sleep(wait_s)  # at several places of its way
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said
    assert process.returncode in (130, 2, -signal.SIGINT), "2: it was faster; by the signal: it was at its end"
