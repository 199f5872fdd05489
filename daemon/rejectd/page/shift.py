"""The account of a shift for people: what was captured, how it ended, and the trend, by camera and product.

What counts as a part is a frame of a camera that stands alone, or a part of a station; known pictures do not count.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rejectd.contract.messages import GOLDEN, Cause, RejectdError
from rejectd.contract.settings import Settings
from rejectd.page.journal import Journal

BUCKETS = 24
_LONGEST = timedelta(days=31)
_NS = 1_000_000_000


class TimeError(RejectdError):
    """A time that a person gave makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time that people look at."""

    since: datetime
    until: datetime

    @property
    def since_ns(self) -> int:
        """The begin in Unix time."""
        return int(self.since.timestamp() * 1_000_000) * 1000

    @property
    def until_ns(self) -> int:
        """The end in Unix time."""
        return int(self.until.timestamp() * 1_000_000) * 1000

    @property
    def before(self) -> Window:
        """The time before, of the same length: the shift before."""
        return Window(since=self.since - (self.until - self.since), until=self.since)


@dataclass(slots=True, kw_only=True)
class Bucket:
    """A part of the time: how many parts, and the sum of their scores as parts of the threshold."""

    captured: int = 0
    rejected: int = 0
    judged: int = 0
    ratio_sum: float = 0.0

    @property
    def reject_share(self) -> float | None:
        """The share of rejects; None without parts."""
        return self.rejected / self.captured if self.captured else None

    @property
    def ratio(self) -> float | None:
        """The mean score as a part of the threshold; None without a judged part."""
        return self.ratio_sum / self.judged if self.judged else None


@dataclass(slots=True, kw_only=True)
class Count:
    """What became of the parts of one camera and product, or of all."""

    camera: str = ""
    product: str = ""
    passed: int = 0
    rejected: int = 0
    causes: Counter[str] = field(default_factory=Counter)  # of unjudged parts
    trend: list[Bucket] = field(default_factory=lambda: [Bucket() for _ in range(BUCKETS)])

    @property
    def unjudged(self) -> int:
        """Parts that were not judged."""
        return self.causes.total()

    @property
    def captured(self) -> int:
        """All parts."""
        return self.passed + self.rejected + self.unjudged

    @property
    def good_share(self) -> float | None:
        """The yield: the share of captured parts that passed; None without parts."""
        return self.passed / self.captured if self.captured else None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of the journal's counts."""
        number = row["parts"]
        if row["decision"] == "pass":
            self.passed += number
        elif row["decision"] == "reject":
            self.rejected += number
        else:
            self.causes[row["cause"] or "unknown"] += number
        bucket = self.trend[max(0, min(BUCKETS - 1, row["bucket"]))]
        bucket.captured += number
        bucket.rejected += number if row["decision"] == "reject" else 0
        bucket.judged += row["judged"]
        bucket.ratio_sum += row["ratio_sum"] or 0.0


def window(since: str, until: str, now: datetime) -> Window:
    """The time that a person asks for; the last eight hours if nothing is given.

    Raises:
        TimeError: if a time makes no sense.
    """
    try:
        end = datetime.fromisoformat(until).astimezone() if until else now
        begin = datetime.fromisoformat(since).astimezone() if since else end - timedelta(hours=8)
        asked = Window(since=begin, until=end)
        if not timedelta(0) < end - begin <= _LONGEST or asked.before.since_ns < 0 or asked.until_ns > 2**62:
            raise ValueError(since)  # noqa: TRY301 - one complaint for all
    except (ValueError, OverflowError, OSError) as error:
        raise TimeError(f"{since[:40]!r} to {until[:40]!r}", hint="give two times, 31 days apart at most") from error
    return asked


def counts(journal: Journal, settings: Settings, asked: Window) -> list[Count]:
    """The counts of each camera and product. Raises JournalError."""
    width_ns = max(1, (asked.until_ns - asked.since_ns) // BUCKETS)
    rows = journal.rows(_COUNTS, (asked.since_ns, width_ns, asked.since_ns, asked.until_ns))
    views = views_of_stations(settings)
    found: dict[tuple[str, str], Count] = {}
    for row in rows:
        if row["camera"] not in views and row["camera"] != GOLDEN:
            key = row["camera"], row["product"]
            found.setdefault(key, Count(camera=key[0], product=key[1])).add(dict(row))
    return [found[key] for key in sorted(found)]


def total(all_counts: Iterable[Count]) -> Count:
    """All parts together."""
    together = Count()
    for count in all_counts:
        together.passed += count.passed
        together.rejected += count.rejected
        together.causes += count.causes
        for bucket, added in zip(together.trend, count.trend, strict=True):
            bucket.captured += added.captured
            bucket.rejected += added.rejected
            bucket.judged += added.judged
            bucket.ratio_sum += added.ratio_sum
    return together


def views_of_stations(settings: Settings) -> Collection[str]:
    """The cameras whose frames are only views of a station's parts."""
    return {camera for station in settings.stations.values() for camera in station.cameras}


def as_csv(asked: Window, all_counts: Iterable[Count]) -> str:
    """The counts as a table for spreadsheets."""
    causes = [str(cause) for cause in Cause]
    text = io.StringIO()
    writer = csv.writer(text)
    head = ["since", "until", "camera", "product", "captured", "pass", "reject", "unjudged", *causes, "yield"]
    writer.writerow(head)
    for count in all_counts:
        share = "" if count.good_share is None else f"{count.good_share:.6f}"
        numbers = [count.captured, count.passed, count.rejected, count.unjudged]
        times = [asked.since.isoformat(timespec="seconds"), asked.until.isoformat(timespec="seconds")]
        per_cause = [count.causes[cause] for cause in causes]
        writer.writerow([*times, count.camera, count.product, *numbers, *per_cause, share])
    return text.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bucket in a chart of 240 x 60: its bar, and where the line passes."""

    x: float
    y: float
    height: float
    title: str


def bars(count: Count, asked: Window) -> Iterator[Bar]:
    """Yield the bars of the share of rejects."""
    width = (asked.until - asked.since) / BUCKETS
    for number, bucket in enumerate(count.trend):
        height = 60 * (bucket.reject_share or 0.0)
        at = asked.since + number * width
        title = f"{at:%d. %H:%M}: {bucket.rejected}/{bucket.captured}"
        yield Bar(x=10.0 * number + 1, y=round(60 - height, 1), height=round(height, 1), title=title)


def line(count: Count) -> str:
    """The points of the mean score: the threshold is at half of the height."""
    points = [
        f"{10 * number + 5},{round(60 - 30 * min(2.0, bucket.ratio), 1)}"
        for number, bucket in enumerate(count.trend)
        if bucket.ratio is not None
    ]
    return " ".join(points)


_COUNTS = """SELECT camera, product, decision, cause, (captured_unix_ns - ?) / ? AS bucket, count(*) AS parts,
    count(score) AS judged, sum(CASE WHEN threshold > 0 THEN score / threshold END) AS ratio_sum
    FROM verdict WHERE captured_unix_ns >= ? AND captured_unix_ns < ?
    GROUP BY camera, product, decision, cause, bucket"""
