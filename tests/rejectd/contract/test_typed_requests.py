"""rejectd.contract.typed_requests: KEY=VALUE as people type it, read by the type that the request declares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rejectd.contract import requests, typed_requests
from rejectd.contract.requests import RequestError


@pytest.mark.parametrize(
    ("command", "word", "value"),
    [
        ("replay", "since=2026-11-25T06:00:00Z", "2026-11-25T06:00:00Z"),
        ("replay", "since=2026-11-25", "2026-11-25"),
        ("replay", "since=06:00", "06:00"),
        ("replay", "from_seq=12", 12),
        ("product", "product=12", "12"),
        ("product", "product=yes", "yes"),
        ("product", "product=1e3", "1e3"),
        ("product", 'product="cell"', "cell"),
        ("product", "bundle=2026-11-25", "2026-11-25"),
        ("product", "bundle=null", None),
        ("product", "bundle=", None),
        ("product", "cameras=[left, right]", ["left", "right"]),
        ("product", "cameras=[1, 2026-11-25]", ["1", "2026-11-25"]),
        ("threshold", "threshold=0.85", 0.85),
        ("threshold", "threshold=1e-3", 0.001),
        ("threshold", "threshold=null", None),
        ("pause", "action=stop", "stop"),
        ("pause", "wrong=1", "1"),
        ("snapshot", "camera=a=b", "a=b"),
    ],
)
def test_a_value_is_what_was_typed(command: str, word: str, value: Any) -> None:
    request = typed_requests.request(command, [word])
    assert request == {word.partition("=")[0]: value}
    assert type(next(iter(request.values()))) is type(value)
    json.dumps(request, allow_nan=False)


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        ("threshold", "threshold=.nan", "is not a number"),
        ("threshold", "threshold=nan", "is not a finite number"),
        ("threshold", "threshold=-inf", "is not a finite number"),
        ("threshold", "threshold=1e999", "is not a finite number"),
        ("threshold", "threshold=.inf", "is not a number"),
        ("threshold", "threshold=[1]", "is not a number"),
        ("replay", "from_seq=" + "9" * 5000, "is not a number"),
        ("replay", "from_seq=1.5", "is not a number"),
        ("replay", "since={a: b}", "no text"),
        ("product", "cameras=[[a]]", "no text"),
        ("product", "cameras=" + "[" * 5000, "cannot be read"),
        ("product", "product='", "cannot be read"),
        ("product", "product=*a", "cannot be read"),
        ("product", "product=\x07", "cannot be read"),
        ("product", "cell", "is not KEY=VALUE"),
        ("open", "door=1", "there is no command 'open'"),
    ],
)
def test_what_cannot_be_sent_is_told(command: str, word: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        typed_requests.request(command, [word])


@pytest.mark.parametrize(
    ("command", "typed", "needed"),
    [
        ("snapshot", [], "snapshot needs camera=NAME"),
        ("product", ["cameras"], "product needs product=NAME"),
        ("threshold", ["product"], "threshold needs product=NAME threshold=NUMBER"),
    ],
)
def test_a_command_says_what_it_needs(command: str, typed: list[str], needed: str) -> None:
    with pytest.raises(RequestError, match=f"^{needed}$"):
        typed_requests.check_complete(command, typed)


@pytest.mark.parametrize(("command", "typed"), [("snapshot", ["camera"]), ("golden", []), ("pause", ["wrong"])])
def test_what_a_command_does_not_need_may_be_absent(command: str, typed: list[str]) -> None:
    typed_requests.check_complete(command, typed)


def test_every_declared_value_arrives_as_the_line_wants_it() -> None:
    asked = typed_requests.request("replay", ["from_seq=1", "until=2026-11-25T06:00:00+01:00"])
    assert requests.parse("replay", json.dumps(asked).encode()) == requests.ReplayRequest(
        from_seq=1, until="2026-11-25T06:00:00+01:00"
    )
