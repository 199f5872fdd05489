"""Two hundred kills -9 of service and broker: what an independent subscriber and the journal say afterwards."""

from __future__ import annotations

import sys
import time
from collections import Counter

from ground import ground, options, report
from harness import Chaos, Plan
from reckoning import problems
from stand_in_line import pictures


def main() -> int:
    given = options(__doc__, service_kills=100, broker_kills=100, seed=11)
    started = time.monotonic()
    with ground() as (directory, bundle, cells):
        (good,), (bad,) = pictures(cells[:1], directory), pictures(cells[1:2], directory, bad=True)
        plan = Plan(seed=given.seed, service_kills=given.service_kills, broker_kills=given.broker_kills)
        chaos = Chaos(directory / "line", bundle, good, bad, plan)
        try:
            run = chaos.run()
        finally:
            chaos.close()
    found = problems(run)
    ends = Counter(entry.cause or entry.decision for entry in run.journal)
    row = {**chaos.killed, "frames": len(run.journal), "verdicts received": len(run.verdicts)}
    row |= {"defects received": len(run.defects), "replays": chaos.listener.replays, "problems": len(found)}
    report([{**row, "minutes": (time.monotonic() - started) / 60}], given.json)
    print("ends in the journal:", dict(ends))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
