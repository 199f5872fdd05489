"""Runs the page's web server: `rejectd page CONFIG`. It takes only what processor time others leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rejectd.contract import settings_file
from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Settings
from rejectd.page.access import Role, new_password
from rejectd.page.app import make_app
from rejectd.page.entry import ONE_TIME_FILE
from rejectd.page.site import make_site
from rejectd.page.store import Store, StoreError, write_secret
from rejectd.process.systemd import log_to_stderr, notify

log = logging.getLogger(__name__)

_PLACES = 128  # connections at once
_BACKLOG = 128
_REQUEST_S = 15.0  # until a new connection, and who has begun a request, must have sent it whole
_STUCK_S = 20.0  # until a client must have taken what was sent
_HEADER_BYTES = 16_384
_NICE = 10
FIRST_USER = "engineer"


class PageError(RejectdError):
    """The page cannot be served."""


class _Protocol(H11Protocol):
    """HTTP that drops clients which never finish their request, or never take their answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._limit_asking()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._limit_asking()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_asking()  # the next request may have begun meanwhile

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self._drop_in(_STUCK_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck = self._cancel(self._stuck)

    def connection_lost(self, error: Exception | None) -> None:
        self._asking, self._stuck = self._cancel(self._asking), self._cancel(self._stuck)
        super().connection_lost(error)

    def _limit_asking(self) -> None:
        """Begin the time of a request that has begun, and end that of one that has come whole."""
        whole = self.conn.their_state is not h11.SEND_BODY and self.cycle is not None
        between = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        if whole and not between:
            self._asking = self._cancel(self._asking)
        elif self._asking is None:
            self._asking = self._drop_in(_REQUEST_S)

    def _drop_in(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self.transport.abort)

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
        """Returns None, which is the timer from now on."""
        if timer is not None:
            timer.cancel()
        return None


class _Server(uvicorn.Server):
    """A server that ends with status 0 on a signal; uvicorn's own would send it to the process once more."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(file: Path) -> None:
    """Serve the page of a line until SIGTERM or SIGINT.

    Raises:
        RejectdError: with what to do about it.
    """
    settings = settings_file.load_for_page(file)
    log_to_stderr(settings.log_level)
    if not settings.page.enabled:
        raise PageError("the page of this line is off", hint="set page.enabled: true")
    os.umask(0o077)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    store = Store(settings_file.page_directory(settings, file))
    with contextlib.closing(store):
        site = make_site(settings, settings_file.state_directory_of_service(settings, file), store)
        listening = _listen(settings)
        _first_start(store)
        server = _server(settings, make_app(site))
        address = f"{'https' if site.secure else 'http'}://{settings.page.host}:{listening.getsockname()[1]}/"
        log.info("page ready", extra={"fields": {"line": settings.line, "address": address}})
        notify(f"READY=1\nSTATUS=Serving {address}")
        server.run(sockets=[listening])
    notify("STOPPING=1")


def _listen(settings: Settings) -> socket.socket:
    page = settings.page
    try:
        family, *_, address = socket.getaddrinfo(page.host, page.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        hint = "choose another page.port, or stop the program that has it"
        raise PageError(f"page: {page.host}:{page.port}: {error.strerror}", hint=hint) from error


def _server(settings: Settings, app: Any) -> _Server:
    page = settings.page
    tls: dict[str, Any] = {}
    if page.tls_cert and page.tls_key:
        tls = {"ssl_certfile": str(page.tls_cert), "ssl_keyfile": str(page.tls_key)}
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_PLACES,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        **tls,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise PageError(
            f"{page.tls_cert}: not usable for TLS: {error}", hint="give a certificate and its key"
        ) from error
    return _Server(config)


def _first_start(store: Store) -> None:
    """Make the first user, whose password holds once. A terminal shows it; without one it is in a file."""
    path = store.directory / ONE_TIME_FILE
    users = store.users()
    if users and not (len(users) == 1 and users[0].one_time and not path.exists() and sys.stdout.isatty()):
        return
    password = new_password()
    if sys.stdout.isatty():
        store.add_user(FIRST_USER, Role.ENGINEER, password)
        print(f"log in as {FIRST_USER} with the one-time password {password}", flush=True)
        return
    try:
        write_secret(path, password)  # first: a user whose password nobody knows would stay
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}", hint="free disk space") from error
    store.add_user(FIRST_USER, Role.ENGINEER, password)
    log.warning("log in as %s; the one-time password is in %s", FIRST_USER, path)
