"""The page in a real Chromium: what people see, by mouse, keyboard and screen reader, on panels and phones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from journal_rows import journal_with, verdict_row
from page_server import PageServer, Person, axe_script, chromium, tab_of, until
from stand_in_service import StandInService, camera, last, status

PANEL = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
EVENT = "run-left-1"
PATHS = (
    *("/", "/shift", "/gallery", f"/gallery/{EVENT}", "/products", "/health", "/audit", "/users", "/password"),
    "/nothing",
)


@pytest.fixture(scope="module", autouse=True)
def evidence(service: StandInService) -> None:
    """A journal with some parts, and the evidence of a reject."""
    now = datetime.now(UTC)
    rows = [
        verdict_row("left", 1, now - timedelta(minutes=9), "reject", score=0.75),
        verdict_row("left", 2, now - timedelta(minutes=8), "pass", score=0.25),
        verdict_row("left", 3, now - timedelta(minutes=7), "unjudged", cause="late"),
    ]
    journal_with(service.directory / "state", rows, {EVENT: {"regions": [[10, 20, 30, 40]]}})
    folder = service.directory / "state" / "evidence" / (now - timedelta(minutes=9)).strftime("%Y-%m-%d")
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / f"{EVENT}.png"), np.full((120, 160, 3), 90, np.uint8))
    cv2.imwrite(str(folder / f"{EVENT}-heat.jpg"), np.full((120, 160, 3), 200, np.uint8))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def tab(browser: Any, engineer: Person) -> Iterator[Any]:
    """A tab of a browser in which an engineer has logged in."""
    with tab_of(browser, engineer, viewport=PANEL) as page:
        yield page


@pytest.fixture(autouse=True)
def usual(tab: Any) -> Iterator[None]:
    """Each test finds the panel as usual, and leaves no complaint of the browser."""
    tab.set_viewport_size(PANEL)
    tab.context.set_offline(False)
    tab.emulate_media(color_scheme="light", media="screen")
    tab.said.clear()
    yield
    assert [said for said in tab.said if "status of 404" not in said] == []


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe_script(tmp_path_factory.mktemp("axe"))


def test_logging_in_by_keyboard_leads_to_the_live_page(browser: Any, server: PageServer, engineer: Person) -> None:
    with tab_of(browser, Person(server.port), viewport=PANEL) as page:
        page.goto("/")
        assert page.url.endswith("/login")
        page.get_by_label("Name").fill("engineer")
        page.keyboard.press("Tab")
        page.keyboard.type("quiet green lathe")
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
        assert page.locator("#word").inner_text() == "Running"
        assert page.said == []


def test_each_camera_shows_its_last_part_and_a_reject_its_heat_map(tab: Any) -> None:
    tab.goto("/")
    until(tab, "document.querySelector('[data-camera=right] img').naturalWidth > 0")
    texts = {name: tab.locator(f"[data-camera={name}] .verdict").inner_text() for name in ("left", "right", "top")}
    assert texts == {"left": "Pass", "right": "Reject", "top": "Unjudged: late: no verdict by the deadline"}
    assert tab.locator("[data-camera=right] [data-field=score]").inner_text() == "0.9 (180 %)"
    assert tab.locator("[data-camera=right] [data-field=latency]").inner_text() == "41.5 ms"
    picture = tab.locator("[data-camera=right] img")
    assert "heat=true" in picture.get_attribute("src")
    tab.get_by_label(re.compile("Heat map")).uncheck()
    until(tab, "document.querySelector('[data-camera=right] img').src.includes('heat=false')")
    tab.get_by_label(re.compile("Heat map")).check()
    until(tab, "document.querySelector('[data-camera=right] img').src.includes('heat=true')")


def test_the_live_page_follows_the_line_without_a_click(service: StandInService, tab: Any) -> None:
    tab.goto("/")
    before = service.state
    service.state = {
        **before,
        "status": status(judging=False, problems=["camera left: 9 of its last 9 parts were not judged"]),
        "cameras": [
            camera("left", None, last=last("unjudged", event_id="run-unjudged-2")),
            *before["cameras"][1:],
        ],
    }
    try:
        until(tab, "document.getElementById('word').textContent === 'Not judging'")
        assert "9 of its last 9 parts" in tab.locator("#why").inner_text()
        assert "red" in tab.locator("#state").get_attribute("class")
        until(tab, "document.querySelector('[data-camera=left] .verdict').textContent.includes('late')")
    finally:
        service.state = before
    until(tab, "document.getElementById('word').textContent === 'Running'")


def test_a_page_that_hears_nothing_says_that_it_is_old(tab: Any) -> None:
    tab.goto("/")
    tab.context.set_offline(True)
    until(tab, "!document.getElementById('lost').hidden")
    tab.context.set_offline(False)
    until(tab, "document.getElementById('lost').hidden")
    tab.said.clear()  # the browser complains of the network


def test_a_part_is_labelled_and_taken_back_by_keyboard(tab: Any) -> None:
    tab.goto("/gallery")
    tab.locator(f"a[href='/gallery/{EVENT}']").click()
    until(tab, "document.querySelector('#boxes rect') !== null")
    assert tab.locator("#boxes rect").get_attribute("width") == "30"
    tab.keyboard.press("f")
    until(tab, "document.getElementById('label').textContent.includes('False reject, by engineer')")
    tab.keyboard.press("u")
    until(tab, "document.getElementById('label').textContent.includes('taken back')")
    tab.get_by_label("Remark").fill("real crack")  # in which keys are letters
    tab.get_by_role("button", name="Right").click()
    until(tab, "document.getElementById('label').textContent.includes('real crack')")
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_url("**/gallery/run-left-3")


def test_the_heat_map_is_as_strong_as_its_slider_says(tab: Any) -> None:
    tab.goto(f"/gallery/{EVENT}")
    strength = "getComputedStyle(document.getElementById('heat')).opacity"
    assert tab.evaluate(strength) == "0.7"
    tab.keyboard.press("h")
    assert tab.evaluate(strength) == "0"
    tab.locator("#opacity").fill("40")
    assert tab.evaluate(strength) == "0.4"


def test_the_threshold_s_slider_says_what_it_means_before_anything_is_set(service: StandInService, tab: Any) -> None:
    tab.goto("/products")
    before = sum(asked["ask"] == "command" for asked in service.asked)
    assert "0 % of the 4 held-out good parts" in tab.locator(".means").inner_text()
    tab.locator(".slide").fill("0.15")
    means = tab.locator(".means").inner_text()
    assert "75 % of the 4 held-out good parts" in means
    assert "Of the last 2 judged parts 2 would be rejected; 1 were." in means
    tab.get_by_role("button", name="Set this threshold").click()
    tab.get_by_role("button", name="Confirm").click()
    tab.wait_for_selector("text=Done.")
    commands = [asked for asked in service.asked if asked["ask"] == "command"][before:]
    assert [(one["name"], one["request"]) for one in commands] == [
        ("threshold", {"product": "cell", "threshold": 0.15})
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_on(tab: Any, axe: str, path: str, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.goto(path)
    tab.evaluate(axe)
    violations = tab.evaluate("axe.run().then(result => result.violations)")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in violations] == []


def test_axe_finds_no_barrier_on_the_log_in_and_the_confirmation(
    browser: Any, server: PageServer, engineer: Person, axe: str, tab: Any
) -> None:
    with tab_of(browser, Person(server.port), viewport=PHONE, color_scheme="dark") as page:
        page.goto("/login")
        page.evaluate(axe)
        assert page.evaluate("axe.run().then(result => result.violations.map(one => one.id))") == []
    tab.goto("/products")
    tab.get_by_role("button", name="Pause").first.click()
    tab.wait_for_selector("text=Do you really want this?")
    tab.evaluate(axe)
    assert tab.evaluate("axe.run().then(result => result.violations.map(one => one.id))") == []


@pytest.mark.parametrize("size", [PHONE, PANEL], ids=["phone", "panel"])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_runs_out_of_the_screen_of_a(tab: Any, path: str, size: dict[str, int]) -> None:
    tab.set_viewport_size(size)
    tab.goto(path)
    assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    heights = tab.eval_on_selector_all(
        "button, .button, nav a, select",
        "all => all.filter(one => one.offsetParent).map(one => one.getBoundingClientRect().height)",
    )
    assert min(heights) >= 44, "a finger hits it"


@pytest.mark.parametrize("path", ["/shift", "/audit", "/users"])
def test_no_word_of_a_table_is_broken_on_a_phone(tab: Any, path: str) -> None:
    tab.set_viewport_size(PHONE)
    tab.goto(path)
    lines = tab.eval_on_selector_all(
        "thead th",
        "all => all.map(one => one.getBoundingClientRect().height / parseFloat(getComputedStyle(one).lineHeight))",
    )
    assert max(lines) < 2.5, "a line, and the room around it"


@pytest.mark.parametrize("language", ["de", "zh"])
@pytest.mark.parametrize("path", ["/", "/products", f"/gallery/{EVENT}"])
def test_longer_words_of_another_language_fit_too(browser: Any, engineer: Person, language: str, path: str) -> None:
    with tab_of(browser, engineer, viewport=PHONE, locale=language) as page:
        page.goto(path)
        assert page.evaluate("document.documentElement.lang") == language
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.said == []


def test_without_scripts_the_page_still_shows_the_state_and_takes_orders(
    browser: Any, service: StandInService, engineer: Person
) -> None:
    before = sum(asked["ask"] == "command" for asked in service.asked)
    with tab_of(browser, engineer, viewport=PANEL, java_script_enabled=False) as page:
        page.goto("/")
        assert page.locator("#word").inner_text() == "Running"
        page.goto("/products")
        page.get_by_role("button", name="Pause").first.click()
        page.get_by_role("button", name="Confirm").click()
        page.wait_for_selector("text=Done.")
    assert sum(asked["ask"] == "command" for asked in service.asked) == before + 1


def test_the_shift_prints_without_its_controls(tab: Any, tmp_path: Path) -> None:
    tab.goto("/shift")
    tab.emulate_media(media="print")
    visible = tab.eval_on_selector_all("form, header", "all => all.filter(one => one.offsetParent).length")
    assert visible == 0
    assert tab.locator("table").first.is_visible()
    tab.emulate_media(media="screen")
