"""What the gallery shows: parts from the journal with their pictures from the evidence folder, and people's labels."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

import cv2

from rejectd.contract.messages import GOLDEN, RejectdError
from rejectd.page.journal import Journal
from rejectd.page.shift import Window
from rejectd.page.store import Store

Place: TypeAlias = tuple[int, str]  # captured_unix_ns and event_id: parts of one exposure have the same time

EVENT_ID = r"^[A-Za-z0-9_-]{1,200}$"
ON_A_PAGE = 24
_LABELLED_MOST = 50_000  # some 2 MB of names for a query
_SMALL = 480  # pixels, the longest side of a small picture
_FILE_BYTES = 256_000_000
_decoding = threading.BoundedSemaphore(1)  # a large picture takes a hundred megabytes while it is decoded


class Label(StrEnum):
    """What a person says of a verdict."""

    RIGHT = "right"
    FALSE = "false"
    ESCAPE = "escape"


class EvidenceGoneError(RejectdError):
    """A picture is not kept any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which parts a person looks for; an empty text means any."""

    window: Window
    camera: str = ""
    product: str = ""
    decision: str = ""  # empty: rejected and unjudged ones
    label: str = ""  # a label, `any`, or `none`


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part in the gallery."""

    event_id: str
    camera: str
    product: str
    decision: str
    cause: str | None
    score: float | None
    threshold: float | None
    captured_unix_ns: int
    source: str | None
    has_picture: bool
    has_heat: bool
    label: Mapping[str, Any] | None

    @property
    def at(self) -> datetime:
        """When it was captured, in the time of this machine."""
        return datetime.fromtimestamp(self.captured_unix_ns / 1e9, UTC).astimezone()


class Gallery:
    """Finds parts, their pictures and labels."""

    def __init__(self, journal: Journal, evidence: Path | None, store: Store) -> None:
        self._journal = journal
        self._evidence = evidence
        self._store = store

    def parts(self, wanted: Filter, before: Place | None = None) -> list[Part]:
        """Parts that fit a filter, the latest first, one page of them. Raises JournalError, StoreError."""
        conditions = ["captured_unix_ns >= ?", "(captured_unix_ns, event_id) < (?, ?)", "camera != ?"]
        values: list[Any] = [wanted.window.since_ns, *(before or (wanted.window.until_ns, "")), GOLDEN]
        for column, value in (("camera", wanted.camera), ("product", wanted.product), ("decision", wanted.decision)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        if wanted.label in ("any", *Label):
            kind = None if wanted.label == "any" else wanted.label
            conditions.append("event_id IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(self._store.labelled(kind, _LABELLED_MOST)))
        elif not wanted.decision:
            conditions.append("decision != 'pass'")
        if wanted.label == "none":
            conditions.append("event_id NOT IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(self._store.labelled(None, _LABELLED_MOST)))
        query = f"SELECT * FROM verdict WHERE {' AND '.join(conditions)}"  # noqa: S608 - our own words
        rows = self._journal.rows(
            f"{query} ORDER BY captured_unix_ns DESC, event_id DESC LIMIT ?", [*values, ON_A_PAGE]
        )
        return self._shown(rows)

    def part(self, event_id: str) -> Part | None:
        """One part; None if the journal has none of that name."""
        parts = self._shown(self._journal.rows("SELECT * FROM verdict WHERE event_id = ?", [event_id]))
        return parts[0] if parts else None

    def neighbours(self, part: Part) -> tuple[str | None, str | None]:
        """The rejected or unjudged parts before and after this one."""
        found = "SELECT event_id FROM verdict WHERE decision != 'pass' AND camera != ? AND (captured_unix_ns, event_id)"
        earlier = f"{found} < (?, ?) ORDER BY captured_unix_ns DESC, event_id DESC LIMIT 1"
        later = f"{found} > (?, ?) ORDER BY captured_unix_ns, event_id LIMIT 1"
        values = [GOLDEN, part.captured_unix_ns, part.event_id]
        rows = [self._journal.rows(query, values) for query in (earlier, later)]
        first, last = (row[0]["event_id"] if row else None for row in rows)
        return first, last

    def regions(self, event_id: str) -> list[list[int]]:
        """Where the defects of a part are, in pixels of its picture."""
        rows = self._journal.rows("SELECT payload FROM event WHERE event_id = ?", [event_id])
        if not rows:
            return []
        try:
            regions = json.loads(rows[0]["payload"]).get("regions", [])
        except ValueError:
            return []
        return [[int(number) for number in region] for region in regions if len(region) == 4]

    def last_scores(self, product: str, most: int = 1000) -> list[float]:
        """The scores of the last judged parts of a product."""
        rows = self._journal.rows(
            "SELECT score FROM verdict WHERE product = ? AND score IS NOT NULL AND camera != ? AND views IS NULL"
            " ORDER BY captured_unix_ns DESC LIMIT ?",
            [product, GOLDEN, most],
        )
        return [float(row["score"]) for row in rows]

    def file(self, part: Part, kind: str) -> bytes:
        """The picture (`picture`), its heat map (`heat`), or a small one for lists (`small`).

        Raises:
            EvidenceGoneError: if it is not kept any more.
        """
        picture, heat = self._paths(part.event_id, part.captured_unix_ns)
        try:
            if kind == "small":
                return _small(heat if heat is not None and heat.is_file() else picture)
            path = heat if kind == "heat" else picture
            if path is None or path.stat().st_size > _FILE_BYTES:
                raise EvidenceGoneError("the picture is not kept any more")
            return path.read_bytes()
        except OSError as error:
            raise EvidenceGoneError("the picture is not kept any more") from error

    def _paths(self, event_id: str, captured_unix_ns: int) -> tuple[Path | None, Path | None]:
        """Where the picture and the heat map of a part lie, if they do."""
        if self._evidence is None:
            return None, None
        day = datetime.fromtimestamp(captured_unix_ns / 1e9, UTC).strftime("%Y-%m-%d")
        folder = self._evidence / day
        return folder / f"{event_id}.png", folder / f"{event_id}-heat.jpg"

    def _shown(self, rows: Sequence[Any]) -> list[Part]:
        labels = self._store.labels(row["event_id"] for row in rows)
        return [self._of(row, labels.get(row["event_id"])) for row in rows]

    def _of(self, row: Any, label: Mapping[str, Any] | None) -> Part:
        picture, heat = self._paths(row["event_id"], row["captured_unix_ns"])
        names = ("event_id", "camera", "product", "decision", "cause", "score", "threshold", "captured_unix_ns")
        return Part(
            **{name: row[name] for name in names},
            source=row["source"],
            has_picture=picture is not None and picture.is_file(),
            has_heat=heat is not None and heat.is_file(),
            label=label,
        )


def _small(path: Path | None) -> bytes:
    """A small JPEG of a picture."""
    if path is None or path.stat().st_size > _FILE_BYTES:
        raise EvidenceGoneError("the picture is not kept any more")
    with _decoding:
        pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
        if pixels is None:
            raise EvidenceGoneError("the picture is not kept any more")
        scale = min(1.0, _SMALL / max(pixels.shape[:2]))
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        _, data = cv2.imencode(".jpg", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return bytes(data)
