"""rejectd.page.orders, looking_back and the API that changes something: who may do what, and what stands of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from journal_rows import journal_with, verdict_row
from page_server import PASSWORD, PageServer, Person
from stand_in_service import StandInService


@pytest.fixture(scope="module", autouse=True)
def journal(service: StandInService) -> Path:
    """A journal with a reject and a pass of the last hour."""
    now = datetime.now(UTC)
    rows = [
        verdict_row("left", 1, now - timedelta(minutes=9), "reject", score=0.75),
        verdict_row("left", 2, now - timedelta(minutes=8), "pass", score=0.25),
    ]
    return journal_with(service.directory / "state", rows)


def add(engineer: Person, server: PageServer, name: str, role: str) -> Person:
    """A new person, who has chosen a password."""
    page = engineer.form("/users", {"token": engineer.token(), "name": name, "role": role})
    password = re.findall(r"[a-z0-9]{4}-[a-z0-9]{4}-[a-z0-9]{4}", page.text)[0]
    somebody = Person(server.port)
    assert somebody.log_in(name, password).headers["location"] == "/password"
    assert somebody.choose(PASSWORD).status == 303
    return somebody


@pytest.fixture(scope="module")
def viewer(engineer: Person, server: PageServer) -> Person:
    return add(engineer, server, "vera", "viewer")


@pytest.fixture(scope="module")
def operator(engineer: Person, server: PageServer) -> Person:
    return add(engineer, server, "otto", "operator")


def commands_of(service: StandInService) -> list[tuple[object, object, object]]:
    return [(one["name"], one["request"], one["by"]) for one in service.asked if one["ask"] == "command"]


def test_a_viewer_sees_and_changes_nothing(service: StandInService, viewer: Person) -> None:
    before = commands_of(service)
    for path in ("/", "/shift", "/gallery", "/gallery/run-left-1", "/health"):
        assert viewer.ask(path).status == 200
    for path in ("/products", "/audit", "/users"):
        assert viewer.ask(path).status == 403
    assert viewer.send("/api/orders/pause", {}).status == 403
    assert viewer.send("/api/gallery/run-left-1/label", {"kind": "false"}).status == 403
    assert viewer.form("/products/order", {"token": viewer.token(), "order": "pause", "confirmed": "yes"}).status == 403
    assert viewer.form("/users", {"token": viewer.token(), "name": "x", "role": "engineer"}).status == 403
    assert commands_of(service) == before


def test_an_operator_pauses_but_sets_no_threshold(service: StandInService, operator: Person) -> None:
    fields = {"token": operator.token(), "order": "pause", "cameras.left": "on"}
    asked = operator.form("/products/order", fields)
    assert "left" in asked.text
    before = len(commands_of(service))
    done = operator.form("/products/order", fields | {"confirmed": "yes"})
    assert done.status == 200
    assert commands_of(service)[before:] == [("pause", {"cameras": ["left"]}, "otto at the page")]
    refused = operator.form("/products/order", fields | {"order": "threshold", "product": "cell", "threshold": "0.6"})
    assert refused.status == 403
    assert operator.send("/api/orders/threshold", {"product": "cell", "threshold": 0.6}).status == 403
    assert operator.ask("/users").status == 403


def test_nothing_is_done_before_it_is_confirmed(service: StandInService, engineer: Person) -> None:
    before = len(commands_of(service))
    fields = {"token": engineer.token(), "order": "threshold", "product": "cell", "threshold": "0.6"}
    page = engineer.form("/products/order", fields).text
    assert "0.6" in page
    assert len(commands_of(service)) == before
    assert engineer.form("/products/order", fields | {"confirmed": "yes"}).status == 200
    assert commands_of(service)[before:] == [
        ("threshold", {"product": "cell", "threshold": 0.6}, "engineer at the page")
    ]


def test_an_order_that_the_line_refuses_is_told_and_noted(service: StandInService, engineer: Person) -> None:
    service.answer = {"ok": False, "error": "product x passes no camera now", "result": None}
    fields = {"token": engineer.token(), "order": "product", "product": "x", "confirmed": "yes"}
    try:
        answer = engineer.form("/products/order", fields)
    finally:
        service.answer = {"ok": True, "error": None, "result": {"after": 0.6}}
    assert answer.status == 409
    assert "product x passes no camera now" in answer.text
    assert "product x passes no camera now" in engineer.ask("/audit").text


def test_an_order_without_the_token_or_of_no_kind_is_refused(service: StandInService, engineer: Person) -> None:
    before = len(commands_of(service))
    assert engineer.send("/api/orders/pause", {}, token="guessed").status == 403
    assert engineer.form("/products/order", {"order": "pause", "confirmed": "yes"}).status == 403
    assert engineer.send("/api/orders/replay", {"from_seq": 1}).status == 404
    assert engineer.send("/api/orders/shutdown", {}).status == 404
    bad = {"token": engineer.token(), "order": "threshold", "product": "cell", "threshold": "much"}
    assert engineer.form("/products/order", bad).status == 422
    assert len(commands_of(service)) == before


def test_a_label_stands_with_its_remark_until_it_is_taken_back(operator: Person) -> None:
    said = operator.send("/api/gallery/run-left-1/label", {"kind": "false", "remark": "dust <b>"}).json()
    assert said == {"event_id": "run-left-1", "kind": "false", "remark": "dust <b>", "who": "otto"}
    page = operator.ask("/gallery/run-left-1").text
    assert "dust &lt;b&gt;" in page
    assert "dust <b>" not in page
    assert operator.send("/api/gallery/run-left-1/label", {"kind": None}).status == 200
    assert "dust" not in operator.ask("/gallery/run-left-1").text
    assert operator.send("/api/gallery/run-left-99/label", {"kind": "false"}).status == 404
    assert operator.send("/api/gallery/run-left-1/label", {"kind": "nonsense"}).status == 422


def test_the_shift_is_shown_exported_and_told_to_programs(viewer: Person) -> None:
    assert "50.00 %" in viewer.ask("/shift").text
    answer = viewer.ask("/shift.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert ",left,cell,2,1,1,0," in answer.text
    (count,) = viewer.ask("/api/shift").json()["counts"]
    assert (count["captured"], count["pass"], count["reject"], count["yield"]) == (2, 1, 1, 0.5)
    assert viewer.ask("/api/shift?since=nonsense").status == 422
    assert viewer.ask("/shift?since=nonsense").status == 422


def test_evidence_outside_of_the_folder_cannot_be_reached(viewer: Person) -> None:
    for path in ("..%2F..%2Fetc%2Fpasswd", "....//", "run-left-1%00", "%2e%2e"):
        assert viewer.ask(f"/evidence/{path}/picture").status in (404, 422)
    assert viewer.ask("/evidence/run-left-1/picture").status == 404


def test_a_removed_user_is_out_at_once(server: PageServer, engineer: Person) -> None:
    gone = add(engineer, server, "gustav", "operator")
    assert gone.ask("/api/live").status == 200
    assert engineer.form("/users", {"token": engineer.token(), "name": "gustav", "remove": "yes"}).status == 200
    assert gone.ask("/api/live").status == 401
    assert Person(server.port).log_in("gustav", PASSWORD).status == 401


def test_the_last_engineer_stays_one(engineer: Person) -> None:
    for change in ({"remove": "yes"}, {"role": "viewer"}):
        answer = engineer.form("/users", {"token": engineer.token(), "name": "engineer", **change})
        assert answer.status == 422
        assert "last engineer" in answer.text
    assert engineer.form("/users", {"token": engineer.token(), "name": "a b<", "role": "viewer"}).status == 422


def test_nobody_takes_the_own_password_away(engineer: Person) -> None:
    second = engineer.form("/users", {"token": engineer.token(), "name": "second", "role": "engineer"})
    assert second.status == 200
    answer = engineer.form("/users", {"token": engineer.token(), "name": "engineer", "role": "engineer"})
    assert (answer.status, "this is you" in answer.text) == (422, True)
    assert engineer.ask("/users").status == 200
    assert engineer.form("/users", {"token": engineer.token(), "name": "second", "remove": "yes"}).status == 200


def test_every_change_is_in_the_log_with_who_and_no_password(engineer: Person, operator: Person) -> None:
    engineer.send("/api/orders/golden", {"product": "cell"})
    page = engineer.ask("/audit").text
    assert "golden {&#34;product&#34;: &#34;cell&#34;}" in page
    assert "otto" in page
    assert PASSWORD not in page
