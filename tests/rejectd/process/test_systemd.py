"""rejectd.process.systemd: readiness, watchdog and log lines."""

from __future__ import annotations

import io
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejectd.process.systemd import Formatter, notify, starting, watchdog_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket as the service manager has it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0rejectd-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield listening


def test_the_service_manager_hears_each_state(manager: socket.socket) -> None:
    for state in ("READY=1", "WATCHDOG=1", "STOPPING=1"):
        assert notify(state)
        assert manager.recv(4096) == state.encode()


def test_each_part_of_the_start_is_told_to_the_service_manager_and_the_log(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        starting("loading product cell")
    assert manager.recv(4096) == b"STATUS=Starting: loading product cell"
    assert caplog.messages == ["starting: loading product cell"]


def test_without_a_service_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


def test_a_service_manager_that_does_not_listen_holds_nobody_up(manager: socket.socket) -> None:
    sent = 0
    while notify("WATCHDOG=1") and sent < 5000:
        sent += 1
    assert 0 < sent < 5000, "the manager's queue is full; the call gave up after a second"


@pytest.mark.parametrize(
    ("microseconds", "process", "expected"),
    [
        ("10000000", None, 10.0),
        ("10000000", str(os.getpid()), 10.0),
        ("10000000", "1", None),
        ("", None, None),
        ("often", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_is_fed_only_if_systemd_asks_this_process(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, process: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", process)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_s() == expected


def line(
    message: str, level: int = logging.INFO, *, journal: bool = True, fields: dict[str, object] | None = None
) -> str:
    record = logging.LogRecord("rejectd", level, "file.py", 1, message, (), None)
    if fields is not None:
        record.fields = fields
    return Formatter(journal=journal).format(record)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
        (25, 6),
    ],
)
def test_the_journal_gets_the_priority_of_a_record(level: int, priority: int) -> None:
    assert line("hello", level) == f"<{priority}>hello"


def test_a_person_gets_time_and_level() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning hello line=l", line("hello", 30, journal=False, fields={"line": "l"}))


def test_fields_follow_the_message_and_are_quoted_where_needed() -> None:
    fields = {"line": "l", "count": 3, "s": 0.5, "why": "no light", "empty": "", "said": 'a "b"', "path": "/a/b:c"}
    assert line("hello", fields=fields) == (
        '<6>hello line=l count=3 s=0.5 why="no light" empty="" said="a \\"b\\"" path=/a/b:c'
    )


@pytest.mark.parametrize(
    "value", ["x\nadmin=1", "x admin=1", 'x" admin="1', "x\tadmin=1", "x\radmin=1", "x\u2028admin=1"]
)
def test_a_value_cannot_pass_for_another_field(value: str) -> None:
    text = line("hello", fields={"source": value, "last": 1})
    assert re.sub(r'"(?:[^"\\]|\\.)*"', "QUOTED", text) == "<6>hello source=QUOTED last=1"


@given(st.text(), st.text())
def test_a_record_is_one_line_without_control_characters_whatever_it_says(message: str, value: str) -> None:
    for journal in (True, False):
        text = line(message.replace("%", "%%"), journal=journal, fields={"source": value})
        assert len(text.splitlines()) == 1
        assert text.isprintable()


def test_an_exception_is_told_on_the_same_line() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Formatter(journal=True))
    log = logging.getLogger("rejectd.test_systemd")
    log.addHandler(handler)
    log.propagate = False
    try:
        raise ValueError("one\ntwo")  # noqa: TRY301
    except ValueError:
        log.critical("thread %s died", "inspect", exc_info=True)
    finally:
        log.removeHandler(handler)
    (text,) = out.getvalue().splitlines()
    assert text.startswith("<2>thread inspect died | Traceback")
    assert text.endswith("ValueError: one | two")


@pytest.mark.parametrize(("environment", "start"), [({}, r"\d\d:\d\d:\d\d error   "), ({"JOURNAL_STREAM": ""}, "<3>")])
def test_the_process_logs_in_the_form_that_its_reader_wants(
    environment: dict[str, str], start: str, tmp_path: Path
) -> None:
    program = "import logging; from rejectd.process.systemd import log_to_stderr; log_to_stderr('warning');"
    program += "logging.info('hidden'); logging.error('shown')"
    file = tmp_path / "stderr"
    with file.open("wb") as stderr:
        if "JOURNAL_STREAM" in environment:
            status = os.fstat(stderr.fileno())
            environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        others = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        subprocess.run([sys.executable, "-c", program], env={**others, **environment}, stderr=stderr, check=True)
    assert re.fullmatch(f"{start}shown\n", file.read_text())


def test_a_log_that_does_not_go_to_the_journal_has_no_priorities_even_if_the_shell_came_from_systemd(
    tmp_path: Path,
) -> None:
    program = (
        "import logging; from rejectd.process.systemd import log_to_stderr; "
        "log_to_stderr('info'); logging.info('shown')"
    )
    environment = {**os.environ, "JOURNAL_STREAM": "9:12345"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert not done.stderr.startswith("<")
