"""A real journal with verdicts of a test's choice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from rejectd.storage import database


def verdict_row(camera: str, seq: int, at: datetime, decision: str, **more: Any) -> dict[str, Any]:
    """A row of the journal."""
    return {
        "event_id": f"run-{camera}-{seq}",
        "run": "run",
        "camera": camera,
        "product": "cell",
        "frame_seq": seq,
        "captured_unix_ns": int(at.timestamp() * 1000) * 1_000_000,
        "decision": decision,
        "cause": None,
        "action": "pass" if decision == "pass" else "reject",
        "score": None,
        "threshold": 0.5 if more.get("score") is not None else None,
        "latency_ms": 40.0,
        **more,
    }


def journal_with(
    directory: Path, rows: Iterable[Mapping[str, Any]], events: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Write a journal with these verdicts and defect events. Returns its path."""
    path = directory / "journal.sqlite"
    with closing(database.open_to_write(path)) as db:
        for row in rows:
            names = ", ".join(row)
            db.execute(f"INSERT INTO verdict ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        for event_id, payload in (events or {}).items():
            db.execute(
                "INSERT INTO event (event_id, topic, payload, created_unix_ns) VALUES (?, 't', ?, 1)",
                (event_id, json.dumps(payload).encode()),
            )
    return path
