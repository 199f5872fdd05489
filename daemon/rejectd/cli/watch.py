"""Shows verdicts live, as an independent subscriber sees them."""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TextIO

from rejectd.contract.messages import Decision
from rejectd.contract.payloads import TOPIC_ROOT
from rejectd.contract.settings import Settings
from rejectd.mqtt import listen

_SILENCE_S = 4.0  # a line that runs says something each second, and at once what is retained
_REMEMBERED = 100_000  # verdicts of which duplicates are known and latencies kept
_COLOURS = {Decision.PASS: "\033[32m", Decision.REJECT: "\033[31m", Decision.UNJUDGED: "\033[33m"}


class Tally:
    """Counts what a subscriber received, each event once."""

    def __init__(self) -> None:
        self.decisions: Counter[str] = Counter()
        self.latencies_s: deque[float] = deque(maxlen=_REMEMBERED)  # exposure to subscriber, on this machine's clock
        self.late = 0
        self.line_status: dict[str, Any] = {}
        self._seen: dict[str, None] = {}

    def verdict(self, payload: dict[str, Any], now: float) -> bool:
        """Count a verdict; False if it was received before."""
        if payload["event_id"] in self._seen:
            return False
        self._seen[payload["event_id"]] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self.decisions[payload["decision"]] += 1
        self.latencies_s.append(now - _unix(payload["captured_at"]))
        self.late += now > _unix(payload["valid_until"])
        return True


def watch(
    settings: Settings, *, out: TextIO, until: Callable[[], bool], client_id: str = "", silence_s: float = math.inf
) -> Tally:
    """Subscribe, print a line for each verdict and change of state, and count, until `until()` is true.

    Where nothing comes for `silence_s`, what may be wrong is said.

    Raises:
        NotAllowedError: if the broker refuses the subscription.
        LinkError: if the broker cannot be reached or is gone.
    """
    show = _Screen(out)
    root = f"{TOPIC_ROOT}/{settings.line}"
    topics = [f"{root}/+/verdict/+", f"{root}/status", f"{root}/+/status"]
    began, warned = time.monotonic(), False

    def ended() -> bool:
        nonlocal warned
        if not (show.heard or warned) and time.monotonic() > began + silence_s:
            warned = True
            print(_silence(settings, silence_s), file=out, flush=True)
        return until()

    listen(settings.mqtt, topics, show, client_id=client_id or f"rejectd-watch-{secrets.token_hex(4)}", until=ended)
    return show.tally


class _Screen:
    """Prints what is received."""

    def __init__(self, out: TextIO) -> None:
        self.tally = Tally()
        self.heard = False
        self._out = out
        self._colour = out.isatty()
        self._states: dict[str, str] = {}

    def __call__(self, _topic: str, body: bytes) -> None:
        self.heard = True
        try:
            payload = json.loads(body)
        except ValueError:
            return  # a retained status that somebody cleared, or not ours
        schema = payload.get("schema") if isinstance(payload, dict) else None
        if schema == "rejectd.verdict.v1":
            if self.tally.verdict(payload, time.time()):
                print(verdict_line(payload, colour=self._colour), file=self._out, flush=True)
        elif schema == "rejectd.line.v1":
            self.tally.line_status = payload
            self._state(f"line {payload['line']}", payload)
        elif schema == "rejectd.camera.v1":
            self._state(f"camera {payload['camera']}", payload)

    def _state(self, who: str, payload: Mapping[str, Any]) -> None:
        if self._states.get(who) != payload["state"]:
            self._states[who] = payload["state"]
            reason = f": {payload['reason']}" if payload.get("reason") else ""
            print(f"{who} is {payload['state']}{reason}", file=self._out, flush=True)


def _silence(settings: Settings, seconds: float) -> str:
    """What to say where nothing comes: brokers such as mosquitto accept each subscription, and then send nothing."""
    user = f"user {settings.mqtt.username}" if settings.mqtt.username else "a client without user"
    return (
        f"nothing heard of line {settings.line} for {seconds:g} s: does its service run, and does the broker's "
        f"access list let {user} read {TOPIC_ROOT}/{settings.line}/#? Another user: --username and --password-file"
    )


def main(settings: Settings) -> None:
    """Watch until Ctrl-C."""
    try:
        watch(settings, out=sys.stdout, until=lambda: False, silence_s=_SILENCE_S)
    except KeyboardInterrupt:
        return


def verdict_line(payload: dict[str, Any], *, colour: bool) -> str:
    """One verdict on one line, for people."""
    decision = payload["decision"]
    paint, plain = (_COLOURS[Decision(decision)], "\033[0m") if colour else ("", "")
    at = datetime.fromisoformat(payload["captured_at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    reason = (
        f"{payload['score'] / payload['threshold']:6.2f} x threshold"
        if payload["score"] is not None and payload["threshold"]
        else payload["cause"] or ""
    )
    where = f"{payload['camera']} #{payload['seq']}"
    source = ascii(payload["source"] or payload["detail"] or "")[1:-1]
    return f"{at}  {where:<12} {paint}{decision:<8}{plain}  {reason:<18}  {payload['latency_ms']:7.1f} ms  {source}"


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
