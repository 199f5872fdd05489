"""rejectd.cli.command: mistakes and mishaps on the command line end in words and the right exit status, not in a
traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import command, wait_for


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Path]:
    """A settings file that everybody may read, in a folder of its own, with an empty bundle."""
    folder = Path(tempfile.mkdtemp(prefix="cli-"))
    folder.chmod(0o777)
    (folder / "cell").mkdir()
    (folder / "cell" / "bundle.json").write_text("{}")
    settings = {
        "line": "l",
        "cameras": {"a": {"type": "folder", "product": "cell", "path": "pictures"}},
        "products": {"cell": {"bundle": "cell"}},
        "mqtt": {"port": 1, "commands": "anonymous"},
    }
    (folder / "line.yaml").write_text(json.dumps(settings))
    yield folder / "line.yaml"
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def run(*arguments: object, shell: str = "") -> subprocess.CompletedProcess[str]:
    """The command as a process. `shell`: what follows it on the command line."""
    words = [command("rejectd"), *map(str, arguments)]
    if shell:
        script = f'"$@" {shell}; exit "${{PIPESTATUS[0]}}"'
        words = ["bash", "-c", script, "bash", *words]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(words, capture_output=True, text=True, errors="surrogateescape", timeout=120, env=env)


def test_a_reader_that_leaves_ends_every_command_quietly(line: Path) -> None:
    for arguments in (("--help",), ("reference",), ("check", line)):
        done = run(*arguments, shell="| true")
        assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written_is_no_success(line: Path) -> None:
    for arguments in (("reference",), ("check", line)):
        done = run(*arguments, shell="> /dev/full")
        assert (done.returncode, done.stderr) == (2, "rejectd: the output cannot be written: No space left on device\n")
    assert run("reference", shell=">&- 2>&-").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("threshold", "product=cell", "threshold=.nan"),
            "'threshold=.nan' is not a number; give a number such as 0.85",
        ),
        (("threshold", "product=cell", "threshold=inf"), "'threshold=inf' is not a finite number"),
        (("replay", "since=2026-11-25T06:00:00Z"), "127.0.0.1:1"),
        (("replay", "since={"), "the value cannot be read"),
        (("openn",), "there is no command 'openn'; known: product"),
    ],
)
def test_what_is_typed_after_a_command_is_read_or_refused_in_words(
    line: Path, words: tuple[str, ...], message: str
) -> None:
    done = run("command", line, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("travel", ["nan", "inf", "-1", "x", "1e300"])
def test_a_travel_time_that_is_none_is_refused(line: Path, travel: str) -> None:
    done = run("account", line, f"--travel={travel}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_names_in_latin_1_and_names_that_are_too_long_are_told(line: Path) -> None:
    done = run("check", line.with_name(os.fsdecode(b"T\xfcr.yaml")))
    assert done.returncode == 1
    assert "Tr.yaml" not in done.stdout
    assert "No such file or directory" in done.stdout
    done = run("run", line.with_name("x" * 300))
    assert done.returncode == 2
    assert "a name in it has 300 bytes" in done.stderr


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_lies_in_a_closed_folder_is_told_with_the_folder(line: Path) -> None:
    shut = line.parent / "shut"
    shut.mkdir()
    shutil.copy(line, shut)
    shut.chmod(0)
    code = f"""
import os, sys
from pathlib import Path
from rejectd.cli import account, check, reference  # as root: nobody may not look into a checkout
from rejectd.contract import settings_file
from rejectd.cli import main
settings_file.load(Path({str(line)!r}))
os.setgid({NOBODY}); os.setuid({NOBODY})
main(sys.argv[1:])
"""

    def told(*arguments: object) -> str:
        words = [command("python"), "-c", code, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    below = f"Permission denied: it is below {shut}, which user "
    assert below in told("account", shut / "line.yaml")
    assert below in told("reference", "--write", shut / "new")
    assert below in told("reference", "--check", shut)
    settings = json.loads(line.read_text()) | {"state_directory": str(shut / "state")}
    line.write_text(json.dumps(settings))
    assert below in told("account", line)


def test_ctrl_c_while_a_command_waits_for_the_broker_is_quiet(line: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        settings = json.loads(line.read_text()) | {"mqtt": {"port": silent.getsockname()[1], "commands": "anonymous"}}
        line.write_text(json.dumps(settings))
        arguments = [command("rejectd"), "command", str(line), "pause"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_at_several_places_of_its_way_is_quiet(line: Path) -> None:
    arguments = [command("rejectd"), "check", str(line)]
    for wait_s in (0.3, 0.6, 1.0):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_for(lambda process=process: b"rejectd" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "it runs")
            time.sleep(wait_s)  # at several places of its way
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode in (130, 1)
        assert b"Traceback" not in err


def test_a_service_that_starts_ignores_sighup_before_it_imports_what_takes_long() -> None:
    asked = "import sys, rejectd.cli; sys.exit('rejectd.cli.command' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
    ignored = (
        "import signal, sys, types, rejectd.cli\n"
        "sys.argv = ['rejectd', 'run', 'x']\n"
        "ignored = lambda _: sys.exit(signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN)\n"
        "sys.modules['rejectd.cli.command'] = rejectd.cli.command = types.SimpleNamespace(main=ignored)\n"
        "rejectd.cli.main()"
    )
    assert subprocess.run([sys.executable, "-c", ignored], check=False).returncode == 0
