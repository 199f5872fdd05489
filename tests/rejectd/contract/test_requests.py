"""rejectd.contract.requests: what the line may be asked, and what is said of a request that is wrong."""

from __future__ import annotations

import json
from typing import Any

import contract
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rejectd.contract.messages import Policy
from rejectd.contract.requests import (
    LARGEST_BYTES,
    REQUESTS,
    GoldenRequest,
    PauseRequest,
    ProductRequest,
    ReplayRequest,
    RequestError,
    ResumeRequest,
    SnapshotRequest,
    ThresholdRequest,
    parse,
    request_id,
)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def complaint(command: str, raw: bytes) -> str:
    """What the sender of a wrong request reads."""
    with pytest.raises(RequestError) as caught:
        parse(command, raw)
    text = str(caught.value)
    assert text
    return text


def outcome(command: str, raw: bytes) -> object:
    """A request, or what its sender reads."""
    try:
        return parse(command, raw)
    except RequestError as error:
        return str(error)


GOOD = [
    ("product", {"product": "cell"}, ProductRequest(product="cell")),
    (
        "product",
        {"product": "cell", "cameras": ["left", "2"], "bundle": "cell-2026.11", "request_id": "7"},
        ProductRequest(product="cell", cameras=("left", "2"), bundle="cell-2026.11", request_id="7"),
    ),
    (
        "product",
        {"product": "cell", "cameras": None, "bundle": None, "request_id": None},
        ProductRequest(product="cell"),
    ),
    ("threshold", {"product": "cell", "threshold": 0.5}, ThresholdRequest(product="cell", threshold=0.5)),
    ("threshold", {"product": "cell", "threshold": 3}, ThresholdRequest(product="cell", threshold=3.0)),
    ("threshold", {"product": "cell", "threshold": 1e-9}, ThresholdRequest(product="cell", threshold=1e-9)),
    ("threshold", {"product": "cell", "threshold": None}, ThresholdRequest(product="cell", threshold=None)),
    ("pause", {}, PauseRequest()),
    ("pause", {"cameras": ["left"], "action": "pass"}, PauseRequest(cameras=("left",), action=Policy.PASS)),
    ("pause", {"action": "stop"}, PauseRequest(action=Policy.STOP)),
    ("resume", {}, ResumeRequest()),
    ("resume", {"cameras": ["left", "right"]}, ResumeRequest(cameras=("left", "right"))),
    ("golden", {}, GoldenRequest()),
    ("golden", {"product": "cell"}, GoldenRequest(product="cell")),
    ("snapshot", {"camera": "left"}, SnapshotRequest(camera="left")),
    ("replay", {"from_seq": 1, "to_seq": 2**53}, ReplayRequest(from_seq=1, to_seq=2**53)),
    (
        "replay",
        {"since": "2026-11-25T06:00Z", "until": "2026-11-25T07:00:30.5+01:00"},
        ReplayRequest(since="2026-11-25T06:00Z", until="2026-11-25T07:00:30.5+01:00"),
    ),
]


@pytest.mark.parametrize(("command", "fields", "expected"), GOOD, ids=[str(index) for index in range(len(GOOD))])
def test_a_request_becomes_what_its_sender_means(command: str, fields: dict[str, Any], expected: object) -> None:
    assert parse(command, body(**fields)) == expected
    contract.validate(f"rejectd/v1/l/command/{command}", body(**fields))


@pytest.mark.parametrize("command", ["pause", "resume", "golden", "replay"])
@pytest.mark.parametrize("raw", [b"", b"{}", b" {} \r\n", b"\xef\xbb\xbf{}"])
def test_an_empty_body_asks_for_what_needs_no_words(command: str, raw: bytes) -> None:
    assert parse(command, raw) == REQUESTS[command]()  # type: ignore[call-arg]


NAME = "use 1 to 64 letters, digits, - and _"
CAMERAS = "give names of cameras, such as [left, right]"
TIME = "a time with zone such as 2026-11-25T06:00Z"
WRONG = {
    "product missing": ("product", {}, "product: is missing; add `product:`. The product, as the settings name it."),
    "product null": ("product", {"product": None}, "product: 'null' is not allowed; "),
    "product empty": ("product", {"product": ""}, "product: an empty value is not allowed; The product"),
    "product with a slash": ("product", {"product": "a/b"}, f"product: 'a/b' is not allowed; {NAME}"),
    "product a group": ("product", {"product": {}}, "product: a group or list is not allowed; give one value"),
    "bundle elsewhere": (
        "product",
        {"product": "cell", "bundle": "../other"},
        "bundle: '../other' is not allowed; a folder's name without /",
    ),
    "bundle is the folder above": (
        "product",
        {"product": "cell", "bundle": ".."},
        "bundle: '..' is not allowed; a folder's name without /",
    ),
    "cameras one name": ("product", {"product": "c", "cameras": "left"}, f"cameras: 'left' is not allowed; {CAMERAS}"),
    "cameras none": ("pause", {"cameras": []}, f"cameras: a list is not allowed; {CAMERAS}"),
    "cameras nameless": ("pause", {"cameras": ["left", ""]}, f"cameras: a list is not allowed; {CAMERAS}"),
    "cameras nested": ("pause", {"cameras": [["left"]]}, f"cameras: a list is not allowed; {CAMERAS}"),
    "cameras twice": (
        "resume",
        {"cameras": ["left", "left"]},
        "cameras: [left, left] is not allowed; give each name once",
    ),
    "misspelt": ("pause", {"camera": ["left"]}, "camera: unknown setting; did you mean cameras?"),
    "unknown": ("golden", {"level": 1}, "level: unknown setting; known here: request_id, product"),
    "action": ("pause", {"action": "ignore"}, "action: 'ignore' is not allowed; choose reject, pass, stop"),
    "threshold missing": (
        "threshold",
        {"product": "cell"},
        "threshold: is missing; add `threshold:`. The threshold, for the bundle in force",
    ),
    "threshold as text": (
        "threshold",
        {"product": "cell", "threshold": "0.5"},
        "threshold: '0.5' is not allowed; give a number without quotes, 1e-09 to 1000",
    ),
    "threshold 0": (
        "threshold",
        {"product": "cell", "threshold": 0},
        "threshold: 0 is not allowed; give 1e-09 to 1000",
    ),
    "threshold huge": ("threshold", {"product": "cell", "threshold": 1e9}, "is not allowed; give 1e-09 to 1000"),
    "threshold no number": (
        "threshold",
        {"product": "cell", "threshold": float("nan")},
        "threshold: NaN is not allowed",
    ),
    "threshold endless": ("threshold", {"product": "cell", "threshold": float("inf")}, "threshold: Infinity is not"),
    "threshold a truth": ("threshold", {"product": "cell", "threshold": True}, "threshold: 'true' is not allowed"),
    "camera missing": ("snapshot", {}, "camera: is missing; add `camera:`. The camera."),
    "number 0": ("replay", {"from_seq": 0}, "from_seq: 0 is not allowed; give 1 to 9.0072e+15"),
    "number with a fraction": ("replay", {"to_seq": 2.5}, "to_seq: '2.5' is not allowed; give a whole number"),
    "number beyond all": ("replay", {"to_seq": 10**30}, "is not allowed; give 1 to"),
    "time without zone": ("replay", {"since": "2026-11-25T06:00"}, f"'2026-11-25T06:00' is not allowed; {TIME}"),
    "time in words": ("replay", {"until": "yesterday"}, f"until: 'yesterday' is not allowed; {TIME}"),
    "identity too long": ("pause", {"request_id": "x" * 201}, "request_id: '"),
    "identity a number": ("pause", {"request_id": {"a": 1}}, "request_id: a group or list is not allowed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused_with_what_to_do(name: str) -> None:
    command, fields, message = WRONG[name]
    assert message in complaint(command, body(**fields))


def test_all_mistakes_of_a_request_are_said_at_once() -> None:
    lines = complaint("product", body(product="a b", camras=["left"], bundle="/")).splitlines()
    assert [line.partition(":")[0] for line in sorted(lines)] == ["bundle", "camras", "product"]


@pytest.mark.parametrize("command", ["launch", "", "Pause", "pause/now", "x" * 500])
def test_a_command_that_does_not_exist_is_named_with_those_that_do(command: str) -> None:
    text = complaint(command, b"{}")
    assert text.startswith(f"there is no command {command[:40]!r}; known: product, threshold, pause, resume, golden")
    assert len(text) < 200


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[", "not JSON: Expecting value"),
        (b"product=cell", "not JSON"),
        (b"{'product': 'cell'}", "not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"\x00", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"cell"', "not a JSON object"),
        (b"5", "not a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused_with_an_example(raw: bytes, message: str) -> None:
    text = complaint("product", raw)
    assert text.startswith(message)
    assert '{"product": "cell"}' in text


def test_a_huge_request_is_refused_unread() -> None:
    fits = b'{"request_id": "' + b"x" * 100 + b'"' + b" " * (LARGEST_BYTES - 118) + b"}"
    assert len(fits) == LARGEST_BYTES
    assert parse("pause", fits) == PauseRequest(request_id="x" * 100)
    text = complaint("pause", fits + b" ")
    assert text == f"the request has {LARGEST_BYTES + 1} bytes; send {LARGEST_BYTES} at most"
    assert complaint("pause", b"\xff" * (LARGEST_BYTES + 1)).startswith("the request has")


@pytest.mark.parametrize("odd", ["\x7f", "a\x85b", "\x9f", "a\u2028b", "\ufeff", "\uffff", "\U0001f600", "\x01"])
def test_every_letter_that_json_may_hold_comes_back_as_it_was(odd: str) -> None:
    assert parse("golden", body(request_id=odd)) == GoldenRequest(request_id=odd)


@pytest.mark.parametrize("depth", [50, 250, 500, 900, 2000, 5000, LARGEST_BYTES - 1])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deeply_nested_request_is_refused_like_any_other(opening: bytes, depth: int) -> None:
    depth = min(depth, LARGEST_BYTES // (len(opening) + 1) - 10)
    closing = b"]" if opening == b"[" else b"}"
    nested = opening * depth + (b"1" if closing == b"}" else b"") + closing * depth
    complaint("pause", b'{"x":' + nested + b"}")
    complaint("pause", nested)
    complaint("pause", opening * depth)


@pytest.mark.parametrize(
    "fields",
    [{"request_id": "\x7f"}, {"product": "\x85", "request_id": "\ufeff"}, {"k" * 1100: 1}, {"\x7f": 1}, {"a\n": 1}],
    ids=["delete", "next line", "long name", "delete in a name", "line feed in a name"],
)
def test_letters_and_names_that_are_odd_are_read_or_refused_like_any_other(fields: dict[str, Any]) -> None:
    assert outcome("golden", body(**fields))


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["cell", "left", "stop", "2026-11-25T06:00Z", "<<", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = sorted({field for cls in REQUESTS.values() for field in cls.model_fields})


@given(
    command=st.sampled_from(sorted(REQUESTS)),
    fields=st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=8), _VALUES, max_size=5),
)
@hypothesis_settings(max_examples=300, deadline=None)
def test_whatever_a_request_holds_it_is_read_or_refused_with_a_message(command: str, fields: dict[str, Any]) -> None:
    made = outcome(command, json.dumps(fields).encode())
    assert made
    if isinstance(made, str):
        assert "Node(" not in made
        return
    assert type(made) is REQUESTS[command]
    said = {name for name in fields if fields[name] is not None}
    assert said <= {name for name in _FIELDS if getattr(made, name, None) is not None}, "nothing said is ignored"


@given(raw=st.binary(max_size=60))
def test_whatever_bytes_come_they_are_read_or_refused_with_a_message(raw: bytes) -> None:
    assert outcome("pause", raw)
    assert request_id(raw) is None or isinstance(request_id(raw), str)


# the identity of a request, which its answer carries


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (body(request_id="7"), "7"),
        (body(request_id="7", product=5, nonsense=[]), "7"),
        (body(request_id="x" * 500), "x" * 200),
        (body(request_id=7), None),
        (body(request_id=None), None),
        (b"", None),
        (b"[]", None),
        (b"no JSON", None),
        (b"[" * 60_000, None),
    ],
)
def test_an_answer_carries_the_identity_of_its_request_also_where_the_rest_of_it_is_wrong(
    raw: bytes, expected: str | None
) -> None:
    assert request_id(raw) == expected


def test_a_huge_request_is_not_read_for_its_identity_either() -> None:
    huge = b'{"request_id": "7", "fill": "' + b"x" * LARGEST_BYTES + b'"}'
    assert request_id(huge) is None, "reading hundreds of megabytes would hold up the verdicts"
