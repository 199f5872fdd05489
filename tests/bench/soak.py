"""Half an hour at 90 % of the device's capacity: memory and files stay flat, the account balances."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ground import ground, options, report
from harness import Broker, Listener
from load import LoadedLine, kinds
from stand_in_line import Device, StandInLine, pictures

DEVICE = Device(base_ms=80, per_frame_ms=15)  # 40 frames in a second
MEMORY_MB_PER_HOUR = 20.0  # what still counts as flat, over the last two thirds
FILES_PER_HOUR = 2.0


def main() -> int:
    given = options(__doc__, minutes=30.0)
    with ground() as (directory, bundle, cells):
        shown = kinds(pictures(cells[:1], directory)[0], pictures(cells[1:2], directory, bad=True)[0])
        broker = Broker(directory / "broker", safe=False)
        listener = Listener(broker.port)
        service = StandInLine(directory, bundle, broker.port, DEVICE)
        service.settings["evidence"] = {"quota_mb": 5}
        line = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=2000)
        line.start()
        feeder = line.feed(shown, 0.9 * DEVICE.capacity_hz)
        samples = []
        end = time.monotonic() + given.minutes * 60
        while time.monotonic() < end:
            time.sleep(10)
            samples.append(sample(service))
        feeder.stop()
        service.stop()
        time.sleep(2)
        status = listener.status()
        received = {each.body["event_id"] for each in listener.of("/verdict")}
        journal = service.journal("SELECT decision, cause, count(*) FROM verdict GROUP BY 1, 2")
        late = service.journal("SELECT count(*) FROM verdict WHERE acknowledged_ms > deadline_ms")[0][0]
        listener.close()
        broker.stop()
    steady = samples[len(samples) // 3 :]
    slopes = {name: slope(steady, name) for name in ("memory_mb", "files", "threads")}
    row = {
        "minutes": given.minutes,
        "captured": status["captured"],
        "received": len(received),
        "journal": sum(row[2] for row in journal),
        "late": late,
        "memory MB": steady[-1]["memory_mb"],
        "MB an hour": slopes["memory_mb"],
        "files": steady[-1]["files"],
        "files an hour": slopes["files"],
        "threads": steady[-1]["threads"],
    }
    report([row], given.json)
    print("ends:", journal)
    balanced = status["captured"] == len(received) + int(str(status["unpublished"])) == row["journal"]
    flat = slopes["memory_mb"] < MEMORY_MB_PER_HOUR and slopes["files"] < FILES_PER_HOUR
    print("balanced" if balanced else "NOT BALANCED", "flat" if flat else "NOT FLAT")
    return 0 if balanced and flat else 1


def sample(service: StandInLine) -> dict[str, Any]:
    """How much the process holds now."""
    assert service.process
    proc = Path(f"/proc/{service.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return {
        "at_s": time.monotonic(),
        "memory_mb": (int(status["RssAnon"].split()[0])) / 1024,
        "files": len(list((proc / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def slope(samples: list[dict[str, Any]], name: str) -> float:
    """By how much it grows in an hour, by least squares."""
    if len(samples) < 2:
        return 0.0
    at, values = ([each[key] for each in samples] for key in ("at_s", name))
    return float(np.polyfit(at, values, 1)[0] * 3600)


if __name__ == "__main__":
    sys.exit(main())
