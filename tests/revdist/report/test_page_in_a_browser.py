"""revdist.report.page in a real browser: on a phone, on a screen and on paper"""

from __future__ import annotations

import functools
import json
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from PIL import Image


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(tmp_path_factory.mktemp("profile"))


# Measures a page in a frame as wide as a phone; the page itself holds no program.
WRAPPER = """<!DOCTYPE html><body><iframe src="PAGE" style="width:WIDTHpx;height:4000px;border:0"></iframe><script>
onload = () => {
  const page = frames[0], root = page.document.documentElement;
  document.body.textContent = JSON.stringify({
    wide: root.scrollWidth, view: root.clientWidth,
    broken: [...page.document.images].filter(each => !each.naturalWidth).length,
    pictures: page.document.images.length,
    fetched: page.performance.getEntriesByType("resource").map(each => each.name),
  });
};
</script></body>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *args: object) -> None:
        pass


def _measure(browser: Browser, written: Path, width: int) -> dict[str, Any]:
    wrapper = written.with_name("wrapper.html")
    wrapper.write_text(WRAPPER.replace("PAGE", written.name).replace("WIDTH", str(width)))
    handler = functools.partial(Quiet, directory=str(written.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:  # a browser gives no account of files
        threading.Thread(target=server.serve_forever, name="pages", daemon=True).start()
        dom = browser.run(f"http://127.0.0.1:{server.server_port}/wrapper.html", "--dump-dom").stdout
        server.shutdown()
    found = re.search(r"<body>(\{.*\})", dom)
    assert found, dom[-500:]
    return dict(json.loads(found[1]))


def test_on_a_phone_nothing_is_wider_than_the_screen_and_nothing_is_fetched(browser: Browser, written: Path) -> None:
    found = _measure(browser, written, 375)
    assert found["view"] == found["wide"] == 375
    assert found["fetched"] == []
    assert found["broken"] == 0
    assert found["pictures"] > 20


def test_the_browser_would_notice_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "wrong.html").write_text(
        '<div style="width:500px">x</div><img src="missing.png"><img src="http://a.test/style.css">'
    )
    found = _measure(browser, tmp_path / "wrong.html", 375)
    assert found["wide"] > 375
    assert found["broken"] == 2
    assert [name.rsplit("/", 1)[1] for name in found["fetched"]] == ["missing.png", "style.css"]


def test_the_page_is_drawn_and_printed(browser: Browser, written: Path, tmp_path: Path) -> None:
    browser.run(written.as_uri(), "--window-size=1280,900", f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as drawn:
        assert drawn.size == (1280, 900)
        assert len(drawn.convert("RGB").getcolors(1 << 24) or []) > 50
    browser.run(written.as_uri(), f"--print-to-pdf={tmp_path / 'page.pdf'}")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF-")
    assert len(printed) < 3_000_000  # a pattern in SVG would make it ten times as large
    sheets = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert 2 <= len(sheets) <= 12
    assert {(round(float(wide)), round(float(high))) for wide, high in sheets} == {(595, 842)}  # A4 in points
