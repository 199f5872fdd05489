"""From half to four times what a device can judge: how much of it is judged, and whether all is answered in time."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ground import RealLine, ground, load_average, options, quantile, report
from harness import Broker, Listener
from load import LoadedLine, kinds
from stand_in_line import Device, StandInLine, pictures

_ALONE = """
import sys
from pathlib import Path
from rejectd.inspector import Inspector
from rejectd.contract.settings import Engine, Product
inspector = Inspector(Engine(), {"cell": Product(bundle=Path(sys.argv[1]))})
print(8e9 / min(inspector.warm([8])[8] for _ in range(30)))
"""


def capacity_hz(bundle: Path) -> float:
    """What the real engine judges in full batches when nobody else is there: the best of thirty."""
    found = subprocess.run([sys.executable, "-c", _ALONE, bundle], capture_output=True, text=True, check=True)
    return float(found.stdout)


def main() -> int:
    speed = {"base_ms": 160.0, "per_frame_ms": 30.0}
    given = options(
        __doc__, loads="50 90 110 200 400", seconds=20.0, deadline_ms=2000, engine="stand-in", **speed
    )  # loads in percent of the capacity
    device = Device(base_ms=given.base_ms, per_frame_ms=given.per_frame_ms)
    rows = []
    with ground() as (directory, bundle, cells), ExitStack() as stack:
        real = given.engine == "real"
        most_hz = capacity_hz(bundle) if real else device.capacity_hz
        print(f"{given.engine} engine, {most_hz:.1f} frames in a second, deadline {given.deadline_ms} ms")
        shown = kinds(pictures(cells[:1], directory)[0], pictures(cells[1:2], directory, bad=True)[0])
        broker = Broker(directory / "broker", safe=False)
        stack.callback(broker.stop)
        listener = Listener(broker.port)
        stack.callback(listener.close)
        service = (RealLine if real else StandInLine)(directory, bundle, broker.port, device)
        stack.callback(service.close)
        line = LoadedLine(service, listener, ["a", "b", "c", "d"], deadline_ms=given.deadline_ms)
        line.start()
        for load in map(int, given.loads.split()):
            phase = line.phase([line.feed(shown, load / 100 * most_hz)], given.seconds)
            ends = phase.ends
            rows.append(
                {
                    "load %": load,
                    "shown Hz": len(phase.shown) / given.seconds,
                    "judged Hz": phase.judged_hz,
                    "of capacity": phase.judged_hz / most_hz if real else phase.judged_share(service),
                    "judged": ends["pass"] + ends["reject"],
                    "overload": ends["overload"],
                    "late": ends["late"],
                    "unanswered": len(phase.unanswered),
                    "after the deadline": sum(late > 0 for late in phase.late_s),
                    "p50 ms": quantile(phase.latencies_s(), 0.5) * 1000,
                    "p99 ms": quantile(phase.latencies_s(), 0.99) * 1000,
                    "machine's load": load_average(),
                }
            )
        service.stop()
    report(rows, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
