"""The whole service on a real RTSP stream that is killed, frozen and started again, or whose clock jumps."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import signal
import threading
import time
from collections.abc import Callable

import pytest
from line import Line, Subscriber
from mjpeg_server import MjpegServer
from peers import RtspServer, wait_for
from rtp_proxy import RtpProxy

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


def _stream(url: str, **settings: object) -> dict[str, object]:
    return {
        "type": "video", "product": "cell", "url": url, "retry_max_s": 1, "read_timeout_s": 20, "deadline_ms": 2000,
        **settings,
    }  # fmt: skip


@pytest.mark.parametrize("for_good", [False, True], ids=["one stamp", "all later stamps"])
def test_a_time_stamp_that_is_hours_ahead_leaves_no_part_without_a_verdict(
    line: Line, subscriber: Subscriber, rtsp: Callable[..., RtspServer], for_good: bool
) -> None:
    def restamp(number: int, stamp_s: float) -> float:
        return stamp_s + (37_600 if number == 100 or (for_good and number > 100) else 0)

    with contextlib.closing(RtpProxy(rtsp("jpeg").port, restamp)) as proxy:
        line.settings["cameras"]["left"] = _stream(proxy.url)
        line.start()
        wait_for(lambda: len(subscriber.of("verdict")) > 160, "the stream is judged after the jump", 60)
        status = subscriber.status()
        assert line.stop() == 0
    unjudged = [v["detail"] for v in subscriber.of("verdict").values() if v["cause"] == "camera_fault"]
    assert unjudged == []
    assert "down" not in subscriber.states("left")[:-1]
    assert status["judging"]


def test_what_queued_while_the_service_was_stopped_keeps_its_true_time_and_brings_no_late_verdict(
    line: Line, subscriber: Subscriber, rtsp: Callable[..., RtspServer]
) -> None:
    line.settings["cameras"]["left"] = _stream(rtsp("jpeg").url)
    line.start()
    wait_for(lambda: _judged(subscriber) > 10, "the stream is judged", 30)
    assert line.process
    line.process.send_signal(signal.SIGSTOP)
    threading.Event().wait(4.5)
    line.process.send_signal(signal.SIGCONT)
    resumed = time.time()
    before = _judged(subscriber)
    wait_for(lambda: _judged(subscriber) > before + 40, "the stream is judged again", 40)
    assert line.stop() == 0

    # the stream's own clock tells when a picture was taken: it and the capture time run alike on one connection
    verdicts = [verdict for verdict in subscriber.of("verdict").values() if verdict["cause"] is None]
    verdicts.sort(key=lambda verdict: verdict["seq"])
    times = [(float(verdict["source"].split()[0]), _unix(verdict["captured_at"])) for verdict in verdicts]
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(times)]
    assert max(abs(taken_s - stamped_s) for stamped_s, taken_s in steps if stamped_s > 0) < 0.7
    late = [
        verdict["event_id"]
        for received, topic, verdict in subscriber.messages
        if "/verdict/" in topic and received > _unix(verdict["valid_until"]) + 0.1
    ]
    assert late == []
    assert any(_unix(verdict["captured_at"]) > resumed for verdict in verdicts)


def test_a_camera_without_a_clock_is_judged_by_arrival(line: Line, subscriber: Subscriber) -> None:
    with contextlib.closing(MjpegServer(lambda _: 0.2)) as server:
        line.settings["cameras"]["left"] = _stream(server.url)
        line.start()
        wait_for(lambda: len(subscriber.of("verdict")) > 60, "the stream is seen", 60)
        assert line.stop() == 0
    faults = [v["detail"] for v in subscriber.of("verdict").values() if v["cause"] == "camera_fault"]
    assert faults == []
    assert _judged(subscriber) > 40


def _unix(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()
