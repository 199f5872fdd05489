"""A connection to a real broker that refuses, and a publisher that has ended."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import Mosquitto, free_port
from prometheus_client import CollectorRegistry

from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt import Ears, LinkError, Message, Publisher, RefusedError, connect
from rejectd.outbox import Outbox
from rejectd.settings import Mqtt


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_attempts_that_fail_for_years_leave_no_socket_open(mosquitto_with: Callable[[str], Mosquitto]) -> None:
    refusing = Mqtt(port=mosquitto_with("allow_anonymous false").port)
    gc.disable()  # a socket that only the garbage collector closes may stay open for long
    try:
        before = _open_files()
        for _ in range(20):
            with pytest.raises(RefusedError, match=r"check mqtt\.username"):
                connect(refusing, client_id="test")
        with pytest.raises(LinkError, match="is a broker running there"):
            connect(Mqtt(port=free_port()), client_id="test")
        assert _open_files() == before
    finally:
        gc.enable()


def test_waking_a_publisher_that_has_ended_harms_nobody(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
    metrics = Metrics(CollectorRegistry(), cameras=[], products=[], snapshot=Ledger("run", margin=Margin(0)).snapshot)
    will = Message(topic="t", payload=b"")
    publisher = Publisher(
        Mqtt(port=free_port()),
        line="l",
        status=lambda _state: will,
        will=will,
        outbox=outbox.path,
        ears=Ears(
            delivered=lambda _verdict, _now: None,
            took=lambda _ns: None,
            acknowledged=lambda _seq: None,
            received=lambda _message: None,
        ),
        metrics=metrics,
    )
    publisher.stop(0.1)
    started = time.monotonic()
    publisher.run()
    assert time.monotonic() - started < 5
    publisher.wake()
    outbox.close()
