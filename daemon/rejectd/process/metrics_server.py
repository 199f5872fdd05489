"""Serves the page for Prometheus in one thread, with a bounded number of connections, whatever clients do.

A client that sends its request at once is answered. Any other client is dropped after a few seconds, or as soon as its
place is needed. So idle connections cost neither threads nor files that the service needs, and a scrape gets through.
"""

from __future__ import annotations

import errno
import logging
import select
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, make_wsgi_app

log = logging.getLogger(__name__)

PLACES = 64  # connections at once
_BACKLOG = 1024  # that the system holds for us; they cost us no file, and one too many would try again a second later
REQUEST_BYTES = 8192  # of a request line with its headers
_REQUEST_S = 3.0  # until a request must be there
_ANSWER_S = 10.0  # until an answer must have been taken
_SHARE = 0.2  # of one processor, for making pages; then clients wait
_SERVING_SHARE = 0.05  # of one processor, for all else: who floods the port would take it from the parts' verdicts
_TOO_SHORT_S = 0.001  # for a rest
_REST_S = 0.5  # longest rest at once
_TICK_S = 0.25
_FULL_S = 1.0  # how long nobody is let in where the process has no file left
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAGE = "/metrics"


@dataclass(eq=False, slots=True)
class _Client:
    socket: socket.socket
    until: float  # dropped then
    request: bytearray = field(default_factory=bytearray)
    asks: tuple[tuple[str, str], ...] | None = None  # for a page: what the client library wants to know of the request
    head: bool = False  # and without its body
    answer: memoryview | None = None  # what is left to send

    @property
    def spare(self) -> int:
        """Who is dropped first for a new client: 0 is answered, 1 has sent nothing yet, 2 is slow, 3 waits."""
        if self.answer is not None:
            return 2 if self.answer else 0
        return 3 if self.asks else 1


class MetricsServer:
    """Listens from the start on; `run` serves until it is closed."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Raises OSError where it cannot listen."""
        self._app = make_wsgi_app(registry)
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._wake_up, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing = select.poll()
        self._closing.register(self._woken, select.POLLIN)
        self._clients: dict[int, _Client] = {}  # by file number, those that have waited longest first
        self._waiting: list[_Client] = []  # for a page
        self._next_page = 0.0
        self._let_in_from = 0.0
        self._runs = False

    def run(self) -> None:
        """Serve until `close` is called."""
        self._runs = True
        busy_s = 0.0
        while True:
            self._rest(busy_s)
            ready = self._selector.select(self._pause_s())
            began_s = time.thread_time()
            for key, events in ready:
                if key.fileobj is self._woken:
                    self._end()
                    return
                if key.fileobj is self._listening:
                    self._let_in_all()
                elif (client := self._clients.get(key.fd)) and client is key.data:
                    self._serve(client, events)  # it was not dropped in this round, and its number given anew
            busy_s = time.thread_time() - began_s
            now = time.monotonic()
            self._answer_waiting(now)
            for client in [client for client in self._clients.values() if client.until < now]:
                self._drop(client)
            if self._let_in_from and now >= self._let_in_from:
                self._let_in_from = 0.0
                self._selector.register(self._listening, selectors.EVENT_READ)

    def _rest(self, busy_s: float) -> None:
        """Rest after `busy_s` of work, so that clients get their share of a processor and no more; `close` ends it."""
        if (rest_s := min(_REST_S, busy_s * (1 / _SERVING_SHARE - 1))) > _TOO_SHORT_S:
            self._closing.poll(1000 * rest_s)

    def _pause_s(self) -> float:
        """Until there is something to do, whatever clients do."""
        return min(_TICK_S, max(0.0, self._next_page - time.monotonic())) if self._waiting else _TICK_S

    def close(self) -> None:
        """End `run`. May be called from any thread, and more than once."""
        self._wake_up.close()
        if not self._runs:
            self._end()

    def _end(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listening.close()
        self._woken.close()

    def _let_in_all(self) -> None:
        for _ in range(PLACES):  # then it is the turn of those that are in
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._stay_out(error)
                return
            self._let_in(connection)

    def _stay_out(self, error: OSError) -> None:
        """Take no connections for a while if the process has no file left; other errors concern one client only."""
        if error.errno in _NO_FILES:
            log.warning("metrics: no connection can be taken: %s", error.strerror)
            self._selector.unregister(self._listening)
            self._let_in_from = time.monotonic() + _FULL_S

    def _let_in(self, connection: socket.socket) -> None:
        """Give a place to a connection; if none is free, the place of the client that needs it least."""
        if len(self._clients) >= PLACES:
            self._drop(min(self._clients.values(), key=lambda client: client.spare))  # the first of several
        connection.setblocking(False)
        client = _Client(connection, time.monotonic() + _REQUEST_S)
        self._clients[connection.fileno()] = client
        self._wait_for(client, selectors.EVENT_READ)

    def _drop(self, client: _Client) -> None:
        self._wait_for(client, 0)
        del self._clients[client.socket.fileno()]
        if client in self._waiting:
            self._waiting.remove(client)
        client.socket.close()

    def _wait_for(self, client: _Client, events: int) -> None:
        """What the selector reports of a client from now on."""
        if client.socket.fileno() in self._selector.get_map():
            self._selector.unregister(client.socket)
        if events:
            self._selector.register(client.socket, events, client)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(client)
            else:
                self._receive(client)
        except BlockingIOError:
            return
        except OSError:  # the client has left
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        data = client.socket.recv(REQUEST_BYTES)
        if not data:
            self._drop(client)
            return
        if client.answer is not None:
            return  # one request a connection; what follows is read and forgotten
        client.request += data
        head, end, _ = bytes(client.request).partition(b"\r\n\r\n")
        if not end:
            head, end, _ = bytes(client.request).partition(b"\n\n")
        if end:
            self._ask(client, head.decode("latin-1").splitlines())
        elif len(client.request) > REQUEST_BYTES:
            self._answer(client, "431 Request Header Fields Too Large", b"")

    def _ask(self, client: _Client, lines: list[str]) -> None:
        """Answer a request, or note that its client waits for the page."""
        words = lines[0].split(" ") if lines else []
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._answer(client, "400 Bad Request", b"this is not HTTP/1.1\n")
            return
        method, (path, _, query) = words[0], words[1].partition("?")
        if method not in ("GET", "HEAD"):
            self._answer(client, "405 Method Not Allowed", b"use GET\n", ["Allow: GET, HEAD"])
        elif path == "/":
            self._answer(client, "200 OK", b"rejectd: the page for Prometheus is /metrics\n", head=method == "HEAD")
        elif path != _PAGE:
            self._answer(client, "404 Not Found", b"there is /metrics alone\n", head=method == "HEAD")
        else:
            pairs = (line.partition(":") for line in lines[1:])
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            client.asks = (
                ("QUERY_STRING", query),
                ("HTTP_ACCEPT", headers.get("accept", "")),
                ("HTTP_ACCEPT_ENCODING", headers.get("accept-encoding", "")),
            )
            client.head = method == "HEAD"
            client.until = time.monotonic() + _ANSWER_S
            self._waiting.append(client)
            self._wait_for(client, 0)

    def _answer_waiting(self, now: float) -> None:
        """Build one page for clients with the same request, unless the last took so long that it is others' turn."""
        if not self._waiting or now < self._next_page:
            return
        request = self._waiting[0].asks
        assert request is not None
        status, headers, body = _page(self._app, dict(request))
        self._next_page = now + (time.monotonic() - now) / _SHARE
        alike = [client for client in self._waiting if client.asks == request]
        self._waiting = [client for client in self._waiting if client.asks != request]
        for client in alike:
            self._answer(client, status, body, headers, head=client.head)

    def _answer(
        self, client: _Client, status: str, body: bytes, headers: list[str] | None = None, *, head: bool = False
    ) -> None:
        headers = headers or []
        if not any(line.lower().startswith("content-type:") for line in headers):
            headers = [*headers, "Content-Type: text/plain; charset=utf-8"]
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
        content = "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head else body)
        client.answer = memoryview(content)
        client.until = time.monotonic() + _ANSWER_S
        self._wait_for(client, selectors.EVENT_WRITE)

    def _send(self, client: _Client) -> None:
        assert client.answer is not None
        client.answer = client.answer[client.socket.send(client.answer) :]
        if client.answer:
            return
        client.socket.shutdown(socket.SHUT_WR)  # close() alone may cut the answer off where unread bytes are left
        client.until = min(client.until, time.monotonic() + _REQUEST_S)
        self._wait_for(client, selectors.EVENT_READ)


def _page(app: Callable[..., list[bytes]], environment: dict[str, str]) -> tuple[str, list[str], bytes]:
    """Status, header lines and body, as the client library makes them."""
    told: list[str] = []

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        told.extend([status, *(f"{name}: {value}" for name, value in headers)])

    body = b"".join(app({"REQUEST_METHOD": "GET", "PATH_INFO": _PAGE, **environment}, start))
    return told[0], told[1:], body
