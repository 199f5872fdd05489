"""rejectd.batching.batcher: lines at 50 to 400 % of what the device can do, simulated."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import count

import pytest
from simulated_line import CAPACITY_HZ, DEADLINES_MS, MS, Device, Line, S, Source, between, cpu, equal, gpu


@pytest.mark.parametrize("load", [0.5, 0.9])
@pytest.mark.parametrize(("device", "deadline_ms"), [(gpu, 70), (gpu, 1000), (cpu, 70), (between, 120)])
@pytest.mark.parametrize(("cameras", "max_wait_ms"), [(2, 0), (6, 20)])
def test_below_capacity_every_frame_is_judged_in_time(
    load: float, device: Device, deadline_ms: int, cameras: int, max_wait_ms: int
) -> None:
    sources = equal(cameras, load * CAPACITY_HZ[device], deadline_ms)
    line = Line(sources, device, max_wait_ns=max_wait_ms * MS).run()
    assert line.lost() == {}


@pytest.mark.parametrize("load", [1.1, 2, 4])
@pytest.mark.parametrize(("device", "deadline_ms"), DEADLINES_MS)
@pytest.mark.parametrize(("cameras", "max_wait_ms"), [(2, 0), (6, 20)])
def test_in_overload_the_device_still_judges_as_much_as_it_can(
    load: float, device: Device, deadline_ms: int, cameras: int, max_wait_ms: int
) -> None:
    sources = equal(cameras, load * CAPACITY_HZ[device], deadline_ms)
    line = Line(sources, device, max_wait_ns=max_wait_ms * MS).run()
    assert line.judged_hz >= 0.95 * CAPACITY_HZ[device]
    assert line.lost()["overdue"] == 0
    assert line.lost()["late"] <= 0.01 * line.lost().total()


@pytest.mark.parametrize("load", [1.1, 4])
@pytest.mark.parametrize("deadline_ms", [70, 200, 1000])
def test_in_overload_an_engine_that_nothing_is_known_of_is_soon_used_to_the_full(load: float, deadline_ms: int) -> None:
    line = Line(equal(2, load * CAPACITY_HZ[gpu], deadline_ms), gpu, warm=False).run()
    assert line.judged_hz >= 0.95 * CAPACITY_HZ[gpu]
    assert line.lost()["late"] <= 8


@pytest.mark.parametrize("deadline_ms", [60, 80, 100, 200, 1000])
@pytest.mark.parametrize("hanging_batch", [1, 40])
@pytest.mark.parametrize("warm", [True, False])
def test_the_line_recovers_by_itself_when_the_device_hung_once(
    deadline_ms: int, hanging_batch: int, warm: bool
) -> None:
    batches = count(0 if warm else 1)

    def hangs(size: int, rng: random.Random) -> int:
        return 2 * S if next(batches) == hanging_batch else gpu(size, rng)

    rate_hz = 0.8 * CAPACITY_HZ[gpu]
    line = Line(equal(2, rate_hz, deadline_ms), hangs, seconds=8, warm=warm).run()
    assert line.lost().total() < 4 * rate_hz, "two seconds of hanging cost little more than two seconds of verdicts"


# a camera that floods, one that stalls: the others do not feel it

# device, deadline of the neighbours, how many times longer than at 90 % load their frames may take
NEIGHBOURS = [
    (gpu, 60, 1.2),
    (gpu, 300, 1.2),
    (cpu, 60, 1.9),
    (cpu, 300, 2.5),
    (between, 80, 1.3),
    (between, 1000, 1.6),
]
FLOODS = [
    pytest.param(60, 1, id="tight"),
    pytest.param(300, 1, id="middling"),
    pytest.param(1000, 1, id="loose"),
    pytest.param(100, 8, id="bursts"),
]


@cache
def p99_ms_at_90_percent(device: Device, deadline_ms: int, max_wait_ms: int) -> float:
    """What the frames of three cameras take when a fourth fills the line up to 90 % of what the device can do."""
    neighbours = equal(3, 0.4 * CAPACITY_HZ[device], deadline_ms)
    fourth = Source(rate_hz=0.5 * CAPACITY_HZ[device], deadline_ns=deadline_ms * MS)
    line = Line(neighbours | {"a": fourth}, device, seconds=3, max_wait_ns=max_wait_ms * MS).run()
    return line.p99_ms(*neighbours)


@pytest.mark.parametrize(("device", "deadline_ms", "slower"), NEIGHBOURS)
@pytest.mark.parametrize(("flood_ms", "burst"), FLOODS)
@pytest.mark.parametrize(("factor", "max_wait_ms"), [(2, 20), (10, 0)])
def test_a_camera_that_floods_takes_no_frame_and_little_time_from_the_others(
    device: Device, deadline_ms: int, slower: float, flood_ms: int, burst: int, factor: int, max_wait_ms: int
) -> None:
    capacity_hz = CAPACITY_HZ[device]
    neighbours = equal(3, 0.4 * capacity_hz, deadline_ms)
    flood = Source(rate_hz=factor * capacity_hz, deadline_ns=flood_ms * MS, burst=burst, from_s=1)
    line = Line(neighbours | {"a": flood}, device, seconds=3, max_wait_ns=max_wait_ms * MS).run()
    assert line.lost(*neighbours) == {}
    assert line.p99_ms(*neighbours) <= slower * p99_ms_at_90_percent(device, deadline_ms, max_wait_ms)
    if device is not between:  # where small batches cost throughput, short deadlines of others cost some
        assert line.judged_hz >= 0.95 * capacity_hz * (0.4 * 1 + 1.0 * 2) / 3


def test_a_flood_that_comes_again_and_again_takes_no_frame_from_the_others() -> None:
    neighbours = equal(3, 0.75 * CAPACITY_HZ[gpu], 60)
    flood = Source(rate_hz=64, deadline_ns=S, burst=64)
    assert Line(neighbours | {"a": flood}, gpu).run().lost(*neighbours) == {}


@pytest.mark.parametrize(("device", "share"), [(gpu, 0.2), (between, 0.1)])
def test_a_camera_that_sends_four_at_once_loses_none_to_one_that_floods(device: Device, share: float) -> None:
    rate_hz = share * CAPACITY_HZ[device]
    sources = {
        "a": Source(rate_hz=4 * CAPACITY_HZ[device], deadline_ns=80 * MS),
        "b": Source(rate_hz=rate_hz, deadline_ns=80 * MS, burst=4),
    }
    assert Line(sources, device).run().lost("b") == {}


def test_two_cameras_that_flood_share_what_the_others_leave() -> None:
    neighbours = equal(2, 0.3 * CAPACITY_HZ[gpu], 60)
    floods = {
        camera: Source(rate_hz=rate * CAPACITY_HZ[gpu], deadline_ns=100 * MS) for camera, rate in (("x", 2), ("y", 5))
    }
    line = Line(neighbours | floods, gpu).run()
    assert line.lost(*neighbours) == {}
    assert line.ends["x"]["judged"] == pytest.approx(line.ends["y"]["judged"], rel=0.05)


@pytest.mark.parametrize("max_wait_ms", [0, 20])
def test_a_camera_that_stalls_changes_nothing_for_the_others(max_wait_ms: int) -> None:
    others = equal(3, 0.6 * CAPACITY_HZ[gpu], 70)
    steady = Source(rate_hz=0.2 * CAPACITY_HZ[gpu], deadline_ns=70 * MS)
    going, stalled = (
        Line(others | {"a": camera}, gpu, max_wait_ns=max_wait_ms * MS).run()
        for camera in (steady, replace(steady, until_s=1))
    )
    assert stalled.lost() == {}
    assert stalled.p99_ms(*others) <= 1.1 * going.p99_ms(*others)


def test_uneven_arrivals_within_the_share_lose_next_to_nothing_to_a_camera_that_floods() -> None:
    neighbours = {camera: Source(rate_hz=0.1 * CAPACITY_HZ[gpu], deadline_ns=70 * MS, uneven=True) for camera in "bcde"}
    flood = Source(rate_hz=4 * CAPACITY_HZ[gpu], deadline_ns=60 * MS)
    line = Line(neighbours | {"a": flood}, gpu, seconds=6).run()
    assert line.lost(*neighbours).total() <= 2
