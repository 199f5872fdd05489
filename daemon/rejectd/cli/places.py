"""Whether the service will find its places on this machine: the evidence folder, and the port for Prometheus.

Looked at without leaving a trace.
"""

from __future__ import annotations

import errno
import re
import shutil
import socket
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from rejectd.contract import settings_file
from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Settings
from revdist.files import trouble

_PAGE_S = 3.0
_PAGE_BYTES = 4_000_000
_AS_USER = "run as the service's user"


class PlaceError(RejectdError):
    """The service could not use a place that the settings give it."""


def evidence(settings: Settings, file: Path) -> str:
    """Where evidence will be kept, and the room there. Raises PlaceError."""
    if not settings.evidence.enabled:
        return "off"
    folder = settings.evidence.directory or settings_file.state_directory(settings, file) / "evidence"
    wrong = trouble.why_not_writable(folder / "evidence")
    if wrong:
        raise PlaceError(f"evidence: {folder}: cannot be written: {wrong.cause}", hint=wrong.hint or _AS_USER)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"rejectd check")
            probe.flush()
        free_mb = shutil.disk_usage(there).free // 1_000_000
    except OSError as error:
        told = trouble.explain(error, folder, "written")
        raise PlaceError(f"evidence: {folder}: cannot be written: {told.cause}", hint=told.hint or _AS_USER) from error
    quota_mb = settings.evidence.quota_mb
    short = f"; the quota is {quota_mb} MB, so set evidence.quota_mb lower or make room" if free_mb < quota_mb else ""
    return f"{folder} can be written, {free_mb} MB are free{short}"


def metrics(settings: Settings) -> str:
    """Where Prometheus will find the metrics. Raises PlaceError."""
    host, port = settings.metrics.host, settings.metrics.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        socket.create_server(address[:2], family=family).close()
    except socket.gaierror as error:
        raise PlaceError(f"metrics: {host}: {error.strerror}", hint="correct metrics.host") from error
    except OSError as error:
        return _taken(settings, error)
    return f"{host}:{port} is free"


def _taken(settings: Settings, error: OSError) -> str:
    """Whose the port is: ours if the service runs."""
    host, port = settings.metrics.host, settings.metrics.port
    where = f"metrics: {host}:{port}"
    if error.errno == errno.EADDRNOTAVAIL:
        raise PlaceError(f"{where}: this machine has no such address", hint="correct metrics.host") from error
    if error.errno == errno.EACCES:
        raise PlaceError(f"{where}: ports below 1024 are for root", hint="choose a higher metrics.port") from error
    if error.errno != errno.EADDRINUSE:
        raise PlaceError(f"{where}: {error.strerror}", hint="choose another metrics.port") from error
    cameras = _cameras_on_page("127.0.0.1" if host == "0.0.0.0" else host, port)  # noqa: S104 - only compared
    if cameras is not None and set(settings.cameras) <= cameras:
        return f"{host}:{port} is served by this line's service already"
    who = "another program" if cameras is None else "a rejectd with other cameras"
    hint = "choose another metrics.port, or stop that program"
    raise PlaceError(f"{where}: {who} has the port", hint=hint) from error


def _cameras_on_page(host: str, port: int) -> set[str] | None:
    """The cameras of the service that serves metrics there; None if none does."""
    literal = f"[{host}]" if ":" in host else host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads back to this machine
    try:
        with opener.open(f"http://{literal}:{port}/metrics", timeout=_PAGE_S) as page:
            text = page.read(_PAGE_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError, HTTPException):
        return None
    return set(re.findall(r'rejectd_frames_captured_total\{camera="([^"]+)"\}', text)) or None
