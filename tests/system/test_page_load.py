"""The page can never make a verdict later: twenty browsers, one of them stuck, while the line runs at 90 % of its
capacity, and somebody who holds the service's own socket."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest
from harness import Broker, Listener
from load import LoadedLine, Phase, kinds
from page_server import PageServer, Person
from peers import wait_for
from stand_in_line import Device, StandInLine, pictures

from rejectd.contract import local_socket

pytestmark = pytest.mark.system

DEVICE = Device(base_ms=160, per_frame_ms=30)  # 20 frames in a second
DEADLINE_MS = 2000
LOAD, SECONDS = 0.9, 12.0
CLIENTS = 20


@pytest.fixture
def line(tmp_path: Path, bundle: Path) -> Iterator[LoadedLine]:
    with ExitStack() as stack:
        broker = Broker(tmp_path / "broker", safe=False)
        stack.callback(broker.stop, kill=True)
        listener = Listener(broker.port)
        stack.callback(listener.close)
        service = StandInLine(tmp_path, bundle, broker.port, DEVICE)
        stack.callback(service.close)
        service.settings["mqtt"] |= {"publish_margin_ms": 100}
        loaded = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=DEADLINE_MS)
        yield loaded


class Crowd:
    """Browsers that look at the live page as often as its script does, each at its own time."""

    def __init__(self, person: Person, number: int) -> None:
        self.answers: list[tuple[int, float]] = []  # status, seconds
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(person, index)) for index in range(number)]
        for thread in self._threads:
            thread.start()

    def _look(self, person: Person, index: int) -> None:
        self._stop.wait(index / len(self._threads))
        while not self._stop.is_set():
            started = time.monotonic()
            live = person.ask("/api/live")
            self.answers.append((live.status, time.monotonic() - started))
            for camera in live.json()["cameras"] if live.status == 200 else []:
                if camera["last"] and camera["last"]["picture"]:
                    event_id = camera["last"]["event_id"]
                    person.ask(f"/api/cameras/{camera['camera']}/picture?event_id={event_id}&heat=true")
            self._stop.wait(1.0)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)


@contextmanager
def stuck(page: PageServer, person: Person, state: Path) -> Iterator[None]:
    """A browser that asks for much and reads nothing, and a program that connects to the service every second."""
    cookie = "; ".join(f"{name}={value}" for name, value in person.cookies.items())
    request = f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n".encode()
    browser = socket.create_connection(("127.0.0.1", page.port))
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    browser.sendall(request * 50)
    end = threading.Event()

    def hold() -> None:
        while not end.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(5)
                try:
                    with local_socket.address(state / local_socket.NAME) as address:
                        connection.connect(address)
                    connection.recv(1)  # until it is dropped
                    end.wait(1.0)
                except OSError:
                    end.wait(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    yield
    end.set()
    holder.join(20)
    browser.close()


def test_twenty_browsers_and_a_stuck_one_make_no_verdict_later_at_nine_tenths_of_the_load(
    line: LoadedLine, cells: list[Path]
) -> None:
    page = PageServer(line.line)  # before the service reads its settings
    line.start()
    page.start()
    shown = kinds(
        pictures(cells[:1], line.line.directory / "shown")[0],
        pictures(cells[1:2], line.line.directory / "shown", bad=True)[0],
    )
    offered_hz = LOAD * DEVICE.capacity_hz
    try:
        person = page.person()
        alone = line.phase([line.feed(shown, offered_hz)], SECONDS)
        with stuck(page, person, line.line.directory / "state"):
            crowd = Crowd(person, CLIENTS - 1)
            looked_at = line.phase([line.feed(shown, offered_hz)], SECONDS)
            crowd.close()
        wait_for(lambda: _live(person) == 200, "the page answers afterwards")
    finally:
        page.close()
    answered = [seconds for status, seconds in crowd.answers if status == 200]
    for name, phase in (("alone", alone), ("with 20 clients", looked_at)):
        late = f"tightest {-max(phase.late_s):.3f} s"
        print(f"{name}: {dict(phase.ends)}, median {median(phase.latencies_s()):.3f} s, {late}")
    statuses = dict(Counter(status for status, _ in crowd.answers))
    print(f"{len(answered)} answers, median {median(answered):.3f} s; {statuses}")
    _assert_in_time(alone)
    _assert_in_time(looked_at)
    assert median(looked_at.latencies_s()) <= median(alone.latencies_s()) + 0.1
    assert len(answered) >= 3 * CLIENTS, "they were there"


def _live(person: Person) -> int:
    try:
        return person.ask("/api/live").status
    except (OSError, http.client.HTTPException):
        return 0


def _assert_in_time(phase: Phase) -> None:
    assert phase.unanswered == []
    assert max(phase.late_s) <= 0
    assert set(phase.ends) <= {"pass", "reject"}
    assert all(status.body["unpublished"] == 0 for status in phase.statuses)
