"""The whole service on GigE Vision cameras: loss, resend, a camera that is killed and returns, and its neighbour."""

from __future__ import annotations

import time
from typing import Any

import pytest
from genicam_peers import aravis_fake, viva_camera
from line import Line, Subscriber
from peers import wait_for

pytestmark = pytest.mark.system

_RETURN_S = 30.0  # on a loaded machine; 1 to 6 s were measured


def _camera(address: str, **settings: object) -> dict[str, object]:
    return {
        "type": "aravis", "product": "cell", "camera": address, "retry_max_s": 1, "deadline_ms": 3000,
        "frozen_after": 0, **settings,
    }  # fmt: skip


def _verdicts(subscriber: Subscriber, camera: str) -> list[dict[str, Any]]:
    """In the order of the frames."""
    verdicts = [verdict for verdict in subscriber.of("verdict").values() if verdict["camera"] == camera]
    return sorted(verdicts, key=lambda verdict: int(verdict["seq"]))


def _judged(subscriber: Subscriber, camera: str) -> int:
    return sum(verdict["cause"] is None for verdict in _verdicts(subscriber, camera))


def test_each_lost_frame_is_an_unjudged_part_and_a_killed_camera_returns_while_its_neighbour_works_on(
    line: Line, subscriber: Subscriber
) -> None:
    lost = [(7, packet) for packet in range(8)]
    with (
        viva_camera(width=64, height=48, fps=10, drop_packets=[(3, 1), (5, 2), *lost]) as left,
        viva_camera(width=96, height=64, fps=5) as right,
    ):
        line.settings["cameras"] = {"left": _camera(left.address), "right": _camera(right.address)}
        line.start()
        wait_for(lambda: len(_verdicts(subscriber, "left")) >= 20, "the left camera's parts have verdicts")
        metrics = line.metrics()
        faults = [v["seq"] for v in _verdicts(subscriber, "left")[:20] if v["cause"] == "camera_fault"]
        assert faults == [7]
        wait_for(
            lambda: line.metrics()["rejectd_camera_stream_events_total{camera=left,event=resent_packets}"] == 2,
            "the packets that were sent again are counted",
        )
        assert metrics["rejectd_camera_stream_events_total{camera=right,event=missing_packets}"] == 0

        left.kill()
        wait_for(lambda: subscriber.status("left")["state"] == "down", "the killed camera is down")
        before = _judged(subscriber, "left")
        neighbour = _judged(subscriber, "right")
        left.start()
        returned = time.monotonic()
        wait_for(lambda: subscriber.status("left")["state"] == "up", "the camera is back", _RETURN_S)
        took_s = time.monotonic() - returned
        wait_for(lambda: _judged(subscriber, "left") > before + 10, "its parts are judged again")
        print(f"back {took_s:.1f} s after it returned")
        assert _judged(subscriber, "right") > neighbour
        assert line.stop() == 0
    assert "down" not in subscriber.states("right")
    wait_for(lambda: subscriber.status()["state"] == "offline", "the line says goodbye")
    status = subscriber.status()
    assert status["captured"] == len(subscriber.of("verdict")) + status["unpublished"]
    for camera in ("left", "right"):
        assert _verdicts(subscriber, camera)[0]["seq"] == 1


def test_a_camera_that_loses_packets_without_resend_has_a_verdict_for_each_frame_over_the_wrap_of_their_numbers(
    line: Line, subscriber: Subscriber
) -> None:
    with aravis_fake(lost_of_thousand=2):
        line.settings["cameras"] = {
            "left": _camera("127.0.0.1", features=["AcquisitionFrameRate=20"], sensor_region=[0, 0, 128, 128])
        }
        line.start()
        wait_for(lambda: any(v["source"] == "frame 40" for v in _verdicts(subscriber, "left")), "numbers have wrapped")
        assert line.stop() == 0
    verdicts = _verdicts(subscriber, "left")
    numbers = [int((verdict["source"] or "frame 0").removeprefix("frame ")) for verdict in verdicts]
    known = [(place, number if number > 60_000 else number + 65_535) for place, number in enumerate(numbers) if number]
    first = known[0][1] - known[0][0]
    assert [number for _, number in known] == [first + place for place, _ in known]  # none is missing, none is twice
    causes = {verdict["cause"] for verdict in verdicts}
    assert "camera_fault" in causes
    assert None in causes
    faults = [verdict["detail"] for verdict in verdicts if verdict["cause"] == "camera_fault"]
    assert all("packets were missing" in fault or "never arrived" in fault for fault in faults)
