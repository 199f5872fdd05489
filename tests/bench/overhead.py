"""What the service itself costs: from the exposure to the broker's acknowledgement, less the time on the device."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ground import RealLine, ground, load_average, options, quantile, report
from harness import Broker, Listener
from load import LoadedLine
from stand_in_line import Device, StandInLine, pictures

DEVICE = Device(base_ms=4, per_frame_ms=1)
LINES = ((1, 20), (4, 10))  # cameras, Hz each
WARM_UP_S = 2.0
TARGET_MS = 5.0  # of the 99th percentile, on an idle machine
QUERY = """SELECT acknowledged_ms - engine_ms, acknowledged_ms, engine_ms FROM verdict
    WHERE engine_ms IS NOT NULL AND acknowledged_ms IS NOT NULL
    AND captured_unix_ns > (SELECT min(captured_unix_ns) FROM verdict) + {warm_up_ns}"""


def main() -> int:
    given = options(__doc__, seconds=30.0)
    rows = []
    with ground() as (directory, bundle, cells):
        shown = {"good": pictures(cells[:1], directory)[0].read_bytes()}
        for engine, kind in (("real", RealLine), ("stand-in", StandInLine)):
            for cameras, rate_hz in LINES:
                place = directory / f"{engine}{cameras}"
                with ExitStack() as stack:
                    broker = Broker(place / "broker", safe=False)
                    stack.callback(broker.stop)
                    service = kind(place, bundle, broker.port, DEVICE)
                    stack.callback(service.close)
                    found = measure(service, broker.port, shown, cameras, rate_hz, given.seconds)
                overhead_ms, total_ms, engine_ms = ([each[column] for each in found] for column in range(3))
                row = {"engine": engine, "cameras": cameras, "Hz each": rate_hz, "frames": len(found)}
                row |= {"engine p50 ms": quantile(engine_ms, 0.5), "total p99 ms": quantile(total_ms, 0.99)}
                row |= {f"overhead p{part} ms": quantile(overhead_ms, part / 100) for part in (50, 90, 99)}
                rows.append({**row, "in time": quantile(overhead_ms, 0.99) < TARGET_MS, "load": load_average()})
    report(rows, given.json)
    print(f"target on an idle machine: p99 of the overhead under {TARGET_MS:g} ms")
    return 0


def measure(
    service: StandInLine, broker_port: int, shown: Mapping[str, bytes], cameras: int, rate_hz: float, seconds: float
) -> list[tuple[Any, ...]]:
    """Overhead, total and time on the device of each frame, in ms. The cameras expose one after the other."""
    service.settings["batch"] = {"max_wait_ms": 0}
    listener = Listener(broker_port)
    try:
        line = LoadedLine(service, listener, [f"c{number}" for number in range(cameras)], deadline_ms=5000)
        line.start()
        feeder = line.feed(shown, cameras * rate_hz)
        time.sleep(WARM_UP_S + seconds)
        feeder.stop()
        assert service.stop() == 0, service.log.read_text()[-3000:]
    finally:
        listener.close()
    return service.journal(QUERY.format(warm_up_ns=round(WARM_UP_S * 1e9)))


if __name__ == "__main__":
    sys.exit(main())
