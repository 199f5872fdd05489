"""rejectd.control.page_socket: who asks at once is answered, whoever else connects."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from peers import wait_for

from rejectd.contract import local_socket
from rejectd.contract.local_socket import Answer, of_json
from rejectd.contract.messages import RejectdError
from rejectd.control.page_socket import PageSocket
from rejectd.page.line_link import AwayError, LineError, LineLink

LARGE = 8_000_000


def answer(request: Mapping[str, Any]) -> Answer:
    match request["ask"]:
        case "state":
            return of_json({"state": "well"})
        case "picture":
            return Answer(body=b"x" * LARGE)
        case "product":
            raise RejectdError("there is no such product", hint="see products")
        case _:
            raise ZeroDivisionError


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The path of a socket that is served, deeper than the address of a socket may be long."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    served = PageSocket(folder / "page.sock", answer, user="nobody-has-this-name")
    thread = threading.Thread(target=served.run)
    thread.start()
    wait_for((folder / "page.sock").exists, "the socket is there")
    yield folder / "page.sock"
    served.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not (folder / "page.sock").exists()


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with local_socket.address(path) as address:
        connection.connect(address)
    return connection


def test_a_question_is_answered(path: Path) -> None:
    assert LineLink(path).state() == {"state": "well"}


def test_an_error_of_the_line_is_told(path: Path) -> None:
    with pytest.raises(LineError, match="there is no such product; see products"):
        LineLink(path).product("x")


@pytest.mark.parametrize("request_line", [b"no json\n", b"[1]\n", b'{"ask": "break"}\n', b"[" * 60_000 + b"\n"])
def test_a_request_that_makes_no_sense_ends_nothing(path: Path, request_line: bytes) -> None:
    with connect(path) as connection:
        connection.sendall(request_line)
        connection.settimeout(10)
        assert json.loads(connection.makefile("rb").readline())["ok"] is False
    assert LineLink(path).state() == {"state": "well"}


def test_clients_that_ask_nothing_or_take_nothing_are_dropped_and_others_are_answered(path: Path) -> None:
    silent, stuck = connect(path), connect(path)
    stuck.sendall(b'{"ask": "picture"}\n')
    started = time.monotonic()
    assert LineLink(path).state() == {"state": "well"}
    assert time.monotonic() - started < 5
    silent.settimeout(10)
    assert silent.recv(1) == b""
    silent.close()
    stuck.settimeout(10)
    received = 0
    while part := stuck.recv(1 << 20):
        received += len(part)
    stuck.close()
    assert received < LARGE, "it was dropped before it had the whole answer"


def test_other_users_are_sent_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with local_socket.address(path) as address:
        Path(address).chmod(0o666)
        for folder in [*path.parents][:-2]:
            folder.chmod(0o755)
        child = os.fork()
        if child == 0:
            os.setuid(65_534)
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.connect(str(address))
                    connection.sendall(b'{"ask": "state"}\n')
                    os._exit(1 if connection.recv(1) else 0)
            except (BrokenPipeError, ConnectionResetError):
                os._exit(0)
            except OSError:
                os._exit(2)
        _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0


def test_without_a_service_the_page_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(AwayError, match="does not answer"):
        LineLink(tmp_path / "page.sock").state()


def test_the_socket_comes_back_when_its_folder_was_moved_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rejectd.control.page_socket._AGAIN_S", 0.1)
    path.unlink()
    wait_for(path.exists, "the socket is there again", 20)
    assert LineLink(path).state() == {"state": "well"}
