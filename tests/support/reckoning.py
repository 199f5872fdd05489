"""The account of a chaos run: what the cameras were shown, what came to a subscriber, what the journal holds.

`problems` compares them. Every instant is Unix time on the one clock of this machine.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

AFTER_READY_S = 1.0  # from then on what a camera is shown must be captured ...
BEFORE_KILL_S = 0.5  # ... unless the service is killed so soon
# A verdict that a broker keeps for a subscriber that is away carries the message expiry, whole seconds but at least 1:
# a documented second more than its deadline. And mosquitto itself counts that in whole seconds of its clock.
KEPT_S = 1.0 + 1.0
SHOWN_DECISION = {"good": "pass", "bad": "reject", "broken": "unjudged"}  # the kind is in each file's name


class Received(NamedTuple):
    """A message as it came to the subscriber."""

    at: float
    connected_at: float  # since when the connection had been up that it came on
    topic: str
    body: dict[str, Any]


class Entry(NamedTuple):
    """A row of the journal."""

    event_id: str
    run: str
    camera: str
    frame_seq: int
    decision: str
    cause: str | None
    source: str | None
    captured_at: float


@dataclass
class Span:
    """Something lasted so long; a life of the service that never became ready has no `since`."""

    since: float
    until: float


@dataclass
class Collected:
    """Everything that is known of a run."""

    shown: dict[str, float] = field(default_factory=dict)  # name of a file to when it was moved in
    lives: list[Span] = field(default_factory=list)  # of the service, from `ready` until it was killed or told to stop
    broker: list[Span] = field(default_factory=list)  # while it ran
    subscribed: list[Span] = field(default_factory=list)  # while the subscriber heard
    verdicts: list[Received] = field(default_factory=list)
    defects: list[Received] = field(default_factory=list)
    statuses: list[Received] = field(default_factory=list)
    journal: list[Entry] = field(default_factory=list)
    deadline_s: float = 1.0


def read_journal(file: Path) -> list[Entry]:
    db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    columns = "event_id, run, camera, frame_seq, decision, cause, source, captured_unix_ns / 1e9"
    try:
        return [Entry(*row) for row in db.execute(f"SELECT {columns} FROM verdict").fetchall()]
    finally:
        db.close()


def missing_numbers(defects: Sequence[Received]) -> list[int]:
    """The event numbers that a consumer has not received, below the highest that it has."""
    numbers = {each.body["event_seq"] for each in defects}
    return sorted(set(range(1, max(numbers, default=0))) - numbers)


def problems(run: Collected) -> list[str]:
    """Everything that is not as it must be; empty after a good run."""
    checks = (
        _frames_without_entry,
        _counted_and_not_kept,
        _shown_and_not_captured,
        _wrong_decisions,
        _verdicts_unlike_the_journal,
        _late_verdicts,
        _verdicts_not_received,
        _defects_lost,
        _repeats_that_differ,
        _unbalanced,
    )
    return [f"{check.__name__.strip('_')}: {problem}" for check in checks for problem in check(run)]


def _frames_without_entry(run: Collected) -> Iterator[str]:
    """Each run of each camera is numbered from 1 without a gap, each picture and each event is there once."""
    numbers = defaultdict(list)
    for entry in run.journal:
        numbers[entry.run, entry.camera].append(entry.frame_seq)
    for (service, camera), found in numbers.items():
        if sorted(found) != list(range(1, len(found) + 1)):
            lacking = sorted(set(range(1, max(found) + 1)) - set(found))
            yield f"run {service}, camera {camera}: frames {lacking} of {max(found)} are not in the journal"
    for what, names in (
        ("event", [entry.event_id for entry in run.journal]),
        ("source", [entry.source for entry in run.journal]),
    ):
        yield from (f"{what} {name} is in the journal {count} times" for name, count in _repeated(names))


def _counted_and_not_kept(run: Collected) -> Iterator[str]:
    """What the line has said to have captured is in the journal, also when it was killed right afterwards."""
    kept = Counter(entry.run for entry in run.journal)
    said: Counter[str] = Counter()
    for each in run.statuses:
        said[each.body["run"]] = max(said[each.body["run"]], each.body.get("captured", 0))
    for service, count in said.items():
        if count > kept[service]:
            yield f"run {service} said to have captured {count} frames, the journal has {kept[service]}"


def _shown_and_not_captured(run: Collected) -> Iterator[str]:
    """What a camera saw while the service surely watched is in the journal."""
    captured = {entry.source for entry in run.journal}
    for name, at in run.shown.items():
        if name not in captured and any(
            life.since + AFTER_READY_S <= at <= life.until - BEFORE_KILL_S for life in run.lives
        ):
            yield f"{name}, shown at {at:.3f}, is not in the journal"


def _wrong_decisions(run: Collected) -> Iterator[str]:
    for entry in run.journal:
        kind = (entry.source or "").rpartition("-")[2].partition(".")[0]
        expected = SHOWN_DECISION[kind]
        if entry.decision not in (expected, "unjudged"):
            yield f"{entry.source} ended as {entry.decision}"
        if entry.decision == "unjudged" and not entry.cause:
            yield f"{entry.event_id} is unjudged without a cause"


def _verdicts_unlike_the_journal(run: Collected) -> Iterator[str]:
    decisions = {entry.event_id: entry.decision for entry in run.journal}
    for received in run.verdicts:
        event_id, decision = received.body["event_id"], received.body["decision"]
        if decisions.get(event_id) != decision:
            yield f"{event_id} was received as {decision}, the journal has {decisions.get(event_id)}"


def _late_verdicts(run: Collected) -> Iterator[str]:
    """None comes after its deadline, but for what the broker had in time and kept for a subscriber that was away."""
    for received in run.verdicts:
        late_s = received.at - _unix(received.body["valid_until"])
        if late_s > (KEPT_S if _was_kept(run, received) else 0) and not _was_restored(run, received):
            yield f"{received.body['event_id']} ({received.body['decision']}) came {late_s:.3f} s after its deadline"


def _was_kept(run: Collected, received: Received) -> bool:
    """Whether the broker can have had a verdict in time and kept it until the subscriber came."""
    decided_at, valid_until = _decided_at(received), _unix(received.body["valid_until"])
    had_it = any(span.since <= valid_until and decided_at <= span.until for span in run.broker)
    return had_it and received.connected_at > decided_at


def _was_restored(run: Collected, received: Received) -> bool:
    """Whether the broker can have kept a verdict over a death of its own.

    What mosquitto 2.0 reads from its disk in the last second of its time it keeps for ever (see its issue 1464).
    No publisher can help that; it is why a consumer must look at `valid_until`, as the AsyncAPI document says.
    """
    restarted = any(_decided_at(received) < span.since <= received.at for span in run.broker)
    return restarted and _was_kept(run, received)


def after_its_deadline(run: Collected) -> int:
    """How many verdicts came after their deadline for that reason alone."""
    late = (each for each in run.verdicts if each.at - _unix(each.body["valid_until"]) > KEPT_S)
    return sum(_was_restored(run, each) for each in late)


def _decided_at(received: Received) -> float:
    return _unix(received.body["captured_at"]) + float(received.body["latency_ms"]) / 1000


def _verdicts_not_received(run: Collected) -> Iterator[str]:
    """A frame whose whole time nobody was killed or away has its verdict received."""
    received = {each.body["event_id"] for each in run.verdicts}
    for entry in run.journal:
        first, last = entry.captured_at - BEFORE_KILL_S, entry.captured_at + run.deadline_s
        quiet = all(
            any(span.since <= first and last <= span.until for span in spans)
            for spans in (run.lives, run.broker, run.subscribed)
        )
        if quiet and entry.event_id not in received:
            yield f"the verdict of {entry.event_id} ({entry.decision}, {entry.cause}) was not received"


def _defects_lost(run: Collected) -> Iterator[str]:
    """Every frame that did not pass has its event, with a number of its own, and the numbers have no gap."""
    received = {each.body["event_id"] for each in run.defects}
    wanted = {entry.event_id for entry in run.journal if entry.decision != "pass"}
    yield from (f"the event of {event_id} was not received" for event_id in sorted(wanted - received))
    yield from (f"there is an event of {event_id}, which passed" for event_id in sorted(received - wanted))
    yield from (f"event number {number} was not received" for number in missing_numbers(run.defects))
    numbers = {(each.body["event_seq"], each.body["event_id"]) for each in run.defects}
    yield from (f"number {number} belongs to several events" for number, _ in _repeated(seq for seq, _ in numbers))
    yield from (f"event {event_id} has several numbers" for event_id, _ in _repeated(name for _, name in numbers))


def _repeats_that_differ(run: Collected) -> Iterator[str]:
    """What comes twice says the same twice."""
    for kind, messages in (("verdict", run.verdicts), ("event", run.defects)):
        first: dict[str, str] = {}
        for each in messages:
            body = json.dumps(each.body, sort_keys=True)
            if first.setdefault(each.body["event_id"], body) != body:
                yield f"{kind} {each.body['event_id']} came again and differs: {body}"


def _unbalanced(run: Collected) -> Iterator[str]:
    for each in run.statuses:
        body = each.body
        if "captured" in body and body["captured"] != sum(
            body[name] for name in ("pass", "reject", "unjudged", "in_flight")
        ):
            yield f"the status of {each.at:.3f} does not balance: {body}"


def _repeated(names: Any) -> list[tuple[Any, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
