"""rejectd.page.server: the process that serves the page."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from certificates import Authority
from line import Line
from page_server import PASSWORD, PageServer, Person
from peers import run_command


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    """A page that has not started, and whose service does not run."""
    line = Line(tmp_path, Path("/nowhere/bundle"), 1883)
    line.settings["cameras"]["left"] = {"type": "folder", "product": "cell", "path": str(tmp_path), "mode": "watch"}
    stopped = PageServer(line)
    yield stopped
    stopped.close()


def test_with_a_certificate_the_page_speaks_https_alone_and_its_cookies_too(server: PageServer, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).sign("page")
    server.line.settings["page"] |= {"tls_cert": str(certificate), "tls_key": str(key)}
    server.start()
    person = Person(server.port, tls=True)
    answer = person.log_in("engineer", server.one_time_password)
    assert answer.status == 303
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]
    with pytest.raises((ConnectionError, HTTPException)):
        Person(server.port).ask("/login")


def test_a_certificate_that_is_none_is_told(server: PageServer, tmp_path: Path) -> None:
    server.line.settings["page"] |= {"tls_cert": str(server.line.file), "tls_key": str(server.line.file)}
    refused = run_command("rejectd", "page", server.line.write())
    assert refused.returncode == 2
    assert "not usable for TLS" in refused.stderr


def test_a_port_that_is_taken_is_told(server: PageServer) -> None:
    server.start()
    refused = run_command("rejectd", "page", server.line.file)
    assert refused.returncode == 2
    assert "choose another page.port" in refused.stderr


def test_users_outlive_a_restart_and_everybody_logs_in_again(server: PageServer) -> None:
    server.start()
    engineer = server.person()
    assert server.stop() == 0
    server.log.write_text("")
    server.start()
    assert engineer.ask("/api/health").status == 401
    again = server.person(password=PASSWORD)
    assert again.ask("/api/health").json()["word"] == "offline"
    assert not (server.state / "one-time-password").exists()
