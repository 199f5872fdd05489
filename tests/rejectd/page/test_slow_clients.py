"""rejectd.page.server: who never finishes a request does not keep a place."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI, Request
from peers import wait_for

from rejectd.page import server

LIMIT_S = 0.5


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A web server with the page's protocol, whose limit is short, and an application that answers with the body."""
    monkeypatch.setattr(server, "_REQUEST_S", LIMIT_S)
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def answer(request: Request) -> str:
        return (await request.body()).decode()

    config = uvicorn.Config(
        app, http=server._Protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1, timeout_keep_alive=60
    )
    web = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_for(lambda: web.started, "the server runs", 20)
    yield listening.getsockname()[1]
    web.should_exit = True
    thread.join(20)


def _ask(connection: socket.socket, request: bytes) -> None:
    """Send a request and take its whole answer."""
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b'\r\n\r\n""'):
        part = connection.recv(4096)
        assert part, "closed"
        answer += part
    assert b" 200 " in answer


WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        [b""],
        [b"GET / HT"],
        [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab"],
        [WHOLE, b"GET / HT"],
        [WHOLE, WHOLE, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab"],
    ],
)
def test_who_begins_a_request_and_does_not_end_it_is_dropped(port: int, begun: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for request in begun[:-1]:
            _ask(connection, request)
        connection.sendall(begun[-1])
        assert connection.recv(4096) == b"", "dropped"


def test_who_waits_between_two_requests_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(2):
            _ask(connection, WHOLE)
            time.sleep(2 * LIMIT_S)  # the time that a request may take is over, if it counted
