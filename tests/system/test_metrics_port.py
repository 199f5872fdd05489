"""What anybody on the network does to the metrics port costs no part its verdict."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from line import Line, Subscriber
from peers import wait_for

pytestmark = pytest.mark.system

ATTACK_S = 8.0

# A process of its own: the subscriber must not wait for it.
ATTACK = """
import socket, sys, threading, time
from contextlib import suppress

port, ends = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])

def slow():  # holds many connections open with a byte now and then
    with suppress(OSError):
        clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(150)]
        while time.monotonic() < ends:
            for client in clients:
                with suppress(OSError):
                    client.send(b"G")
            time.sleep(0.2)

def huge():  # sends requests without an end
    while time.monotonic() < ends:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
            client.settimeout(2)
            client.sendall(b"GET /" + b"a" * 1_000_000)
            client.recv(100)

def many():  # asks for one page after another, and takes no answer
    while time.monotonic() < ends:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 200)

threads = [threading.Thread(target=attack) for attack in (slow, huge, many, many)]
for thread in threads:
    thread.start()
"""


def _judged_in(seconds: float, subscriber: Subscriber) -> int:
    """Count the parts that are judged within some time."""
    before = len(subscriber.of("verdict"))
    time.sleep(seconds)
    judged = list(subscriber.of("verdict").values())[before:]
    return sum(verdict["cause"] is None for verdict in judged)


def _is_served(line: Line) -> bool:
    with suppress(OSError):
        return line.metrics()["rejectd_broker_connected"] == 1
    return False


def test_slow_endless_and_many_requests_to_the_metrics_port_cost_no_verdict(
    line: Line, subscriber: Subscriber, cells: list[Path]
) -> None:
    line.folder("left", cells[:10], rate_hz=3, loop=True, deadline_ms=5000)
    line.start()
    wait_for(lambda: len(subscriber.of("verdict")) > 4, "verdicts arrive")
    quiet = _judged_in(ATTACK_S, subscriber)
    program = [sys.executable, "-c", ATTACK, str(line.metrics_port), str(ATTACK_S)]
    attack = subprocess.Popen(["nice", "-n", "10", *program])  # from another machine it would cost no processor here
    attacked = _judged_in(ATTACK_S, subscriber)
    attack.wait(timeout=60)
    assert attacked > quiet / 2, "parts are judged all the time"
    wait_for(lambda: _is_served(line), "the page is there afterwards")
    assert line.stop() == 0
    assert "Traceback" not in line.log.read_text()
