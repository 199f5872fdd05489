"""The command `rejectd`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rejectd import settings_file
from rejectd.declaration import SettingsError
from rejectd.messages import RejectdError
from rejectd.systemd import for_stderr


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 is success, 1 a failed check, 2 a mistake of the user's, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.command(options))
    except RejectdError as error:
        separator = "\n" if isinstance(error, SettingsError) else " "
        print(for_stderr(f"rejectd:{separator}{error}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rejectd", description="Watches a production line and tells it, in time, which parts to reject."
    )
    parser.add_argument("--version", action="version", version=f"rejectd {version('rejectd')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the service of one line")
    run.add_argument("config", type=Path, metavar="CONFIG")
    run.add_argument("--until-ended", action="store_true", help="stop when every camera's replay has ended")
    run.set_defaults(command=_run)
    check = commands.add_parser("check", help="check settings, bundles, cameras and broker")
    check.add_argument("config", type=Path, metavar="CONFIG")
    check.set_defaults(command=_check)
    watch = commands.add_parser("watch", help="show verdicts live")
    watch.add_argument("config", type=Path, metavar="CONFIG")
    watch.set_defaults(command=_watch)
    reference = commands.add_parser("reference", help="print the reference of settings, topics and metrics")
    reference.add_argument("--write", type=Path, metavar="DIR", help="write line.yaml and reference.md there")
    reference.add_argument("--check", type=Path, metavar="DIR", help="fail if the files there are out of date")
    reference.set_defaults(command=_reference)
    demo = commands.add_parser("demo", help="train on real photographs and run a line with two cameras")
    demo.add_argument("--directory", type=Path, default=Path("demo-run"), help="where everything goes (%(default)s)")
    demo.add_argument("--steps", type=int, help="training steps, for a quick look")
    demo.set_defaults(command=_demo)
    return parser


def _run(options: argparse.Namespace) -> int:
    settings_file.load(options.config)  # mistakes are said before torch is imported
    from rejectd.service import Service

    Service(options.config, until_ended=options.until_ended).run()
    return 0


def _check(options: argparse.Namespace) -> int:
    from rejectd.check import check

    failed = False
    for works, what in check(options.config):
        failed = failed or not works
        print(f"{'ok  ' if works else 'FAIL'}  {what}".replace("\n", "\n      "), flush=True)
    return 1 if failed else 0


def _watch(options: argparse.Namespace) -> int:
    from rejectd import watch

    watch.main(settings_file.load(options.config))
    return 0


def _reference(options: argparse.Namespace) -> int:
    from rejectd import reference

    if options.write:
        reference.write(options.write)
    elif options.check:
        for name in (stale := reference.stale(options.check)):
            hint = f"run `rejectd reference --write {options.check}`"
            print(f"{options.check / name} is out of date; {hint}", file=sys.stderr)
        return 1 if stale else 0
    else:
        print(reference.reference(), end="")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from rejectd import demo

    demo.run(options.directory, steps=options.steps)
    return 0
