"""From half to four times what the device can judge: how much of it is judged, and whether all is answered in time."""

from __future__ import annotations

import sys

from ground import ground, options, quantile, report
from harness import Broker, Listener
from load import LoadedLine, kinds
from stand_in_line import Device, StandInLine, pictures


def main() -> int:
    given = options(__doc__, base_ms=160.0, per_frame_ms=30.0, deadline_ms=2000, seconds=20.0)
    device = Device(base_ms=given.base_ms, per_frame_ms=given.per_frame_ms)
    rows = []
    with ground() as (directory, bundle, cells):
        shown = kinds(pictures(cells[:1], directory)[0], pictures(cells[1:2], directory, bad=True)[0])
        broker = Broker(directory / "broker", safe=False)
        listener = Listener(broker.port)
        service = StandInLine(directory, bundle, broker.port, device)
        line = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=given.deadline_ms)
        line.start()
        for load in (50, 90, 110, 200, 400):
            phase = line.phase([line.feed(shown, load / 100 * device.capacity_hz)], given.seconds)
            ends = phase.ends
            rows.append(
                {
                    "load %": load,
                    "shown": len(phase.shown),
                    "judged": ends["pass"] + ends["reject"],
                    "overload": ends["overload"],
                    "late": ends["late"],
                    "judged of capacity": phase.judged.of_capacity,
                    "after the deadline": sum(late > 0 for late in phase.late_s),
                    "p99 ms": quantile(phase.latencies_s(), 0.99) * 1000,
                }
            )
        service.stop()
        service.close()
        listener.close()
        broker.stop()
    report(rows, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
