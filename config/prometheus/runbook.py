"""Writes runbook.md from what the alerts in rules.yml say, or checks that it is up to date (`--check`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

RULES = Path(__file__).with_name("rules.yml")
PAGE = Path(__file__).with_name("runbook.md")
_SEVERITIES = {
    "critical": "for the shift, at once",
    "warning": "for maintenance, today",
    "info": "for the record",
}


def page(rules: str) -> str:
    """The runbook: a paragraph for each alert."""
    parts = [
        "# Runbook",
        "",
        "What each alert means and what to do first.",
        "Written by `python config/prometheus/runbook.py` from [rules.yml](rules.yml).",
    ]
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                about = rule["annotations"]
                held = f"after {rule['for']}" if "for" in rule else "at once"
                severity = rule["labels"]["severity"]
                parts += ["", f"## {rule['alert']}", f"*{severity}, {_SEVERITIES[severity]}; fires {held}*", ""]
                parts += [f"{about['meaning']}", "", f"**First:** {about['action']}"]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the page is out of date")
    text = page(RULES.read_text(encoding="utf-8"))
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE}: out of date; run: python config/prometheus/runbook.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
