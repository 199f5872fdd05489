"""rejectd.page.app, entry, live and api: the page's process as browsers and programs meet it."""

from __future__ import annotations

import re
import socket

import pytest
from page_server import PASSWORD, PageServer, Person
from stand_in_service import StandInService, status

from rejectd.page.app import HEADERS


def test_nobody_sees_anything_without_logging_in(server: PageServer) -> None:
    stranger = Person(server.port)
    assert stranger.ask("/").headers["location"] == "/login"
    for path in ("/api/live", "/api/health", "/api/cameras/left/picture?event_id=x"):
        assert stranger.ask(path).status == 401
    assert stranger.ask("/healthz").json() == {"state": "ok"}
    assert stranger.ask("/readyz").status == 200


def test_the_one_time_password_opens_nothing_but_the_choice_of_another(
    service: StandInService, server: PageServer
) -> None:
    first = Person(server.port)
    if not (server.state / "one-time-password").exists():
        pytest.skip("another test has used it")
    password = server.one_time_password
    assert first.log_in("engineer", password).headers["location"] == "/password"
    assert first.ask("/").headers["location"] == "/password"
    assert first.ask("/api/live").status == 403
    assert first.choose("short").status == 422
    assert first.choose(password).status == 422, "somebody else knows it"
    assert first.choose(PASSWORD).headers["location"] == "/"
    assert first.ask("/").status == 200
    assert Person(server.port).log_in("engineer", password).status == 401, "it held once"
    assert not (server.state / "one-time-password").exists()
    assert password not in server.log.read_text()


def test_every_answer_keeps_browsers_from_foreign_content(server: PageServer, engineer: Person) -> None:
    for path in ("/", "/login", "/healthz", "/static/page.css", "/nothing", "/openapi.json"):
        answer = engineer.ask(path)
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    page = engineer.ask("/").text
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert " style=" not in page
    assert "server" not in engineer.ask("/").headers


def test_the_cookie_of_a_session_is_out_of_reach_of_scripts_and_other_sites(server: PageServer) -> None:
    answer = Person(server.port).log_in("engineer", PASSWORD)
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=strict" in answer.headers["set-cookie"].lower()


def test_a_form_of_another_page_changes_nothing(server: PageServer, engineer: Person) -> None:
    other = engineer.form("/logout", {"token": "guessed"})
    assert other.status == 403
    fields = {"token": engineer.token()}
    assert engineer.form("/logout", fields, Origin="http://evil.example").status == 403
    assert engineer.form("/logout", fields, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert engineer.ask("/").status == 200


def test_logging_out_ends_the_session_on_the_server(server: PageServer, engineer: Person) -> None:
    somebody = Person(server.port)
    somebody.log_in("engineer", PASSWORD)
    cookies = dict(somebody.cookies)
    assert somebody.form("/logout", {"token": somebody.token()}).headers["location"] == "/login"
    somebody.cookies = cookies
    assert somebody.ask("/api/live").status == 401


def test_wrong_passwords_lock_a_name_for_a_while(server: PageServer, engineer: Person) -> None:
    thief = Person(server.port)
    answers = [thief.log_in("bert", "wrong") for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) > 1
    assert thief.log_in("engineer", PASSWORD).status == 303, "others are not locked out"


def test_the_live_state_is_told_in_a_word_with_each_camera(
    service: StandInService, server: PageServer, engineer: Person
) -> None:
    live = engineer.ask("/api/live").json()
    assert (live["word"], live["colour"]) == ("running", "green")
    decisions = {one["camera"]: one["last"]["decision"] for one in live["cameras"]}
    assert decisions == {"left": "pass", "right": "reject", "top": "unjudged"}
    assert live["counts"] == {"captured": 7, "pass": 5, "reject": 1, "unjudged": 1, "in_flight": 0}


def test_a_picture_is_shown_with_its_heat_map_or_without(
    service: StandInService, server: PageServer, engineer: Person
) -> None:
    plain = engineer.ask("/api/cameras/right/picture?event_id=run-reject-1")
    heat = engineer.ask("/api/cameras/right/picture?event_id=run-reject-1&heat=true")
    assert plain.headers["content-type"] == "image/jpeg"
    assert plain.body != heat.body
    assert engineer.ask("/api/cameras/gone/picture?event_id=x").status == 409
    assert engineer.ask("/api/cameras/..%2F..%2Fetc/picture?event_id=x").status in (404, 422)


def test_twenty_browsers_cost_the_service_no_more_than_one(
    service: StandInService, server: PageServer, engineer: Person
) -> None:
    engineer.ask("/api/live")
    before = len(service.asked)
    for _ in range(20):
        engineer.ask("/api/live")
        engineer.ask("/api/cameras/left/picture?event_id=run-pass-1")
    asked = [request["ask"] for request in service.asked[before:]]
    assert asked.count("picture") == 1
    assert asked.count("state") < 15


def test_a_problem_comes_with_what_to_do(service: StandInService, server: PageServer, engineer: Person) -> None:
    service.state["status"] = status(problems=["camera left is down: no picture for 5 s"])
    try:
        problems = _until(lambda: engineer.ask("/api/health").json()["problems"])
        page = engineer.ask("/health").text
    finally:
        service.state["status"] = status()
    assert problems[0]["problem"] == "camera left is down: no picture for 5 s"
    assert "cable" in problems[0]["advice"]
    assert "cable" in page


def test_a_line_that_does_not_judge_is_not_ready(service: StandInService, server: PageServer) -> None:
    service.state["status"] = status(judging=False)
    try:
        answer = _until(lambda: answer if (answer := Person(server.port).ask("/readyz")).status == 503 else None)
    finally:
        service.state["status"] = status()
    assert answer.json() == {"state": "not_judging"}


def test_the_page_speaks_the_language_of_the_browser_or_the_one_that_was_chosen(
    service: StandInService, server: PageServer, engineer: Person
) -> None:
    german = engineer.ask("/health", headers={"Accept-Language": "de"})
    assert 'lang="de"' in german.text
    assert "Abmelden" in german.text
    answer = engineer.form("/preferences", {"language": "zh", "theme": "dark", "path": "//evil.example/"})
    assert answer.headers["location"] == "/"
    chinese = engineer.ask("/", headers={"Accept-Language": "de"}).text
    assert 'lang="zh"' in chinese
    assert 'data-theme="dark"' in chinese
    del engineer.cookies["rejectd_language"], engineer.cookies["rejectd_theme"]


def test_a_request_that_is_too_large_is_refused(server: PageServer) -> None:
    stranger = Person(server.port)
    assert stranger.form("/login", {"name": "x", "password": "y" * 100_000}).status == 413
    head = b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"".join(b"8000\r\n" + b"x" * 0x8000 + b"\r\n" for _ in range(3)) + b"0\r\n\r\n")
        assert b" 413 " in connection.recv(4096)


def test_a_body_in_chunks_has_no_more_room_for_whom_nobody_knows(server: PageServer) -> None:
    head = b"POST /api/orders/pause HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"".join(b"8000\r\n" + b"x" * 0x8000 + b"\r\n" for _ in range(3)) + b"0\r\n\r\n")
        assert b" 413 " in connection.recv(4096)


def test_who_sends_too_much_is_refused_and_others_at_the_same_address_are_not(
    server: PageServer, engineer: Person
) -> None:
    stranger = Person(server.port)
    answers = [stranger.ask("/api/live").status for _ in range(600)]
    assert set(answers) <= {401, 429}
    if 429 in answers:  # the machine sends fast enough
        assert engineer.ask("/api/live").status == 200
    assert stranger.ask("/healthz").status == 200


def test_an_unknown_address_is_told_so(server: PageServer, engineer: Person) -> None:
    assert engineer.ask("/nothing").status == 404
    assert engineer.ask("/api/nothing").json() == {"detail": "Not Found"}


def _until(ask: object) -> object:
    from peers import wait_for

    answers: list[object] = []

    def came() -> bool:
        answer = ask()  # type: ignore[operator]
        answers.append(answer)
        return bool(answer)

    wait_for(came, "the page shows it", 20)
    return answers[-1]
