"""Two hundred kills -9 of service and broker: what an independent subscriber and the journal say afterwards."""

from __future__ import annotations

import sys
import time
from collections import Counter

from ground import ground, load_average, options, report
from harness import Chaos, Plan
from reckoning import after_its_deadline, problems
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
    events = {each.body["event_id"] for each in run.defects}
    rows = [
        *({"what": f"kills of the {what}", "count": count} for what, count in chaos.killed.items()),
        {"what": "frames in the journal", "count": len(run.journal)},
        *(
            {"what": f"... that ended as {end}", "count": count}
            for end, count in Counter(entry.cause or entry.decision for entry in run.journal).most_common()
        ),
        {"what": "verdicts received", "count": len(run.verdicts)},
        {"what": "... that a restarted broker kept beyond their deadline", "count": after_its_deadline(run)},
        {"what": "defect events received", "count": len(events)},
        {"what": "... that came more than once", "count": len(run.defects) - len(events)},
        {"what": "replays asked for", "count": chaos.listener.replays},
        {"what": "minutes", "count": (time.monotonic() - started) / 60},
        {"what": "load of the machine", "count": load_average()},
        {"what": "problems", "count": len(found)},
    ]
    report(rows, given.json)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
