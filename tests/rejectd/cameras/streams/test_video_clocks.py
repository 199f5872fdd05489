"""Streams whose time stamps jump, run wrong or are missing, from real servers."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from mjpeg_server import MjpegServer
from rtp_proxy import RtpProxy

from rejectd.cameras import CameraError, driver
from rejectd.cli.check import _camera
from rejectd.contract.messages import CameraState, Picture
from rejectd.contract.settings import TimeStamps, VideoCamera

OLDEST_MS = 700  # STALE_S, and what the server's encoder, a proxy and two busy cores may add


@pytest.fixture
def restamped(rtsp) -> Iterator[Callable[..., RtpProxy]]:
    """Starts an RTSP server whose time stamps are changed on the way."""
    with contextlib.ExitStack() as stack:

        def start(restamp: Callable[[int, float], float], codec: str = "jpeg") -> RtpProxy:
            proxy = RtpProxy(rtsp(codec).port, restamp)
            stack.callback(proxy.close)
            return proxy

        yield start


@pytest.fixture
def mjpeg() -> Iterator[Callable[..., MjpegServer]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: object, **options: object) -> MjpegServer:
            server = MjpegServer(*arguments, **options)
            stack.callback(server.close)
            return server

        yield start


def camera(url: str, **settings: object) -> VideoCamera:
    return VideoCamera(
        product="cell", url=url, **{"open_timeout_s": 3.0, "read_timeout_s": 2.0, "retry_max_s": 0.5, **settings}
    )


def ages_ms(taken, tell_age) -> list[int]:
    """The true age at hand-over of each picture that would be judged."""
    return [tell_age(p, ns) for p, ns in zip(taken.pictures, taken.taken_ns, strict=False) if not p.fault]


@pytest.mark.parametrize("jump_s", [37_600.0, 20_000.0, -20_000.0, 1.5, -1.5])
@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_one_time_stamp_that_jumps_costs_no_picture(codec, jump_s, restamped, capture, tell_age):
    proxy = restamped(lambda number, stamp_s: stamp_s + (jump_s if number == 30 else 0.0), codec)
    taken = capture(camera(proxy.url))
    taken.wait_for_more(60)
    assert [picture.fault for picture in taken.faulty] == []
    assert taken.states == [(CameraState.UP, "")]
    assert proxy.connections == 1
    assert max(ages_ms(taken, tell_age)) < OLDEST_MS
    early_ns = 100_000_000  # a picture without delay may be given the delay of the one before
    assert all(tell_age(picture, picture.captured_ns + early_ns) < OLDEST_MS for picture in taken.good)


@pytest.mark.parametrize("jump_s", [37_600.0, 20_000.0, -20_000.0, 1.5, -1.5])
def test_time_stamps_that_jump_for_good_cost_no_picture(jump_s, restamped, capture, tell_age):
    proxy = restamped(lambda number, stamp_s: stamp_s + (jump_s if number >= 30 else 0.0))
    taken = capture(camera(proxy.url))
    taken.wait_for_more(60)
    assert [picture.fault for picture in taken.faulty] == []
    assert proxy.connections == 1
    assert max(ages_ms(taken, tell_age)) < OLDEST_MS


def test_pictures_that_queue_after_a_jump_are_still_seen_to_be_stale(restamped, proxy, capture, tell_age):
    jumping = restamped(lambda number, stamp_s: stamp_s + (37_600.0 if number >= 20 else 0.0))
    between = proxy(jumping.port)
    taken = capture(camera(f"rtsp://127.0.0.1:{between.port}/camera"))
    taken.wait_for_more(30)
    between.stall()
    threading.Event().wait(1.5)
    between.flow()
    taken.wait(lambda taken: bool(taken.faulty))
    taken.wait_for_more(40)
    assert len(taken.faulty) >= 10
    assert max(ages_ms(taken, tell_age)) < OLDEST_MS


def test_pictures_that_queue_while_the_time_stamps_jump_are_not_judged(restamped, proxy, capture, tell_age):
    stalled = threading.Event()
    jumping = restamped(lambda number, stamp_s: stamp_s + (37_600.0 if stalled.is_set() else 0.0))
    between = proxy(jumping.port)
    taken = capture(camera(f"rtsp://127.0.0.1:{between.port}/camera"))
    taken.wait_for_more(10)
    between.stall()
    stalled.set()
    threading.Event().wait(1.5)
    between.flow()
    taken.wait(lambda taken: bool(taken.faulty))
    taken.wait_for_more(40)
    assert "its time stamp jumped" in {picture.fault.partition(":")[0] for picture in taken.faulty}
    assert max(ages_ms(taken, tell_age)) < OLDEST_MS


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_time_stamps_at_a_wrong_rate_are_named_and_arrival_helps(rate, restamped, capture, tell_age):
    proxy = restamped(lambda _, stamp_s: rate * stamp_s)
    taken = capture(camera(proxy.url))
    taken.wait_for_state(CameraState.DOWN)
    told = re.search(r"time stamps advance (\S+) s in a second", taken.states[-1][1])
    assert told, taken.states
    assert float(told[1]) == pytest.approx(rate, rel=0.15)
    assert "timestamps: arrival" in taken.states[-1][1]
    assert sum("time stamps advance" in picture.fault for picture in taken.faulty) >= 0.8 * len(taken.faulty)
    taken.stop()
    by_arrival = capture(camera(proxy.url, timestamps=TimeStamps.ARRIVAL))
    by_arrival.wait_for_more(40)
    assert [picture.fault for picture in by_arrival.faulty] == []
    assert max(ages_ms(by_arrival, tell_age)) < OLDEST_MS


def test_a_false_lag_does_not_keep_a_camera_from_a_new_connection(restamped, capture):
    proxy = restamped(lambda number, stamp_s: stamp_s + 20.0 * (number * 7919 % 1009) if number > 20 else stamp_s)
    taken = capture(camera(proxy.url))
    taken.wait_for_state(CameraState.DOWN, 12)
    assert "time stamps jump from picture to picture" in taken.states[-1][1]
    assert "timestamps: arrival" in taken.states[-1][1]
    taken.wait(lambda _: proxy.connections > 1)


def test_mjpeg_over_http_works_by_arrival(mjpeg, capture, colours_right, tell_age):
    taken = capture(camera(mjpeg().url))
    taken.wait_for_more(100)
    assert [picture.fault for picture in taken.faulty] == []
    assert taken.states == [(CameraState.UP, "")]
    assert all(colours_right(picture.pixels) for picture in taken.good)
    assert max(ages_ms(taken, tell_age)) < OLDEST_MS
    assert all(tell_age(picture, picture.captured_ns) < OLDEST_MS for picture in taken.good)


def test_mjpeg_of_a_triggered_camera_is_judged_whenever_a_picture_comes(mjpeg, capture, tell_age):
    pauses_s = (0.05, 0.05, 0.8, 0.02, 0.02, 1.2)
    taken = capture(camera(mjpeg(lambda number: pauses_s[number % 6]).url, open_timeout_s=5.0))
    taken.wait_for_more(18, 20)
    assert [picture.fault for picture in taken.faulty] == []
    assert max(ages_ms(taken, tell_age)) < OLDEST_MS


def test_pictures_of_a_stream_that_queue_behind_a_slow_reader_are_stale_by_arrival_too(mjpeg, tell_age):
    opened = driver(camera(mjpeg().url))
    opened.open()
    with contextlib.closing(opened):
        for _ in range(5):
            assert not opened.read(0.2).fault
        threading.Event().wait(1.5)  # nobody reads
        queued = [opened.read(0.2) for _ in range(20)]
        later = [opened.read(0.2) for _ in range(25)]
    # the first lay ready: it was not waited for since the last one, 1.5 s ago
    assert all(picture.fault.startswith("stale: taken up to") for picture in queued)
    now_ns = time.monotonic_ns()
    assert all(now_ns - picture.captured_ns > 1.4e9 for picture in queued)
    assert not later[-1].fault
    fresh = later[-1]
    picture = Picture(pixels=fresh.load(0), captured_ns=fresh.captured_ns, captured_unix_ns=fresh.captured_unix_ns)
    assert tell_age(picture, fresh.captured_ns) < OLDEST_MS


def test_a_source_that_sends_no_picture_twice_is_an_error_at_open(mjpeg):
    with pytest.raises(CameraError, match="no answer within 2 s"):
        driver(camera(mjpeg(lambda number: 0.0 if number == 0 else 60.0).url)).open()


def test_a_clock_that_stands_still_is_named(restamped, capture):
    taken = capture(camera(restamped(lambda number, stamp_s: min(stamp_s, 0.5)).url))
    taken.wait_for_state(CameraState.DOWN)
    assert "time stamps advance 0.00 s in a second" in taken.states[-1][1]


def test_a_camera_that_is_too_slow_to_settle_in_time_is_told_what_to_raise(mjpeg):
    slow = mjpeg(lambda number: 1.5 if number else 0.05)
    with pytest.raises(CameraError, match=r"pictures in \S+ s do not tell if they are new; raise `open_timeout_s`"):
        driver(camera(slow.url, open_timeout_s=1.0)).open()


def test_a_jump_is_logged_once(restamped, capture, caplog):
    proxy = restamped(lambda number, stamp_s: stamp_s + (500.0 if number in (20, 30, 40) else 0.0))
    taken = capture(camera(proxy.url))
    taken.wait_for_more(50)
    jumps = [record.getMessage() for record in caplog.records if "jumped" in record.getMessage()]
    assert jumps == [f"{proxy.url}: a time stamp jumped by +500.0 s"]


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_check_looks_at_more_than_the_first_picture_of_a_stream(rate, restamped):
    settings = camera(restamped(lambda _, stamp_s: rate * stamp_s).url)
    if rate == 1.0:
        assert _camera(settings, None).startswith("320 x 240 pixels")
    else:
        with pytest.raises(CameraError, match=r"it may be stale|stale: taken"):
            _camera(settings, None)


STOPPED = """
import sys
from rejectd.cameras.life import driver
from rejectd.contract.settings import TimeStamps, VideoCamera

camera = driver(VideoCamera(product="cell", url=sys.argv[1], timestamps=TimeStamps(sys.argv[2]), read_timeout_s=20.0))
camera.open()
while True:
    exposure = camera.read(0.2)
    exposed_ms = 0
    if not exposure.fault:
        cells = exposure.load(0)[20, 5::10, 0] > 127
        exposed_ms = int("".join("1" if cell else "0" for cell in cells), 2)
    print(exposure.captured_ns // 1_000_000 & 0xFFFFFFFF, exposed_ms, exposure.fault, flush=True)
"""


@pytest.mark.parametrize(("source", "timestamps"), [("mjpeg", "stream"), ("jpeg", "arrival"), ("jpeg", "stream")])
def test_what_queued_while_the_process_was_stopped_is_not_judged_with_a_fresh_time(source, timestamps, mjpeg, rtsp):
    url = mjpeg().url if source == "mjpeg" else rtsp(source).url
    command = [sys.executable, "-c", STOPPED, url, timestamps]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def pictures(count: int) -> list[tuple[int, int, str]]:
            lines = [process.stdout.readline().split(" ", 2) for _ in range(count)]
            return [(int(captured_ms), int(exposed_ms), fault.strip()) for captured_ms, exposed_ms, fault in lines]

        before = pictures(20)
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(4.5)
        process.send_signal(signal.SIGCONT)
        after = pictures(150)
        process.kill()
    assert not [fault for _, _, fault in before if fault]
    assert sum(fault.startswith("stale") for _, _, fault in after) > 20
    early_ms = [captured_ms - exposed_ms for captured_ms, exposed_ms, fault in before + after if not fault]
    assert max(early_ms) < OLDEST_MS, "a picture was given a time long after its exposure"
    assert not after[-1][2]


def test_pictures_whose_length_nobody_tells_are_refused_by_name_unless_somebody_wants_them_one_picture_late(mjpeg):
    server = mjpeg(lengths=False)
    refused = driver(camera(server.url))
    with pytest.raises(CameraError, match="without Content-Length: each is whole only when the next one begins"):
        refused.open()
    refused.close()
    with contextlib.closing(driver(camera(server.url, timestamps=TimeStamps.ARRIVAL))) as taken:
        taken.open()
        exposure = taken.read(1.0)
        assert exposure is not None
        assert not exposure.fault


def test_pictures_whose_length_is_told_are_taken_and_the_camera_is_asked_once(mjpeg):
    server = mjpeg()
    with contextlib.closing(driver(camera(server.url))) as taken:
        for _ in range(2):
            taken.open()
            assert taken.read(1.0) is not None
            taken.close()
    assert server.requests == 3
