"""The whole service on a Video4Linux device, which is simulated below OpenCV."""

from __future__ import annotations

import datetime
import signal
import threading
import time

import pytest
from line import Line, Subscriber
from peers import wait_for

pytestmark = pytest.mark.system


def test_what_waited_in_a_devices_queue_while_the_service_was_stopped_is_late_and_never_judged(
    line: Line, subscriber: Subscriber, v4l2_device: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in v4l2_device.items():
        monkeypatch.setenv(name, value)
    line.settings["cameras"]["left"] = {"type": "v4l2", "product": "cell", "device": "/dev/zero", "deadline_ms": 2000}
    line.start()
    wait_for(lambda: _judged(subscriber) > 20, "the device is judged", 30)
    assert line.process
    line.process.send_signal(signal.SIGSTOP)
    threading.Event().wait(4.5)
    resumed = time.time()
    line.process.send_signal(signal.SIGCONT)
    before = _judged(subscriber)
    wait_for(lambda: _judged(subscriber) > before + 40, "the device is judged again", 30)
    late = line.metrics()
    assert line.stop() == 0

    assert sum(value for name, value in late.items() if "unjudged" in name and "late" in name) >= 4
    for received, topic, verdict in subscriber.messages:
        if "/verdict/" in topic:
            assert received < _unix(verdict["valid_until"]) + 0.1
            taken = _unix(verdict["captured_at"])
            assert verdict["cause"] or not resumed - 4.5 < taken < resumed - 2.0


def _judged(subscriber: Subscriber) -> int:
    return sum(verdict["cause"] is None for verdict in subscriber.of("verdict").values())


def _unix(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()
