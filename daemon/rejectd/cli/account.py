"""`rejectd account`: what became of every frame of a shift, from the journal, and whether the PLC rejected as many.

"Late" is one thing here, in the metrics and in verdicts: the cause of a frame that was not judged by its deadline. A
verdict that the broker had after the deadline is overdue; one that it never acknowledged is undelivered.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from rejectd.contract.messages import GOLDEN, Decision, Policy, RejectdError, iso
from rejectd.storage import database
from revdist.files import trouble

_TITLES = ("captured", "judged", "pass", "reject", "unjudged", "in time", "overdue", "undelivered", "missing")
_SETTLED_NS = 5 * 10**9  # after its deadline a verdict's acknowledgement is in the journal, if it ever comes
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


class AccountError(RejectdError):
    """There is no account, or none for that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actuator:
    """The rejects that a PLC counted between two of its messages, beside those that it was told."""

    since: str
    until: str
    counted: int
    certain: int  # told, and due between the two messages
    possible: int  # told perhaps, or due perhaps

    @property
    def agrees(self) -> bool:
        """Whether the PLC rejected what it was told to."""
        return self.certain <= self.counted <= self.possible


@dataclass(slots=True, kw_only=True)
class Camera:
    """The account of one camera, or of one station's parts."""

    captured: int = 0
    passed: int = 0
    rejected: int = 0
    unjudged: dict[str, int] = field(default_factory=dict)  # by cause
    acknowledged: int = 0  # the broker had the verdict by its deadline
    overdue: int = 0  # after it
    undelivered: int = 0  # the broker never acknowledged it
    missing: int = 0  # numbers without an entry in the journal
    actuator: Actuator | None = None

    @property
    def judged(self) -> int:
        """Frames that the model has judged."""
        return self.passed + self.rejected

    @property
    def good(self) -> bool:
        """Whether every frame was judged, every verdict delivered in time, and the PLC agrees."""
        uninspected = self.captured - self.judged + self.missing
        agrees = self.actuator is None or self.actuator.agrees
        return agrees and not uninspected and not self.overdue and not self.undelivered


def account(journal: Path, since_unix_ns: int, until_unix_ns: int, *, travel_ns: int) -> dict[str, Camera]:
    """The accounts of all cameras and stations for frames captured in a time.

    `travel_ns`: how long after the deadline of its verdict a part is rejected and counted at the latest.

    Raises:
        AccountError: if there is no journal, or it cannot be read.
    """
    wrong = trouble.why_not_file(journal)
    if wrong and wrong.hint:
        hint = f"run as the service's user, or {wrong.hint}"
        raise AccountError(f"{journal}: cannot be read: {wrong.cause}", hint=hint)
    if wrong:
        raise AccountError(
            f"{journal}: there is no journal", hint="has this line run yet, and with this settings file?"
        )
    window = (since_unix_ns, until_unix_ns)
    settled = until_unix_ns - _SETTLED_NS
    try:
        with closing(database.open_to_read(journal)) as db:
            if db.execute("PRAGMA user_version").fetchone()[0] != database.VERSION:
                raise AccountError(f"{journal}: another version of rejectd wrote it", hint="start this version once")
            cameras: dict[str, Camera] = {}
            for row in db.execute(_COUNTS, (settled, *window)):
                _add(cameras.setdefault(row["camera"], Camera()), row)
            for row in db.execute(_RUNS, window).fetchall():
                bounds = (row["run"], row["camera"], row["low"], row["high"])
                (recorded,) = db.execute(_BETWEEN, bounds).fetchone()
                cameras[row["camera"]].missing += row["high"] - row["low"] + 1 - recorded
            for name, camera in cameras.items():
                camera.actuator = _actuator(db, name, window, travel_ns)
    except sqlite3.Error as error:
        hint = "may you read it? run as the service's user"
        if database.is_damage(error):
            hint = "it is damaged: the service sets it aside and begins a new one"
        raise AccountError(f"{journal}: cannot be read: {error}", hint=hint) from error
    return dict(sorted(cameras.items(), key=lambda item: (item[0] == GOLDEN, item[0])))


def set_aside(journal: Path, since_unix_ns: int) -> Iterator[str]:
    """A sentence for each journal that was damaged and set aside since then: its frames are not in the account."""
    for path in sorted(journal.parent.glob(f"{journal.name}.damaged-*")):
        stamp = re.search(r"damaged-(\d{8}T\d{6})Z(-\d+)?$", path.name)
        if stamp and datetime.strptime(f"{stamp[1]}+0000", "%Y%m%dT%H%M%S%z").timestamp() * 1e9 >= since_unix_ns:
            yield f"a journal was damaged and set aside: what {path} holds is not in this account"


def instant(text: str, now: datetime) -> int:
    """Unix ns of `2026-11-25T06:00`, `06:00` (the latest one, local time), or a time ago such as `8h`.

    Local time follows the machine's time zone through clock changes; `8h` are eight hours that have passed. Of a local
    time that comes twice, `06:00` means the latest one that is over, and a date the first one.

    Raises:
        AccountError: if it is none of these.
    """
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    clock = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
    try:
        if ago:
            at = now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        elif clock:
            at = _latest(int(clock[1]), int(clock[2]), now)
        else:
            at = datetime.fromisoformat(text)
        return round(at.timestamp() * 1e6) * 1000
    except (ValueError, OverflowError) as error:
        hint = "give 2026-11-25T06:00, 06:00, or a time ago such as 90m, 8h, 2d"
        raise AccountError(f"{text!r} is not a time", hint=hint) from error


def _latest(hour: int, minute: int, now: datetime) -> datetime:
    """The latest instant until now at which clocks here showed this time."""
    today = datetime.fromtimestamp(now.timestamp()).replace(hour=hour, minute=minute, second=0, microsecond=0)
    for days_ago in (0, 1):
        for fold in (1, 0):  # where the clock was put back, the second time first
            at = (today - timedelta(days=days_ago)).replace(fold=fold).astimezone()
            if at <= now:
                return at
    raise ValueError  # not reached: yesterday is over


def table(cameras: Mapping[str, Camera], *, views: Collection[str] = ()) -> Iterator[str]:
    """The account for people, with a sentence for whatever they should look at."""
    yield "".join([f"{'':<16}", *(f"{title:>12}" for title in _TITLES)])
    for name, camera in cameras.items():
        unjudged = sum(camera.unjudged.values())
        judged = (camera.captured, camera.judged, camera.passed, camera.rejected, unjudged)
        delivered = (camera.acknowledged, camera.overdue, camera.undelivered, camera.missing)
        yield f"{name:<16}" + "".join(f"{count:>12}" for count in (*judged, *delivered))
    for name, camera in cameras.items():
        if camera.unjudged:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(camera.unjudged.items()))
            yield f"{name}: unjudged: {causes}"
        if camera.actuator:
            told = f"{camera.actuator.certain}"
            told += f" to {camera.actuator.possible}" if camera.actuator.possible > camera.actuator.certain else ""
            agrees = "agrees" if camera.actuator.agrees else "DIFFERS"
            yield f"{name}: the PLC counted {camera.actuator.counted} rejects, it was told {told}: {agrees}"
    yield from remarks(cameras, views=views)


def remarks(cameras: Mapping[str, Camera], *, views: Collection[str] = ()) -> Iterator[str]:
    """A sentence for each thing that somebody should look at; none if all is well.

    `views`: cameras of stations, whose frames are views of parts and no parts themselves.
    """
    if not cameras:
        yield "no part was captured in this time"
    unjudged: Counter[str] = Counter()
    for name, camera in cameras.items():
        if name not in views and name != GOLDEN:
            unjudged.update(camera.unjudged)
    captured = sum(camera.captured for name, camera in cameras.items() if name not in views and name != GOLDEN)
    if unjudged:
        ((cause, count), *other_causes) = unjudged.most_common()
        why = f"mostly {cause} ({count})" if other_causes else f"all {cause}"
        yield f"{unjudged.total()} of {captured} parts were not inspected, {why}"
    for name, camera in cameras.items():
        if (name in views or name == GOLDEN) and camera.unjudged:
            yield f"{name}: {sum(camera.unjudged.values())} of {camera.captured} pictures were not judged"
        if camera.overdue:
            yield f"{name}: {camera.overdue} verdicts reached the broker after their deadline"
        if camera.undelivered:
            yield f"{name}: {camera.undelivered} verdicts that the broker did not acknowledge: was it or the disk away?"
        if camera.missing:
            yield f"{name}: {camera.missing} frames have no entry in the journal: was the disk full?"
        if camera.actuator and not camera.actuator.agrees:
            yield f"{name}: the PLC did not reject what it was told to"


def to_json(
    cameras: Mapping[str, Camera],
    since_unix_ns: int,
    until_unix_ns: int,
    *,
    views: Collection[str] = (),
    aside: Collection[str] = (),
) -> dict[str, object]:
    """The account for programs."""
    return {
        "since": iso(since_unix_ns),
        "until": iso(until_unix_ns),
        "good": good(cameras) and not aside,
        "remarks": [*remarks(cameras, views=views), *aside],
        "cameras": {name: _camera_json(camera) for name, camera in cameras.items()},
    }


def good(cameras: Mapping[str, Camera]) -> bool:
    """Whether there were parts, and nobody need look at anything."""
    return bool(cameras) and all(camera.good for camera in cameras.values())


def _camera_json(camera: Camera) -> dict[str, object]:
    actuator = camera.actuator
    return {
        "captured": camera.captured,
        "judged": camera.judged,
        "pass": camera.passed,
        "reject": camera.rejected,
        "unjudged": camera.unjudged,
        "acknowledged": camera.acknowledged,
        "overdue": camera.overdue,
        "undelivered": camera.undelivered,
        "missing": camera.missing,
        "actuator": actuator
        and {
            "since": actuator.since,
            "until": actuator.until,
            "counted": actuator.counted,
            "told": [actuator.certain, actuator.possible],
            "agrees": actuator.agrees,
        },
    }


def _add(camera: Camera, row: sqlite3.Row) -> None:
    camera.captured += row["frames"]
    camera.acknowledged += row["in_time"]
    camera.overdue += row["overdue"]
    camera.undelivered += row["undelivered"]
    if row["decision"] == Decision.PASS:
        camera.passed += row["frames"]
    elif row["decision"] == Decision.REJECT:
        camera.rejected += row["frames"]
    else:
        camera.unjudged[row["cause"]] = camera.unjudged.get(row["cause"], 0) + row["frames"]


def _actuator(db: sqlite3.Connection, camera: str, window: tuple[int, int], travel_ns: int) -> Actuator | None:
    """What a PLC counted. It fires between the acknowledgement of a verdict and the arrival of the part."""
    since, until = window
    readings = db.execute(_READINGS, (camera, camera, since, since, until)).fetchall()
    if len(readings) < 2:
        return None
    counts = [row["rejected"] for row in readings]
    counted = 0
    for before, after in itertools.pairwise(counts):
        counted += after - before if after >= before else after  # a PLC that was restarted counts from 0
    first, last = readings[0]["at_unix_ns"], readings[-1]["at_unix_ns"]
    bounds = {"camera": camera, "action": Policy.REJECT, "first": first, "last": last, "travel": travel_ns}
    told = db.execute(_TOLD, bounds).fetchone()
    return Actuator(
        since=iso(first), until=iso(last), counted=counted, certain=told["certain"], possible=told["possible"]
    )


_COUNTS = """SELECT camera, decision, cause, count(*) AS frames,
    sum(acknowledged_ms IS NOT NULL AND acknowledged_ms <= deadline_ms) AS in_time,
    sum(acknowledged_ms IS NOT NULL AND acknowledged_ms > deadline_ms) AS overdue,
    sum(acknowledged_ms IS NULL AND captured_unix_ns + deadline_ms * 1e6 < ?) AS undelivered
    FROM verdict WHERE captured_unix_ns >= ? AND captured_unix_ns < ? GROUP BY camera, decision, cause"""
_RUNS = """SELECT run, camera, min(frame_seq) AS low, max(frame_seq) AS high
    FROM verdict WHERE captured_unix_ns >= ? AND captured_unix_ns < ? GROUP BY run, camera"""
_BETWEEN = "SELECT count(*) FROM verdict WHERE run = ? AND camera = ? AND frame_seq BETWEEN ? AND ?"
_READINGS = """SELECT at_unix_ns, rejected FROM actuator WHERE camera = ? AND at_unix_ns >= coalesce(
    (SELECT max(at_unix_ns) FROM actuator WHERE camera = ? AND at_unix_ns <= ?), ?) AND at_unix_ns < ?
    ORDER BY at_unix_ns"""
_TOLD = """SELECT
    coalesce(sum(told IS NOT NULL AND told > :first AND due <= :last), 0) AS certain,
    coalesce(sum(due > :first AND coalesce(told, begun) <= :last), 0) AS possible
    FROM (SELECT captured_unix_ns AS begun, captured_unix_ns + CAST(deadline_ms * 1e6 AS INTEGER) + :travel AS due,
        captured_unix_ns + CAST(acknowledged_ms * 1e6 AS INTEGER) AS told
        FROM verdict WHERE camera = :camera AND action = :action AND captured_unix_ns <= :last)"""
