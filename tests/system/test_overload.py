"""From half to four times what the device can judge: every frame answered in time, and the device never idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Broker, Listener
from load import LoadedLine, Phase, SlowWay, kinds
from peers import wait_for
from reckoning import SHOWN_DECISION, Span
from stand_in_line import Device, StandInLine, pictures

pytestmark = pytest.mark.system

# As slow as a large network on a processor without a GPU, so that the service's own work, which must share this
# machine's processors with the harness, is small at every load. The bench has faster devices.
DEVICE = Device(base_ms=160, per_frame_ms=30)  # 20 frames in a second
DEADLINE_MS = 2000
LOADS = {50: 5.0, 90: 7.0, 110: 10.0, 200: 10.0, 400: 10.0}  # percent of the device's capacity, s
HANG_AFTER_S, HANG_S, LEFT_S = 1.0, 5.0, 4.0


Make = Callable[..., LoadedLine]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Make]:
    """Starts a service with four cameras, which reaches its broker in so many seconds."""
    with ExitStack() as stack:

        def start(*, delay_s: float = 0.0, **mqtt: object) -> LoadedLine:
            directory = tmp_path_factory.mktemp("overload")
            broker = Broker(directory / "broker", safe=False)
            stack.callback(broker.stop, kill=True)
            listener = Listener(broker.port)
            stack.callback(listener.close)
            way = SlowWay(broker.port, delay_s)
            stack.callback(way.close)
            service = StandInLine(directory, bundle, way.port if delay_s else broker.port, DEVICE)
            stack.callback(service.close)
            service.settings["engine"] = {"hang_s": 2}
            service.settings["mqtt"] |= mqtt
            made = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=DEADLINE_MS)
            made.start()
            return made

        yield start


@pytest.fixture(scope="module")
def line(make: Make) -> LoadedLine:
    """One service for all loads. Other programs may keep it from a processor for longer than the default margin."""
    return make(publish_margin_ms=100)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, cells: list[Path]) -> dict[str, bytes]:
    """A good and a bad picture."""
    directory = tmp_path_factory.mktemp("shown")
    return kinds(pictures(cells[:1], directory)[0], pictures(cells[1:2], directory, bad=True)[0])


def _assert_answered(phase: Phase) -> None:
    """Every picture that was shown has one verdict, in time, and the right one if it was judged."""
    assert phase.unanswered == []
    assert phase.repeated == 0
    assert max(phase.late_s) <= 0
    for name, verdict in phase.verdicts.items():
        expected = SHOWN_DECISION[name.rpartition("-")[2].partition(".")[0]]
        assert verdict.body["decision"] in (expected, "unjudged")
    assert all(status.body["unpublished"] == 0 for status in phase.statuses)


@pytest.mark.parametrize("load", LOADS)
def test_every_frame_is_answered_in_time_and_the_device_judges_what_it_can_at_a_load_in_percent_of(
    load: int, line: LoadedLine, shown: dict[str, bytes]
) -> None:
    offered_hz = load / 100 * DEVICE.capacity_hz
    phase = line.phase([line.feed(shown, offered_hz)], LOADS[load])
    share = phase.judged_share(line.line)
    print(f"{load} %: {dict(phase.ends)}, {share:.1%} of capacity, tightest {-max(phase.late_s):.3f} s")
    assert len(phase.shown) >= 0.97 * LOADS[load] * offered_hz, "the load was offered"
    _assert_answered(phase)
    if load <= 90:
        assert set(phase.ends) <= {"pass", "reject"}
    else:
        assert set(phase.ends) <= {"pass", "reject", "overload", "late"}
        assert share >= 0.95


def test_a_device_that_hangs_for_five_seconds_leaves_no_frame_without_an_answer_and_the_line_recovers_by_itself(
    line: LoadedLine, shown: dict[str, bytes]
) -> None:
    feeder = line.feed(shown, 0.5 * DEVICE.capacity_hz)
    wait_for(lambda: line.listener.status().get("judging"), "it has recovered from the overload before")
    begin = time.time()
    time.sleep(HANG_AFTER_S)
    line.line.hang()
    hung = time.time()
    time.sleep(HANG_S)
    line.line.go_on()
    went_on = time.time()
    time.sleep(LEFT_S)
    feeder.stop()
    phase = line.after([feeder], Span(begin, time.time()))
    print(dict(phase.ends))
    _assert_answered(phase)
    assert phase.ends["late"] + phase.ends["overload"] > 0.5 * HANG_S * 0.5 * DEVICE.capacity_hz, "it did hang"
    for name, verdict in phase.verdicts.items():
        if phase.shown[name] > went_on + 2:
            assert verdict.body["decision"] != "unjudged", "it judges again within two seconds"
    judging = [(status.at, status.body["judging"]) for status in phase.statuses]
    # a frame is answered as late by a quarter of its time before its deadline at the earliest (ledger.Margin)
    until_late = [judges for at, judges in judging if at < hung + 0.7 * DEADLINE_MS / 1000]
    assert until_late
    assert all(until_late), "parts are not late yet"
    assert not any(judges for at, judges in judging if hung + 3.5 < at < went_on), "the heartbeat says so"
    assert judging[-1][1]


def test_after_all_that_the_account_balances_and_the_subscriber_has_received_every_captured_frame(
    line: LoadedLine,
) -> None:
    assert line.line.stop() == 0
    wait_for(lambda: line.listener.status().get("state") == "offline", "the line says goodbye")
    status = line.listener.status()
    received = {each.body["event_id"] for each in line.listener.of("/verdict")}
    assert status["captured"] == len(received) == len(line.line.journal("SELECT event_id FROM verdict"))
    assert status["captured"] == status["pass"] + status["reject"] + status["unjudged"]
    assert (status["unpublished"], status["in_flight"]) == (0, 0)


def test_a_broker_that_answers_slowly_costs_none_of_the_device_s_time(make: Make, shown: dict[str, bytes]) -> None:
    line = make(delay_s=0.06)
    phase = line.phase([line.feed(shown, 2 * DEVICE.capacity_hz)], 10)
    share = phase.judged_share(line.line)
    print(f"{dict(phase.ends)}, {share:.1%} of capacity, tightest {-max(phase.late_s):.3f} s")
    _assert_answered(phase)
    assert share >= 0.95
