"""What the driver of GenICam cameras makes of buffers: numbers, times, faults and counts, on a link that tells them."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable

import pytest

from rejectd.cameras.driver import CameraError, Remark
from rejectd.cameras.genicam.camera import Genicam
from rejectd.cameras.genicam.features import Feature, Value
from rejectd.cameras.genicam.link import Buffer
from rejectd.contract.messages import Exposure, PictureError, StreamCounts
from rejectd.contract.settings import AravisCamera

MONO8 = 0x01080001
MS = 1_000_000


class Plain:
    """A camera without features."""

    def feature(self, name: str) -> Feature | None:
        return None

    def names(self) -> Iterable[str]:
        return ()

    def write(self, feature: Feature, value: Value) -> None:
        raise AssertionError


class Told:
    """A link that delivers what the test says."""

    shown = "camera told"
    first_number = 1

    def __init__(self, *buffers: Buffer) -> None:
        self.buffers = deque(buffers)
        self.counted = StreamCounts()
        self.starts = 0

    def connect(self) -> Plain:
        return Plain()

    def start(self) -> None:
        self.starts += 1

    def fetch(self, timeout_s: float) -> Buffer | None:
        return self.buffers.popleft() if self.buffers else None

    def counts(self) -> StreamCounts:
        return self.counted

    def close(self) -> None:
        pass


def _buffer(number: int | None, at_ms: int = 0, **other: object) -> Buffer:
    fields = {
        "data": bytes(range(12)),
        "code": MONO8,
        "width": 4,
        "height": 3,
        "number": number,
        "stamp_ns": at_ms * MS,
        "arrived_ns": time.monotonic_ns() - 10_000 * MS + at_ms * MS,
    }
    return Buffer(**{**fields, **other})  # type: ignore[arg-type]


def _read(*buffers: Buffer) -> list[Exposure | Remark]:
    camera = Genicam(AravisCamera(product="cell", camera="told"), Told(*buffers))
    camera.open()
    read = []
    while (exposure := camera.read(0.01)) is not None:
        read.append(exposure)
    camera.close()
    return read


def _exposures(*buffers: Buffer) -> list[Exposure]:
    return [exposure for exposure in _read(*buffers) if isinstance(exposure, Exposure)]


def test_a_picture_is_decoded_when_it_is_asked_for() -> None:
    (exposure,) = _exposures(_buffer(1, 100))
    assert exposure.source == "frame 1"
    assert exposure.held
    assert exposure.load(1.0)[..., 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_frames_that_never_arrived_are_exposures_whose_times_lie_between_those_of_their_neighbours() -> None:
    read = _exposures(_buffer(105, 1000), _buffer(106, 1100), _buffer(109, 1400))
    assert [exposure.source for exposure in read] == [f"frame {number}" for number in range(105, 110)]
    assert [bool(exposure.fault) for exposure in read] == [False, False, True, True, False]
    steps_ms = [round((after.captured_ns - before.captured_ns) / MS) for before, after in itertools.pairwise(read)]
    assert steps_ms == pytest.approx([100] * 4, abs=20)
    assert not read[2].held
    with pytest.raises(PictureError):
        read[2].load(1.0)


def test_a_picture_whose_number_was_lost_is_one_of_the_missing_and_not_one_more() -> None:
    broken = _buffer(None, 0, data=b"", fault="the picture is not whole: 5 packets were missing", stamp_ns=0)
    read = _exposures(_buffer(105, 1000), broken, _buffer(107, 1200), _buffer(108, 1300))
    assert [exposure.source for exposure in read] == ["frame 105", "", "frame 107", "frame 108"]
    assert [bool(exposure.fault) for exposure in read] == [False, True, False, False]


def test_a_picture_that_comes_in_part_keeps_its_fault_and_its_number() -> None:
    (_, exposure) = _exposures(_buffer(105, 1000), _buffer(106, 1100, fault="the picture is not whole", data=b""))
    assert exposure.fault == "the picture is not whole"
    assert exposure.source == "frame 106"


def test_a_camera_that_counts_anew_says_that_nobody_knows_what_was_lost() -> None:
    read = _read(_buffer(30_000, 1000), _buffer(1, 1100))
    remarks = [remark for remark in read if isinstance(remark, Remark)]
    assert [remark.unseen for remark in remarks] == [True]
    assert "numbered anew from 1" in remarks[0].text
    assert sum(isinstance(exposure, Exposure) for exposure in read) == 2


def test_a_frame_that_comes_twice_is_a_fault_and_never_judged_for_another_part() -> None:
    read = _exposures(_buffer(105, 1000), _buffer(105, 1100))
    assert [exposure.fault for exposure in read] == ["", "the camera sent frame 105 again"]


def test_counts_of_the_stream_are_told_once_a_second_and_only_what_is_new() -> None:
    link, now = Told(), [0]
    camera = Genicam(AravisCamera(product="cell", camera="told"), link, clock_ns=lambda: now[0])
    camera.open()
    link.counted = StreamCounts(resent_packets=3)
    assert camera.read(0.01) is None
    now[0] += 1_100 * MS
    told = camera.read(0.01)
    assert isinstance(told, Remark)
    assert told.stream == StreamCounts(resent_packets=3)
    now[0] += 1_100 * MS
    assert camera.read(0.01) is None
    link.counted = StreamCounts(resent_packets=4, underruns=1)
    now[0] += 1_100 * MS
    told = camera.read(0.01)
    assert isinstance(told, Remark)
    assert told.stream == StreamCounts(resent_packets=1, underruns=1)
    camera.close()


def test_an_error_of_opening_holds_no_frame_that_would_keep_the_camera_open() -> None:
    class Refuses(Told):
        def start(self) -> None:
            try:
                int("a failure in the library")
            except ValueError:
                raise CameraError("camera told: it does not start") from None

    with pytest.raises(CameraError) as caught:
        Genicam(AravisCamera(product="cell", camera="told"), Refuses()).open()
    assert caught.value.__context__ is None
    functions = [frame.name for frame in caught.traceback]
    assert "start" not in functions
