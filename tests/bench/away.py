"""A broker that is away for minutes, at 90 % of the device's capacity: what arrives, and what must not."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from ground import ground, load_average, options, report
from harness import Broker, Listener
from load import LoadedLine, kinds
from peers import wait_for
from stand_in_line import Device, StandInLine, pictures

DEVICE = Device(base_ms=80, per_frame_ms=15)  # 40 frames in a second
LOAD = 0.9
BEFORE_S, AFTER_S = 10.0, 20.0


def main() -> int:
    given = options(__doc__, minutes=5.0)
    with ground() as (directory, bundle, cells), ExitStack() as stack:
        shown = kinds(pictures(cells[:1], directory)[0], pictures(cells[1:2], directory, bad=True)[0])
        broker = Broker(directory / "broker", safe=False)
        stack.callback(broker.stop)
        listener = Listener(broker.port)
        stack.callback(listener.close)
        service = StandInLine(directory, bundle, broker.port, DEVICE)
        stack.callback(service.close)
        line = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=2000)
        line.start()
        feeder = line.feed(shown, LOAD * DEVICE.capacity_hz)
        stack.callback(feeder.stop)
        time.sleep(BEFORE_S)
        broker.stop()
        before_mb = _memory_mb(service)
        time.sleep(given.minutes * 60)
        after_mb, waiting = _memory_mb(service), service.metrics()["rejectd_outbox_events"]
        broker.start()
        back = time.monotonic()
        wait_for(lambda: service.metrics()["rejectd_outbox_events"] < 5, "the events that waited are delivered", 120)
        took_s = time.monotonic() - back
        time.sleep(AFTER_S)
        feeder.stop()
        time.sleep(3.0)  # for the last verdicts
        service.stop()
        wait_for(lambda: listener.status().get("state") == "offline", "the line says goodbye")
        row = {"minutes away": given.minutes, "events waiting": int(waiting), "delivered in s": took_s}
        row |= reckon(service, listener) | {"memory MB before": before_mb, "after": after_mb, "load": load_average()}
    report([row], given.json)
    good = row["not in the journal"] == row["defects lost"] == row["too late"] == 0
    print("nothing lost, nothing late" if good else "SOMETHING IS LOST OR LATE")
    return 0 if good else 1


def reckon(service: StandInLine, listener: Listener) -> dict[str, Any]:
    """What the subscriber has against what the journal has."""
    status: Any = listener.status()
    kept = service.journal("SELECT event_id, decision FROM verdict")
    defects = Counter(each.body["event_seq"] for each in listener.of("/defect"))
    rejected = sum(decision == "reject" for _, decision in kept)
    received = {each.body["event_id"] for each in listener.of("/verdict")}
    return {
        "captured": status["captured"],
        "not in the journal": status["captured"] - len({event_id for event_id, _ in kept}),
        "verdicts received": len(received),
        "unpublished": status["unpublished"],
        "neither": status["captured"] - len(received) - status["unpublished"],
        "defects": len(defects),
        "defects lost": max(rejected, max(defects, default=0)) - len(defects),
        "twice": sum(defects.values()) - len(defects),
        "too late": sum(
            each.at > datetime.fromisoformat(each.body["valid_until"]).timestamp() for each in listener.of("/verdict")
        ),
    }


def _memory_mb(service: StandInLine) -> float:
    assert service.process
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


if __name__ == "__main__":
    sys.exit(main())
