"""The whole service on a real RTSP stream that is killed, frozen and started again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from line import Line, Subscriber
from peers import RtspServer, wait_for

pytestmark = pytest.mark.system


def _judged(subscriber: Subscriber) -> int:
    return sum(verdict["cause"] is None for verdict in subscriber.of("verdict").values())


def test_a_stream_that_is_killed_and_frozen_comes_back_and_no_stale_frame_is_judged(
    line: Line, subscriber: Subscriber, rtsp: Callable[..., RtspServer]
) -> None:
    server = rtsp("jpeg")
    line.settings["cameras"]["left"] = {
        "type": "video", "product": "cell", "url": server.url, "retry_max_s": 1, "read_timeout_s": 1,
        "deadline_ms": 2000,
    }  # fmt: skip
    line.start()
    wait_for(lambda: _judged(subscriber) > 10, "the stream is judged", 30)

    server.kill()
    wait_for(lambda: subscriber.status("left")["state"] == "down", "the camera is down")
    before = _judged(subscriber)
    server.start()
    wait_for(lambda: subscriber.status("left")["state"] == "up", "the camera is back")
    wait_for(lambda: _judged(subscriber) > before + 10, "the new stream is judged")

    server.freeze()
    wait_for(lambda: subscriber.status("left")["state"] == "down", "the frozen camera is down")
    assert line.metrics()["rejectd_camera_up{camera=left}"] == 0
    before = _judged(subscriber)
    server.thaw()
    wait_for(lambda: _judged(subscriber) > before + 10, "the thawed stream is judged")
    wait_for(lambda: subscriber.status("left")["state"] == "up", "the camera is back")
    assert line.stop() == 0
    wait_for(lambda: subscriber.status()["state"] == "offline", "the line says goodbye")
    status = subscriber.status()
    assert status["captured"] == len(subscriber.of("verdict")) + status["unpublished"]
