"""The command `rejectd`.

What a command needs is imported where it runs: `rejectd run` catches signals from its first moment on.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rejectd.process.signals import Signals, StoppedError
from revdist.files import console

if TYPE_CHECKING:
    from rejectd.contract.settings import Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 is success, 1 a failed check, 2 a mistake of the user's, 130 Ctrl-C.

    141 is a reader of our output that left, such as `head`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    with ExitStack() as stack:
        signals = stack.enter_context(Signals()) if words[:1] == ["run"] else None
        console.prepare()
        sys.exit(console.run("rejectd", lambda: _told(words, signals)))


def _told(arguments: Sequence[str], signals: Signals | None) -> int:
    """Run the command; what a person can mend is told on stderr."""
    try:
        from rejectd.contract.errors import RejectdError
        from rejectd.process.systemd import for_stderr

        options = _parser(arguments).parse_args(arguments)
        options.signals = signals
        try:
            status: int = options.command(options)
        except RejectdError as error:
            from rejectd.contract.declaration import SettingsError

            separator = "\n" if isinstance(error, SettingsError) else " "
            print(for_stderr(f"rejectd:{separator}{error}"), file=sys.stderr)
            return console.FAILED
    except StoppedError as stop:
        logging.getLogger(__name__).info("stopped during the start by %s", stop)
        return 0
    return status


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rejectd", description="Watches a production line and tells it, in time, which parts to reject."
    )
    parser.add_argument("--version", action=console.ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the service of one line")
    run.add_argument("config", type=Path, metavar="CONFIG")
    run.add_argument("--until-ended", action="store_true", help="stop when every camera's replay has ended")
    run.set_defaults(command=_run)
    check = commands.add_parser("check", help="check settings, bundles, cameras and broker")
    check.add_argument("config", type=Path, metavar="CONFIG")
    check.set_defaults(command=_check)
    cameras = commands.add_parser("cameras", help="list the cameras that this machine reaches, or what one can do")
    cameras.add_argument("name", nargs="?", default="", metavar="NAME", help="as listed: show what can be set on it")
    cameras.add_argument("--json", action="store_true", help="for programs")
    cameras.set_defaults(command=_cameras)
    grab = commands.add_parser("grab", help="take pictures for training, exactly as the service gets them")
    grab.add_argument("config", type=Path, metavar="CONFIG")
    grab.add_argument("camera", metavar="CAMERA", help="its name in the settings")
    grab.add_argument("--count", type=_count, required=True, metavar="N", help="pictures to keep")
    grab.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for them, as PNG")
    grab.add_argument("--wait", type=_seconds, default=60.0, metavar="S", help="longest for a new one (%(default)s s)")
    grab.set_defaults(command=_grab)
    watch = commands.add_parser("watch", help="show verdicts live")
    watch.add_argument("config", type=Path, metavar="CONFIG")
    _add_user(watch)
    watch.set_defaults(command=_watch)
    page = commands.add_parser("page", help="serve the operator's page of one line, beside its service")
    page.add_argument("config", type=Path, metavar="CONFIG")
    page.set_defaults(command=_page)
    account = commands.add_parser(
        "account",
        help="say what became of every frame of a shift; the exit status is 1 if anybody should look at something",
    )
    account.add_argument("config", type=Path, metavar="CONFIG")
    account.add_argument("--since", default="24h", help="2026-11-25T06:00, 06:00, or a time ago: 8h (%(default)s)")
    account.add_argument("--until", default="0m", help="likewise; now if not given")
    account.add_argument(
        "--travel",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="from a deadline until the PLC has counted (%(default)s s)",
    )
    account.add_argument("--json", action="store_true", help="for programs")
    account.set_defaults(command=_account)
    command = commands.add_parser("command", help="send a command to a running line")
    command.add_argument("config", type=Path, metavar="CONFIG")
    command.add_argument("name", metavar="NAME", help=_requests() if "command" in arguments else "")
    command.add_argument("request", nargs="*", metavar="KEY=VALUE", help="such as product=cell cameras=[left,right]")
    _add_user(command)
    command.set_defaults(command=_command)
    replay = commands.add_parser("replay", help="ask a running line to publish defect events once more")
    replay.add_argument("config", type=Path, metavar="CONFIG")
    replay.add_argument("--from", dest="from_seq", type=int, metavar="N", help="first event_seq")
    replay.add_argument("--to", dest="to_seq", type=int, metavar="N", help="last event_seq")
    replay.add_argument("--since", help="2026-11-25T06:00, 06:00, or a time ago: 8h")
    replay.add_argument("--until", help="likewise")
    _add_user(replay)
    replay.set_defaults(command=_replay)
    reference = commands.add_parser("reference", help="print the reference of settings, topics and metrics")
    reference.add_argument("--write", type=Path, metavar="DIR", help="write line.yaml, reference.md and mqtt/ there")
    reference.add_argument("--check", type=Path, metavar="DIR", help="fail if the files there are out of date")
    reference.set_defaults(command=_reference)
    demo = commands.add_parser("demo", help="train on real photographs and run a line with two cameras")
    demo.add_argument("--directory", type=Path, default=Path("demo-run"), help="where everything goes (%(default)s)")
    demo.add_argument("--steps", type=int, help="training steps, for a quick look")
    demo.set_defaults(command=_demo)
    return parser


def _requests() -> str:
    """The names of all requests. Their models take longest to import, and the help of other commands needs none."""
    from rejectd.contract.requests import REQUESTS

    return ", ".join(REQUESTS)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or not 0 <= seconds < 1e8:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds, write 10")
    return seconds


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pictures, write 100")
    return int(text)


def _add_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--username", metavar="USER", help="at the broker; mqtt.operator_username if not given")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="holds the password of that user")


def _as_operator(options: argparse.Namespace) -> Settings:
    from rejectd.contract import settings_file

    return settings_file.load_for_operator(options.config, options.username, options.password_file)


def _run(options: argparse.Namespace) -> int:
    from rejectd.contract import settings_file

    settings_file.load(options.config)  # mistakes are said before torch is imported
    from rejectd.service import Service

    Service(options.config, options.signals, until_ended=options.until_ended).run()
    return 0


def _check(options: argparse.Namespace) -> int:
    from rejectd.cli.check import check

    failed = False
    for works, finding in check(options.config):
        failed = failed or not works
        print(f"{'ok  ' if works else 'FAIL'}  {finding}".replace("\n", "\n      "), flush=True)
    return 1 if failed else 0


def _cameras(options: argparse.Namespace) -> int:
    from rejectd.cli import cameras

    print(cameras.to_json(options.name) if options.json else "\n".join(cameras.lines(options.name)))
    return 0


def _grab(options: argparse.Namespace) -> int:
    from rejectd.cli import grab
    from rejectd.contract import regions, settings_file

    settings = settings_file.load_for_cameras(options.config)
    camera = grab.chosen(regions.resolved(settings.cameras), options.camera)
    from rejectd.inspector import examiner  # after mistakes: it imports torch

    examine = examiner(settings.products[camera.product].bundle) if camera.image_health else lambda _: ""
    grabbed = grab.grab(options.camera, camera, options.count, options.output, examine=examine, wait_s=options.wait)
    print(grabbed.sentence(options.output))
    return 0 if grabbed.kept == options.count else 1


def _watch(options: argparse.Namespace) -> int:
    from rejectd.cli import watch

    watch.main(_as_operator(options))
    return 0


def _page(options: argparse.Namespace) -> int:
    from rejectd.contract.messages import RejectdError

    try:
        from rejectd.page import server
    except ModuleNotFoundError as error:
        hint = "pip install 'rejectd[page]'"
        raise RejectdError(f"the page needs a package that is not installed: {error.name}", hint=hint) from error
    server.run(options.config)
    return 0


def _account(options: argparse.Namespace) -> int:
    from rejectd.cli import account
    from rejectd.contract import settings_file

    now = datetime.now().astimezone()
    since, until = account.instant(options.since, now), account.instant(options.until, now)
    settings = settings_file.load(options.config)
    journal = settings_file.state_directory(settings, options.config) / "journal.sqlite"
    cameras = account.account(journal, since, until, travel_ns=int(options.travel * 1e9))
    views = {camera for station in settings.stations.values() for camera in station.cameras}
    aside = list(account.set_aside(journal, since))
    if options.json:
        print(json.dumps(account.to_json(cameras, since, until, views=views, aside=aside), indent=1))
    else:
        print("\n".join([*account.table(cameras, views=views), *aside]))
    return 0 if account.good(cameras) and not aside else 1


def _command(options: argparse.Namespace) -> int:
    from rejectd.contract import typed_requests

    request = typed_requests.request(options.name, options.request)
    typed_requests.check_complete(options.name, request)
    return _ask(_as_operator(options), options.name, request)


def _replay(options: argparse.Namespace) -> int:
    from rejectd.cli import account
    from rejectd.contract.messages import iso

    now = datetime.now().astimezone()
    request: dict[str, object] = {"from_seq": options.from_seq, "to_seq": options.to_seq}
    for name in ("since", "until"):
        text = getattr(options, name)
        request[name] = iso(account.instant(text, now)) if text else None
    bounds = {name: value for name, value in request.items() if value is not None}
    return _ask(_as_operator(options), "replay", bounds)


def _ask(settings: Settings, name: str, request: dict[str, object]) -> int:
    from rejectd.cli.asking import ask
    from rejectd.process.systemd import for_stderr

    answer = ask(settings, name, request, say=lambda text: print(for_stderr(f"rejectd: {text}"), file=sys.stderr))
    if not answer["ok"]:
        print(for_stderr(f"rejectd: {name}: {answer['error']}"), file=sys.stderr)
    if answer["result"] is not None:
        print(json.dumps(answer["result"], indent=1))
    return 0 if answer["ok"] else 1


def _reference(options: argparse.Namespace) -> int:
    from rejectd.cli import reference

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
    from rejectd.cli import demo

    demo.run(options.directory, steps=options.steps)
    return 0


if __name__ == "__main__":
    main()
