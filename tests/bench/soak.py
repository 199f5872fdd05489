"""Half an hour at 90 % of the device's capacity: memory, files and threads stay flat, the account balances."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ground import ground, load_average, options, report
from harness import Broker, Listener
from load import LoadedLine, kinds
from peers import wait_for
from stand_in_line import Device, StandInLine, pictures

DEVICE = Device(base_ms=80, per_frame_ms=15)  # 40 frames in a second
LOAD = 0.9
SAMPLE_S = 10.0
FLAT = {"memory MB": 20.0, "files": 2.0, "threads": 2.0}  # growth in an hour that still counts as flat


def main() -> int:
    given = options(__doc__, minutes=30.0)
    with ground() as (directory, bundle, cells), ExitStack() as stack:
        shown = kinds(pictures(cells[:1], directory)[0], pictures(cells[1:2], directory, bad=True)[0])
        broker = Broker(directory / "broker", safe=False)
        stack.callback(broker.stop)
        listener = Listener(broker.port)
        stack.callback(listener.close)
        service = StandInLine(directory, bundle, broker.port, DEVICE)
        stack.callback(service.close)
        service.settings["evidence"] = {"quota_mb": 5}  # is full soon
        line = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=2000)
        line.start()
        feeder = line.feed(shown, LOAD * DEVICE.capacity_hz)
        stack.callback(feeder.stop)
        samples = []
        end = time.monotonic() + given.minutes * 60
        while time.monotonic() < end:
            time.sleep(SAMPLE_S)
            samples.append(sample(service, listener))
        feeder.stop()
        time.sleep(2.0)  # for the last verdicts
        service.stop()
        wait_for(lambda: listener.status().get("state") == "offline", "the line says goodbye")
        row = {"minutes": given.minutes, **reckon(service, listener), **samples[-1], "load": load_average()}
    steady = samples[len(samples) // 3 :]
    slopes = {name: slope(steady, name) for name in (*FLAT, "journal MB")}
    report([row | {f"{name} an hour": growth for name, growth in slopes.items()}], given.json)
    unbalanced = sum(each["balanced"] is False for each in samples) + (row["captured"] != row["kept and told"])
    crooked = [name for name, most in FLAT.items() if slopes[name] > most]
    print(f"{unbalanced} accounts that do not balance; {'not flat: ' if crooked else 'all flat'}{', '.join(crooked)}")
    return 1 if unbalanced or crooked else 0


def sample(service: StandInLine, listener: Listener) -> dict[str, Any]:
    """How much the process holds now, and whether its account balances."""
    assert service.process
    proc = Path(f"/proc/{service.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    state = service.directory / "state"
    return {
        "at s": round(time.monotonic()),
        "memory MB": int(status["RssAnon"].split()[0]) / 1024,
        "files": len(list((proc / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "journal MB": sum(file.stat().st_size for file in state.glob("journal.sqlite*")) / 1e6,
        "balanced": balances(listener.status()),
    }


def balances(status: Mapping[str, Any]) -> bool:
    return status["captured"] == sum(status[name] for name in ("pass", "reject", "unjudged", "in_flight"))


def reckon(service: StandInLine, listener: Listener) -> dict[str, Any]:
    """The account of the whole time; `kept and told` is what the journal has and a subscriber received."""
    status = listener.status()
    received = {each.body["event_id"] for each in listener.of("/verdict")}
    kept = {event_id for (event_id,) in service.journal("SELECT event_id FROM verdict")}
    late = service.journal("SELECT count(*) FROM verdict WHERE acknowledged_ms > deadline_ms")[0][0]
    return {
        "captured": status["captured"],
        "kept and told": len(received & kept),
        "unjudged": status["unjudged"],
        "unpublished": status["unpublished"],
        "late": late,
    }


def slope(samples: list[dict[str, Any]], name: str) -> float:
    """By how much it grows in an hour, by least squares."""
    if len(samples) < 2:
        return 0.0
    at, values = ([each[key] for each in samples] for key in ("at s", name))
    return float(np.polyfit(at, values, 1)[0] * 3600)


if __name__ == "__main__":
    sys.exit(main())
