"""Nothing is lost when service and broker are killed, as an independent subscriber counts it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness import Chaos, Plan
from reckoning import Collected, Entry, Received, Span, problems
from stand_in_line import pictures

pytestmark = pytest.mark.system


@pytest.fixture
def chaos(tmp_path: Path, bundle: Path, cells: list[Path]) -> Callable[[Plan], Collected]:
    """Runs a plan."""

    def run(plan: Plan) -> Collected:
        (good,), (bad,) = pictures(cells[:1], tmp_path), pictures(cells[1:2], tmp_path, bad=True)
        line = Chaos(tmp_path / "line", bundle, good, bad, plan)
        try:
            return line.run()
        finally:
            line.close()
            print(line.killed, "replays:", line.listener.replays)

    return run


def test_thirty_kills_of_service_and_broker_lose_no_frame_and_no_event(
    chaos: Callable[[Plan], Collected],
) -> None:
    run = chaos(Plan(seed=3, service_kills=15, broker_kills=15))
    assert problems(run) == []
    assert len(run.journal) > 500, "there was a line at work"
    assert {entry.cause for entry in run.journal} >= {None, "stopping"}, "frames in flight were killed"


def _good_run() -> Collected:
    """A run in which all is well: a pass, a reject, a broken picture, and one in flight when the service was killed."""
    run = Collected(lives=[Span(100, 110)], broker=[Span(0, 1000)], subscribed=[Span(0, 1000)])
    ends = (("good", "pass", None), ("bad", "reject", None), ("broken", "unjudged", "camera_fault"))
    for seq, (kind, decision, cause) in enumerate((*ends, ("good", "unjudged", "stopping")), 1):
        shown_at, name, event_id = 101.0 + seq, f"{seq:06}-{kind}.png", f"r-left-{seq}"
        body = {"event_id": event_id, "decision": decision, "captured_at": _iso(shown_at), "latency_ms": 50.0}
        body["valid_until"] = _iso(shown_at + 1)
        run.shown[name] = shown_at
        run.journal.append(Entry(event_id, "r", "left", seq, decision, cause, name, shown_at))
        run.verdicts.append(Received(shown_at + 0.06, 1.0, f"/left/verdict/{decision}", body))
        if decision != "pass":
            number = len(run.defects) + 1
            run.defects.append(Received(shown_at + 0.1, 1.0, "/left/defect", {**body, "event_seq": number}))
    account = {"run": "r", "captured": 4, "pass": 1, "reject": 1, "unjudged": 1, "in_flight": 1}
    run.statuses.append(Received(106.0, 1.0, "/status", account))
    return run


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def test_the_harness_finds_nothing_wrong_with_a_run_in_which_all_is_well() -> None:
    assert problems(_good_run()) == []


def test_what_the_broker_kept_for_a_subscriber_that_was_away_may_come_a_little_after_its_deadline() -> None:
    run = _good_run()
    run.verdicts[0] = run.verdicts[0]._replace(at=run.shown["000001-good.png"] + 1.9, connected_at=103.5)
    assert problems(run) == []


def test_what_the_broker_kept_on_its_disk_may_come_at_any_time() -> None:
    run = _good_run()
    run.broker = [Span(0, 102.5), Span(103.2, 1000)]
    run.verdicts[0] = run.verdicts[0]._replace(at=120.0, connected_at=119.9)
    assert problems(run) == []


def test_an_absence_excuses_a_verdict_and_a_death_a_picture() -> None:
    run = _good_run()
    run.subscribed = [Span(0, 102.5), Span(102.8, 1000)]
    del run.verdicts[0]
    run.shown["000005-good.png"] = 109.7
    assert problems(run) == []


def _without_source(run: Collected) -> None:
    run.journal[0] = run.journal[0]._replace(source="000009-good.png")


def _late(run: Collected, connected_at: float, late_s: float) -> None:
    run.verdicts[0] = run.verdicts[0]._replace(at=run.shown["000001-good.png"] + 1 + late_s, connected_at=connected_at)


def _sent_again(run: Collected) -> None:
    run.broker = [Span(0, 102.0), Span(103.2, 1000)]  # the broker was away for all the time that the verdict had
    _late(run, connected_at=103.25, late_s=0.3)


def _repeat(messages: list[Received], **changed: object) -> None:
    messages.append(messages[0]._replace(body={**messages[0].body, **changed}))


TAMPERED: dict[str, tuple[Callable[[Collected], object], str]] = {
    "an entry of the journal is gone": (lambda run: run.journal.pop(1), "frames [2] of 4 are not in the journal"),
    "the last entries of a killed run are gone": (
        lambda run: run.journal.pop(),
        "run r said to have captured 4 frames, the journal has 3",
    ),
    "a frame is twice in the journal": (lambda run: run.journal.append(run.journal[0]), "r-left-1 is in the journal 2"),
    "a picture was shown twice": (
        lambda run: run.journal.append(run.journal[0]._replace(event_id="r-left-5", frame_seq=5)),
        "000001-good.png is in the journal 2 times",
    ),
    "a picture was shown and not captured": (_without_source, "000001-good.png, shown at 102.000, is not in"),
    "a bad part passed": (
        lambda run: run.journal.__setitem__(1, run.journal[1]._replace(decision="pass")),
        "000002-bad.png ended as pass",
    ),
    "an unjudged part has no cause": (
        lambda run: run.journal.__setitem__(2, run.journal[2]._replace(cause=None)),
        "r-left-3 is unjudged without a cause",
    ),
    "the journal has another verdict": (
        lambda run: run.verdicts[0].body.update(decision="reject"),
        "r-left-1 was received as reject, the journal has pass",
    ),
    "a verdict is unknown to the journal": (
        lambda run: _repeat(run.verdicts, event_id="r-left-9"),
        "r-left-9 was received as pass, the journal has None",
    ),
    "a verdict came late": (lambda run: _late(run, 1.0, 0.001), "came 0.001 s after its deadline"),
    "a kept verdict came very late": (lambda run: _late(run, 103.5, 2.5), "came 2.500 s after its deadline"),
    "a verdict was sent after the broker came back": (_sent_again, "r-left-1 (pass) came 0.300 s after its deadline"),
    "a verdict is gone": (lambda run: run.verdicts.pop(0), "the verdict of r-left-1 (pass, None) was not received"),
    "an event is gone": (lambda run: run.defects.pop(0), "the event of r-left-2 was not received"),
    "a number of an event is gone": (lambda run: run.defects.pop(0), "event number 1 was not received"),
    "the last event is gone": (lambda run: run.defects.pop(), "the event of r-left-4 was not received"),
    "a part that passed has an event": (
        lambda run: _repeat(run.defects, event_id="r-left-1", event_seq=4),
        "there is an event of r-left-1, which passed",
    ),
    "an event came with another number": (
        lambda run: _repeat(run.defects, event_seq=4),
        "event r-left-2 has several numbers",
    ),
    "a number came with another event": (
        lambda run: _repeat(run.defects, event_id="r-left-9"),
        "number 1 belongs to several events",
    ),
    "an event differs when it comes again": (lambda run: _repeat(run.defects, decision="x"), "came again and differs"),
    "a verdict differs when it comes again": (
        lambda run: _repeat(run.verdicts, latency_ms=1),
        "came again and differs",
    ),
    "an account does not balance": (
        lambda run: run.statuses[0].body.update(captured=5),
        "the status of 106.000 does not balance",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_harness_notices_that(name: str) -> None:
    tamper, said = TAMPERED[name]
    run = _good_run()
    tamper(run)
    found = problems(run)
    assert any(said in problem for problem in found), found
