"""Tells systemd of readiness and progress, and writes log lines with a priority: sd_notify(3) and sd-daemon(3)."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import socket
import sys

from rejectd.process.log import BackgroundHandler

log = logging.getLogger(__name__)

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def notify(state: str) -> bool:
    """Send a state such as `READY=1` to the service manager. False if there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.settimeout(1)
        try:
            manager.sendto(state.encode(), address)
        except OSError:
            return False
    return True


def starting(what: str) -> None:
    """Tell the log and `systemctl status` what the start is at: a start of a minute should not look like a hung one."""
    log.info("starting: %s", what)
    notify(f"STATUS=Starting: {what}")


def watchdog_s() -> float | None:
    """The time within which systemd wants a sign of progress; None if it wants none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if microseconds.isdigit() and for_us else None


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it. Returns how many.

    The usual 1,024 are for programs that pass them to select(2), which we never do; each connection and file takes one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox forbids it
        return soft
    return hard


class Formatter(logging.Formatter):
    """One line an event: what happened, then `key=value` for programs; journald takes the priority from `<N>`.

    Fields are given as `extra={"fields": {...}}`.
    """

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Render one record on one line."""
        fields = "".join(f" {key}={_quote(value)}" for key, value in getattr(record, "fields", {}).items())
        message = record.getMessage()
        if record.exc_info:
            message += " | " + self.formatException(record.exc_info)
        message = " | ".join((message + fields).splitlines())
        message = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{message}"
        return f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {message}"


def for_stderr(text: str, level: int = logging.ERROR) -> str:
    """A text as stderr wants it: each line with its priority if stderr goes to the systemd journal."""
    prefix = f"<{_PRIORITIES[level]}>" if _stderr_is_the_journal() else ""
    return "\n".join(prefix + line for line in text.splitlines())


def log_to_stderr(level: str) -> None:
    """Send this process's log to stderr, in journald's form if that is where stderr goes."""
    handler = BackgroundHandler(sys.stderr)
    handler.setFormatter(Formatter(journal=_stderr_is_the_journal()))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _stderr_is_the_journal() -> bool:
    """Whether JOURNAL_STREAM names our stderr; a terminal in a desktop session inherits one that does not."""
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def _quote(value: object) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w.:/+@%,#-]+", text) else json.dumps(text, ensure_ascii=False)
