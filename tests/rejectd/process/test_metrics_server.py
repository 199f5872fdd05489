"""rejectd.process.metrics_server: Prometheus gets its page, whatever other clients do, and the service keeps its
files."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import wait_for
from prometheus_client import CollectorRegistry, Counter

from rejectd.process import metrics_server
from rejectd.process.metrics_server import PLACES, REQUEST_BYTES, MetricsServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    """A server with one metric, that gives clients less time than in a plant."""
    monkeypatch.setattr(metrics_server, "_REQUEST_S", 0.5)
    monkeypatch.setattr(metrics_server, "_ANSWER_S", 1.0)
    registry = CollectorRegistry()
    Counter("parts", "Parts.", registry=registry).inc(7)
    server = MetricsServer("127.0.0.1", 0, registry)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.close()
    thread.join(10)
    assert not thread.is_alive()


@contextlib.contextmanager
def connections(server: MetricsServer, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            with contextlib.suppress(OSError):  # it may be dropped already
                client.sendall(first)
            opened.append(client)
        yield opened


def ask(server: MetricsServer, method: str = "GET", path: str = "/metrics", **headers: str) -> tuple[int, bytes, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def raw(server: MetricsServer, request: bytes) -> bytes:
    """What comes until the server closes."""
    with connections(server, 1, request) as (client,):
        return b"".join(iter(lambda: client.recv(65536), b""))


def is_dropped(client: socket.socket) -> bool:
    client.settimeout(5)
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_the_page_comes_in_the_form_that_was_asked_for(server: MetricsServer) -> None:
    status, body, headers = ask(server)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert b"parts_total 7.0" in body
    _, body, headers = ask(server, Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"# EOF\n")
    assert ask(server, path="/metrics?name[]=none")[1] == b""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/metrics", 200),
        ("HEAD", "/", 200),
        ("GET", "/", 200),
        ("GET", "/favicon.ico", 404),
        ("GET", "/metrics/x", 404),
        ("HEAD", "/x", 404),
        ("POST", "/metrics", 405),
        ("OPTIONS", "/metrics", 405),
        ("BREW", "/metrics", 405),
    ],
)
def test_other_methods_and_paths_are_answered_as_http_wants(
    server: MetricsServer, method: str, path: str, status: int
) -> None:
    answered, body, headers = ask(server, method, path)
    assert answered == status
    assert (body == b"") == (method == "HEAD")
    assert int(headers["Content-Length"]) > 0
    assert headers.get("Allow", "") == ("GET, HEAD" if status == 405 else "")


def test_what_is_no_http_is_refused(server: MetricsServer) -> None:
    assert raw(server, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"GET /metrics\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"GET /metrics HTTP/1.0\n\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX: "])
def test_an_endless_request_is_cut_off(server: MetricsServer, start: bytes) -> None:
    assert raw(server, start + b"x" * REQUEST_BYTES).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_ends_its_side_after_the_request_gets_the_page(server: MetricsServer) -> None:
    with connections(server, 1, b"GET /metrics HTTP/1.1\r\n\r\n") as (client,):
        client.shutdown(socket.SHUT_WR)
        assert b"parts_total 7.0" in b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("first", [b"", b"GET /metr", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_client_that_asks_for_nothing_more_is_dropped(server: MetricsServer, first: bytes) -> None:
    with connections(server, 1, first) as (client,):
        while not is_dropped(client):
            pass


def test_a_client_that_sends_a_byte_now_and_then_is_dropped(server: MetricsServer) -> None:
    with connections(server, 1) as (client,):
        client.settimeout(0.05)
        sent = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                client.sendall(b"x")
                sent += 1
                with contextlib.suppress(TimeoutError):
                    if client.recv(1) == b"":
                        break
        assert 2 < sent < 50


def test_a_scrape_gets_through_a_thousand_idle_connections_and_they_take_no_files(server: MetricsServer) -> None:
    threads_before = threading.active_count()
    with connections(server, 500) as idle, connections(server, 510, b"GET /metrics HT") as slow:
        assert ask(server)[0] == 200
        ours = len(list(Path("/proc/self/fd").iterdir())) - len(idle) - len(slow)
        assert ours < PLACES + 100
        assert threading.active_count() == threads_before, "none for each connection"
        assert is_dropped(idle[0])
    assert ask(server)[0] == 200


def test_clients_that_take_no_answer_hold_nobody_up(server: MetricsServer) -> None:
    with connections(server, 3 * PLACES, b"GET /metrics HTTP/1.1\r\n\r\n"):
        assert ask(server)[0] == 200


def test_a_client_that_gets_the_file_number_of_one_that_was_dropped_in_the_same_round_does_not_end_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = MetricsServer("127.0.0.1", 0, CollectorRegistry())
    with connections(server, 2):
        first, _ = server._listening.accept()
        second, _ = server._listening.accept()
        number = first.fileno()
        server._let_in(first)
        of_first = server._selector.get_key(number)
        server._drop(server._clients[number])
        newcomer = socket.socket(fileno=os.dup2(second.fileno(), number))
        server._let_in(newcomer)
        of_close = server._selector.get_key(server._woken)
        answers_could_go = (of_first, selectors.EVENT_WRITE)  # told in the round in which the first one was dropped
        monkeypatch.setattr(server._selector, "select", lambda _: [answers_could_go, (of_close, selectors.EVENT_READ)])
        server.run()
        second.close()
        server.close()


def _is_answered(server: MetricsServer) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(server)[0] == 200
    return False


def test_a_flood_of_clients_takes_a_part_of_the_processor_alone(server: MetricsServer) -> None:
    (thread,) = (thread for thread in threading.enumerate() if getattr(thread, "_target", None) == server.run)
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    ends, began_s, began = time.monotonic() + 2, time.clock_gettime(clock), time.monotonic()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), connections(server, 20, b"GET /" + b"a" * 100_000):
            pass
    share = (time.clock_gettime(clock) - began_s) / (time.monotonic() - began)
    assert share < 0.25, "of one processor"
    wait_for(lambda: _is_answered(server), "the page is there")


def test_a_flood_of_scrapes_takes_a_part_of_the_processor_alone(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    page = metrics_server._page

    def slow_page(*arguments):
        pages.append(1)
        threading.Event().wait(0.02)
        return page(*arguments)

    monkeypatch.setattr(metrics_server, "_page", slow_page)
    with connections(server, 40, b"GET /metrics HTTP/1.1\r\n\r\n") as clients:
        answers = [client.recv(65536) for client in clients]
    assert all(b"parts_total 7.0" in answer for answer in answers), "those who ask for the same share a page"
    assert 1 <= len(pages) < 20


def test_without_a_free_file_nobody_is_let_in_and_the_server_lives(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "_FULL_S", 0.1)
    real, failures = server._listening, []

    class Full:
        def accept(self):
            failures.append(1)
            raise OSError(24, "Too many open files")

        def __getattr__(self, name):
            return getattr(real, name)

    server._selector.unregister(real)
    server._listening = Full()
    server._selector.register(server._listening, 1)
    with connections(server, 1, b"GET /metrics HTTP/1.1\r\n\r\n") as (client,):
        wait_for(lambda: len(failures) > 1, "it tries again")
        server._listening.accept = real.accept
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_port_that_is_taken_is_an_error(server: MetricsServer) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer("127.0.0.1", server.port, CollectorRegistry())


def test_a_server_that_never_ran_frees_its_port() -> None:
    server = MetricsServer("127.0.0.1", 0, CollectorRegistry())
    server.close()
    MetricsServer("127.0.0.1", server.port, CollectorRegistry()).close()
