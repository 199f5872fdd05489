"""Writes the dashboards as Grafana reads them, or checks that they are up to date (`--check`).

Needs the test extra of the project: `python config/grafana/build.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dashboards import ALL
from grafana_foundation_sdk.cog.encoder import JSONEncoder

DIRECTORY = Path(__file__).with_name("dashboards")


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a dashboard is out of date")
    check = parser.parse_args().check
    stale = []
    for name, dashboard in ALL.items():
        path = DIRECTORY / f"{name}.json"
        text = json.dumps(dashboard().build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    if stale:
        print(f"{', '.join(stale)}: out of date; run: python config/grafana/build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
