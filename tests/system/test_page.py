"""The operator's page beside a real line: what people see is what happened, and what they order is done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from line import Line
from page_server import PageServer, chromium, tab_of, until
from peers import Mosquitto, run_command, wait_for

pytestmark = pytest.mark.system


@pytest.fixture
def page(line: Line, cells: list[Path], strange: Path) -> Iterator[PageServer]:
    """A page beside a running line with a camera whose every second part is strange."""
    line.folder("left", [cells[50], strange], loop=True, rate_hz=4)
    line.folder("right", cells[51:53], loop=True, rate_hz=4)
    line.settings["drift"] = {"enabled": False}  # it would rightly see that every second part is strange
    server = PageServer(line)
    line.start()
    server.start()
    yield server
    server.close()


def test_people_see_verdicts_pictures_and_evidence_of_the_running_line(line: Line, page: PageServer) -> None:
    engineer = page.person()
    with chromium() as browser, tab_of(browser, engineer, viewport={"width": 1280, "height": 800}) as tab:
        tab.goto("/")
        until(tab, "document.querySelector('[data-camera=left] img').src.includes('heat=true')")
        until(tab, "document.querySelector('[data-camera=right] img').naturalWidth > 0")
        assert tab.locator("[data-camera=left] [data-field=latency]").inner_text().endswith(" ms")
        tab.goto("/gallery")
        tab.locator(".tiles a").first.click()
        until(tab, "document.getElementById('picture').naturalWidth === 300")
        until(tab, "document.getElementById('heat').naturalWidth > 0")
        until(tab, "document.querySelectorAll('#boxes rect').length > 0")
        assert [said for said in tab.said if "409" not in said] == []
    counts = {count["camera"]: count for count in engineer.ask("/api/shift").json()["counts"]}
    assert counts["left"]["reject"] > 0
    assert counts["left"]["captured"] <= line.total("rejectd_frames_captured_total")


def test_orders_change_the_line_and_stand_in_its_journal_with_the_person_s_name(line: Line, page: PageServer) -> None:
    engineer = page.person()
    set_to = engineer.send("/api/orders/threshold", {"product": "cell", "threshold": 0.77}).json()
    assert set_to["result"]["after"] == 0.77
    assert line.metrics()["rejectd_threshold{product=cell}"] == 0.77
    assert engineer.send("/api/orders/pause", {"cameras": ["right"]}).json()["result"] == {"paused": ["right"]}
    right = lambda: next(one for one in engineer.ask("/api/live").json()["cameras"] if one["camera"] == "right")  # noqa: E731
    wait_for(lambda: right()["last"]["cause"] == "paused", "parts of the paused camera are not judged")
    assert engineer.send("/api/orders/resume", {"cameras": ["right"]}).json()["result"] == {"paused": []}
    refused = engineer.send("/api/orders/product", {"product": "other"}).json()
    assert not refused["ok"]
    assert "known products: cell" in refused["error"]
    wait_for(
        lambda: (
            line.journal("SELECT what, subject, changed_by FROM change ORDER BY rowid")
            == [
                ("threshold", "cell", "threshold by engineer at the page"),
                ("pause", "right", "pause by engineer at the page"),
                ("pause", "right", "resume by engineer at the page"),
            ]
        ),
        "the changes are in the journal",
    )
    assert 'by="engineer at the page"' in line.log.read_text()


def test_the_page_outlives_the_service_and_says_that_it_is_away(line: Line, page: PageServer) -> None:
    engineer = page.person()
    assert engineer.ask("/readyz").status == 200
    assert line.stop() == 0
    wait_for(lambda: engineer.ask("/readyz").json()["state"] == "offline", "the line is offline")
    live = engineer.ask("/api/live").json()
    assert (live["word"], live["colour"], live["cameras"]) == ("offline", "red", [])
    assert engineer.ask("/gallery").status == 200, "what was is still there"
    assert engineer.send("/api/orders/pause", {}).status == 503
    line.log.write_text("")
    line.start()
    wait_for(lambda: engineer.ask("/readyz").status == 200, "the line is back")
    assert page.stop() == 0


def test_a_broker_that_is_away_is_seen_with_what_to_do(line: Line, page: PageServer, mosquitto: Mosquitto) -> None:
    engineer = page.person()
    mosquitto.stop()
    wait_for(lambda: engineer.ask("/api/health").json()["problems"], "the page says so")
    health = engineer.ask("/api/health").json()
    assert (health["word"], health["colour"]) == ("attention", "amber")
    assert "broker" in health["problems"][0]["problem"]
    assert "ejector" in health["problems"][0]["advice"]
    mosquitto.start()
    wait_for(lambda: engineer.ask("/api/health").json()["word"] == "running", "all is well again")


def test_the_page_yields_the_processors_to_the_line(line: Line, page: PageServer) -> None:
    assert page.process
    assert line.process
    nice = os.getpriority(os.PRIO_PROCESS, page.process.pid) - os.getpriority(os.PRIO_PROCESS, line.process.pid)
    assert nice >= 10


def test_a_line_whose_page_is_off_has_no_socket_and_serves_no_page(line: Line, cells: list[Path]) -> None:
    line.folder("left", cells[50:52], loop=True, rate_hz=4)
    line.settings["page"] = {"enabled": False}
    line.start()
    assert not (line.directory / "state" / "page.sock").exists()
    refused = run_command("rejectd", "page", line.file)
    assert refused.returncode == 2
    assert "page.enabled: true" in refused.stderr
    assert line.stop() == 0


def test_clients_that_never_finish_or_never_read_lose_their_place(page: PageServer) -> None:
    import socket

    silent = socket.create_connection(("127.0.0.1", page.port), timeout=40)
    silent.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    started = time.monotonic()
    silent.settimeout(40)
    assert silent.recv(1) == b"", "it was dropped"
    assert time.monotonic() - started < 35
    silent.close()
