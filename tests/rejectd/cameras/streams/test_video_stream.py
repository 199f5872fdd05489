"""Streams, against a real RTSP server that writes into each picture when it was taken."""

from __future__ import annotations

import threading
import time

import pytest

from rejectd.cameras import CameraError, driver
from rejectd.contract.messages import CameraState
from rejectd.contract.settings import Transport, VideoCamera

OLDEST_MS = 700  # STALE_S, and what the server's encoder, a 20 ms proxy and two busy cores may add


def camera(url: str, **settings: object) -> VideoCamera:
    return VideoCamera(product="cell", url=url, open_timeout_s=5.0, read_timeout_s=2.0, retry_max_s=0.5, **settings)


def oldest_judged_ms(taken, tell_age) -> int:
    """The greatest true age at hand-over among the pictures that would be judged."""
    ages = [tell_age(p, ns) for p, ns in zip(taken.pictures, taken.taken_ns, strict=False) if not p.fault]
    return max(ages)


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_pictures_of_a_stream_are_rgb_fresh_and_stamped_close_to_their_exposure(
    codec, rtsp, capture, colours_right, tell_age
):
    taken = capture(camera(rtsp(codec).url))
    taken.wait_for_more(30)
    assert taken.states == [(CameraState.UP, "")]
    assert not taken.faulty
    assert all(colours_right(picture.pixels) for picture in taken.good)
    assert all(picture.pixels.shape == (240, 320, 3) for picture in taken.good)
    assert oldest_judged_ms(taken, tell_age) < OLDEST_MS
    assert all(tell_age(picture, picture.captured_ns) < OLDEST_MS for picture in taken.good)


def test_a_stream_over_udp_arrives(rtsp, capture, colours_right):
    taken = capture(camera(rtsp().url, transport=Transport.UDP))
    taken.wait(lambda taken: len(taken.good) >= 10)
    assert all(colours_right(picture.pixels) for picture in taken.good)


def test_a_killed_server_is_down_and_comes_back_with_the_right_colours(rtsp, capture, colours_right, tell_age):
    server = rtsp()
    taken = capture(camera(server.url))
    taken.wait_for_more(5)
    server.kill()
    taken.wait_for_state(CameraState.DOWN, 3)
    before = len(taken.good)
    server.start()
    taken.wait(lambda taken: len(taken.good) > before + 5)
    assert [state for state, _ in taken.states] == [CameraState.UP, CameraState.DOWN, CameraState.UP]
    assert colours_right(taken.good[before].pixels)
    assert all(colours_right(picture.pixels) for picture in taken.good)
    assert oldest_judged_ms(taken, tell_age) < OLDEST_MS


def test_a_frozen_server_is_down_within_the_read_timeout_and_comes_back_fresh(rtsp, capture, colours_right, tell_age):
    server = rtsp()
    taken = capture(camera(server.url))
    taken.wait_for_more(5)
    server.freeze()
    began = time.monotonic()
    taken.wait_for_state(CameraState.DOWN, 4)
    assert time.monotonic() - began < 2.0 + 0.7
    assert "no answer within 2 s" in taken.states[-1][1]
    before = len(taken.good)
    server.thaw()
    taken.wait(lambda taken: len(taken.good) > before + 10)
    assert taken.states[-1][0] is CameraState.UP
    assert colours_right(taken.good[before].pixels)
    assert oldest_judged_ms(taken, tell_age) < OLDEST_MS


def test_pictures_that_queued_in_a_stalled_network_are_counted_but_never_judged(rtsp, proxy, capture, tell_age):
    between = proxy(rtsp().port)
    taken = capture(camera(f"rtsp://127.0.0.1:{between.port}/camera"))
    taken.wait_for_more(10)
    between.stall()
    threading.Event().wait(1.5)  # less than the read timeout: the connection holds, the pictures queue
    between.flow()
    taken.wait(lambda taken: bool(taken.faulty))
    last = len(taken.pictures)
    taken.wait(lambda taken: len(taken.pictures) > last + 40)
    stale = [picture for picture in taken.faulty if picture.fault.startswith("stale")]
    assert len(stale) >= 10  # about a second's worth at 20 Hz
    assert not [picture for picture in taken.faulty if picture not in stale]
    assert oldest_judged_ms(taken, tell_age) < OLDEST_MS
    lags_s = [(ns - picture.captured_ns) / 1e9 for picture, ns in zip(taken.pictures, taken.taken_ns, strict=False)]
    assert 0.9 < max(lags_s) < 2.0  # the stamp says when it was taken, not when it came
    assert taken.states[-1][0] is CameraState.UP


def test_pictures_that_queued_until_the_link_was_lost_are_gone_with_it(rtsp, proxy, capture, tell_age):
    between = proxy(rtsp().port)
    taken = capture(camera(f"rtsp://127.0.0.1:{between.port}/camera"))
    taken.wait_for_more(5)
    between.stall()
    taken.wait_for_state(CameraState.DOWN, 5)
    between.flow()
    taken.wait_for_state(CameraState.UP)
    taken.wait_for_more(10)
    assert oldest_judged_ms(taken, tell_age) < OLDEST_MS


def test_a_server_that_is_frozen_before_the_connection_is_down_and_stops_quickly(rtsp, capture):
    server = rtsp()
    server.freeze()
    taken = capture(VideoCamera(product="cell", url=server.url, open_timeout_s=1.0))
    taken.wait_for_state(CameraState.DOWN, 5)
    assert "no answer within 1 s" in taken.states[0][1]


def test_stopping_does_not_wait_for_a_connection(rtsp, capture):
    server = rtsp()
    server.freeze()
    taken = capture(VideoCamera(product="cell", url=server.url, open_timeout_s=3.0))
    threading.Event().wait(0.3)  # it is inside FFmpeg now
    assert taken.stop() < 0.5


def test_user_and_password_open_the_stream_and_are_never_shown(rtsp, capture, tmp_path, caplog, capfd):
    secret = tmp_path / "password"
    secret.write_text("p@ss:w/rd\n")
    server = rtsp(login=("line 1", "p@ss:w/rd"))
    taken = capture(camera(server.url, username="line 1", password_file=secret))
    taken.wait(lambda taken: len(taken.good) >= 3)
    secret.write_text("wr0ng-one\n")
    with pytest.raises(CameraError) as refused:
        driver(camera(server.url, username="line 1", password_file=secret)).open()
    assert "correct `username` and `password_file`" in str(refused.value)
    server.kill()
    taken.wait_for_state(CameraState.DOWN)
    shown = str(refused.value) + str(taken.states) + caplog.text + "".join(capfd.readouterr())
    assert "wr0ng" not in shown
    assert "p@ss" not in shown
    assert "p%40ss" not in shown


def test_nobody_listening_is_an_error_that_says_so():
    with pytest.raises(CameraError, match=r"rtsp://127.0.0.1:9/x: cannot be opened: Connection refused; is the camera"):
        driver(camera("rtsp://127.0.0.1:9/x")).open()


def test_halves_of_pictures_are_never_judged(rtsp, capture):
    taken = capture(camera(rtsp("split").url))
    taken.wait_for_state(CameraState.DOWN)
    assert "parts of one picture" in taken.states[-1][1]
    assert not taken.good
