"""What the service itself costs: from the exposure to the broker's acknowledgement, less the time on the device."""

from __future__ import annotations

import sys
import time

from ground import ground, options, quantile, report
from line import Line
from peers import Mosquitto, wait_for
from stand_in_line import Device, StandInLine, pictures

QUERY = "SELECT acknowledged_ms - engine_ms, acknowledged_ms FROM verdict WHERE engine_ms IS NOT NULL"


def main() -> int:
    given = options(__doc__, seconds=30.0)
    rows = []
    with ground() as (directory, bundle, cells):
        small = pictures(cells[:20], directory / "small")
        for device in ("real, 64 px", "stand-in, 5 ms"):
            for cameras, rate_hz in ((1, 20), (4, 10)):
                place = directory / f"{device[:4]}{cameras}"
                (place / "broker").mkdir(parents=True)
                broker = Mosquitto(place / "broker")
                stand_in = Device(base_ms=4, per_frame_ms=1)
                line = (
                    Line(place, bundle, broker.port)
                    if device.startswith("real")
                    else StandInLine(place, bundle, broker.port, stand_in)
                )
                line.settings["batch"] = {"max_wait_ms": 0}
                for number in range(cameras):
                    line.folder(f"c{number}", small, rate_hz=rate_hz, loop=True, deadline_ms=5000)
                line.start()
                time.sleep(given.seconds)
                line.stop()
                found = [(over, total) for over, total in line.journal(QUERY) if over is not None]
                broker.stop()
                wait_for(line.ended, "the service has ended")
                overhead, total = ([each[column] for each in found] for column in (0, 1))
                rows.append(
                    {
                        "device": device,
                        "cameras": cameras,
                        "Hz each": rate_hz,
                        "frames": len(found),
                        "overhead p50 ms": quantile(overhead, 0.5),
                        "overhead p99 ms": quantile(overhead, 0.99),
                        "total p50 ms": quantile(total, 0.5),
                        "total p99 ms": quantile(total, 0.99),
                    }
                )
    report(rows, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
