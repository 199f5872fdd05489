"""revdist.report: figures, pictures, verdict and page; and the page in a real browser"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from PIL import Image

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import command
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.evaluation import evaluate
from revdist.evaluation.sensitivity import Grid
from revdist.networks import teacher
from revdist.report import cases, page, verdict
from revdist.report.gather import Figures, Request, gather
from revdist.report.markup import VOID
from revdist.thresholds import conformal
from revdist.training import train

MADE = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
GRID = Grid(kinds=("spot",), sizes_px=(4.0, 16.0), contrasts=(0.3, 1.0), pictures=2)
NASTY = '<b>&"x'  # a kind of defect, and so a folder's name


@pytest.fixture(scope="module")
def held(tiny: Bundle, engine: Engine) -> Iterator[Engine]:
    bundle.load(tiny.path, engine)
    yield engine
    engine.remove(tiny.product)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, good_cells: list[Path], broken_cells: list[Path]) -> Path:
    """Unseen cells in the MVTec layout with masks; one kind has a name to trip over."""
    root = tmp_path_factory.mktemp("data")
    mask = np.zeros((300, 300), np.uint8)
    mask[100:160, 40:200] = 255
    for kind, cells in (("good", good_cells[100:107]), ("crack", broken_cells[:4]), (NASTY, broken_cells[4:7])):
        (root / "test" / kind).mkdir(parents=True)
        (root / "ground_truth" / kind).mkdir(parents=True)
        for path in cells:
            shutil.copy(path, root / "test" / kind)
            if kind != "good":
                Image.fromarray(mask).save(root / "ground_truth" / kind / f"{path.stem}_mask.png")
    return root


@pytest.fixture(scope="module")
def figures(tiny: Bundle, held: Engine, data: Path) -> Figures:
    return gather(tiny, held, Request(data=data, grid=GRID), MADE)


@pytest.fixture(scope="module")
def written(figures: Figures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, figures)
    return path


class Checked(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def _render(figures: Figures) -> Checked:
    return Checked(page.render(figures))


def test_the_figures_are_those_of_evaluate(figures: Figures, held: Engine, tiny: Bundle, data: Path) -> None:
    calibration = tiny.calibration(held.identity)
    expected = evaluate.evaluate(held, tiny.product, calibration, data)
    assert figures.test is not None
    found = dataclasses.replace(figures.test.evaluation, images_per_second=expected.images_per_second)
    assert found == expected
    assert expected.pro is not None
    text = _render(figures).text
    for shown in (f"{expected.image_auroc:.3f}", f"{expected.pro:.3f}", f"{expected.escape_rate:.1%}"):
        assert shown in text
    inspected = figures.test.inspected
    passed = inspected.defective & (inspected.scores <= calibration.threshold)
    assert figures.test.missed == passed.sum()
    assert f"Missed {passed.sum()} of 7 defective test parts" in text


def test_the_page_is_well_formed_accessible_and_on_its_own(written: Path) -> None:
    text = written.read_text()
    found = Checked(text)
    assert len(text) < 3_000_000
    assert all(each.get("alt") for each in found.all("img"))
    assert all((each["src"] or "").startswith("data:image/jpeg;base64,") for each in found.all("img"))
    assert all((each["href"] or "").startswith("#") for each in found.all("a"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", text))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert all(each.get("scope") for each in found.all("th"))
    assert all(each.get("aria-label") for each in found.all("svg") if each.get("role") == "img")
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {(each["href"] or "")[1:] for each in found.all("a")} <= set(names)


def _contrast(one: str, other: str) -> float:
    """Of two colours #rrggbb, as WCAG 2.1 defines it: 1 to 21."""

    def luminance(colour: str) -> float:
        channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_have_the_contrast_of_wcag_aa_by_day_by_night_and_on_paper() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    schemes = re.findall(r":root \{(.*?)\}", Path(page.__file__).with_name("style.css").read_text(), re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", scheme))
        for ground in ("ground", "surface", "faint"):
            for text in ("ink", "quiet", "good", "caution", "bad", "unknown", "blue"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
            for graphic in ("wrong", "third"):
                assert _contrast(colours[graphic], colours[ground]) >= 3, (graphic, ground)


def test_names_from_outside_are_shown_and_do_nothing(figures: Figures) -> None:
    text = page.render(figures)
    assert NASTY not in text
    assert f"{NASTY}/" in _render(figures).text


def test_sensitivity_is_called_synthetic(figures: Figures) -> None:
    text = _render(figures).text
    assert "SYNTHETIC defects painted on 2 of the good test pictures" in text
    assert "contrast 30%" in text


def test_without_data_the_page_shows_the_promise_and_the_golden_pictures(tiny: Bundle, held: Engine) -> None:
    found = gather(tiny, held, Request(), MADE)
    checked = _render(found)
    assert found.test is found.sensitivity is None
    assert len(found.golden) == len(tiny.golden)
    assert "What it misses is unknown without labelled test pictures" in checked.text
    assert verdict.overall(verdict.findings(found)) in ("caution", "unknown")
    assert {each["id"] for each in checked.all("section")} == {"scores", "pictures", "calibration", "provenance"}
    for part in (tiny.digest, tiny.fingerprint, tiny.teacher.sha256, held.identity, "2026-11-25"):
        assert part in checked.text


def test_without_masks_there_is_no_pixel_figure(tiny: Bundle, held: Engine, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "test", tmp_path / "test")
    found = gather(tiny, held, Request(data=tmp_path, good=tmp_path / "test" / "good", grid=GRID), MADE)
    checked = _render(found)
    assert "The data has no masks" in checked.text
    assert "PRO" not in checked.text
    assert "true defect outlined" not in page.render(found)
    assert "2 of the given pictures of good parts" in checked.text


def test_test_pictures_that_were_trained_on_are_told(tiny: Bundle, held: Engine, data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    source = images.pictures_in(root / "test" / "good")[0]
    seen = dataclasses.replace(tiny, trained_on=tiny.trained_on | {images.content_hash(source)})
    found = gather(seen, held, Request(data=root, grid=GRID), MADE)
    assert "The student was trained on 1 of the test pictures: the figures flatter." in _render(found).text
    assert verdict.overall(verdict.findings(found)) == "bad"


def _sample(kind: str, number: int) -> images.Sample:
    return images.Sample(path=Path(f"{kind}/{number}.png"), kind=kind, mask=None)


def test_the_worst_come_first_and_the_typical_is_the_median() -> None:
    samples = [_sample(kind, number) for kind in ("crack", "good") for number in range(5)]
    scores = np.array([0.5, 0.9, 0.3, 2.0, 1.0, 0.1, 1.4, 0.2, 3.0, 1.0])
    assert cases.worst_escapes(samples, scores, 1.0) == [2, 0, 1, 4]  # what equals the threshold passes
    assert cases.worst_false_rejects(samples, scores, 1.0) == [8, 6]
    assert cases.typical(samples, scores) == [9, 1]


def test_an_outline_lies_outside_of_the_defect() -> None:
    picture = np.full((60, 80, 3), 90, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:30, 30:50] = True
    drawn = cases.outline(picture, mask)
    assert (drawn[mask] == 90).all()
    assert (drawn == 255).any()
    assert (cases.outline(picture, None) == picture).all()


@pytest.mark.parametrize(
    ("missed", "rejected", "pictures", "statuses"),
    [
        (0, 0, 400, ["good", "good", "good"]),
        (2, 0, 400, ["good", "caution", "good"]),
        (6, 0, 4, ["caution", "bad", "good"]),
        (0, 7, 400, ["good", "good", "bad"]),  # 7 of 7 good ones: they differ from the held-out ones
    ],
)
def test_the_verdict_follows_from_promise_and_test(
    figures: Figures, missed: int, rejected: int, pictures: int, statuses: list[str]
) -> None:
    assert figures.test is not None
    measured = dataclasses.replace(figures.test.evaluation, escape_rate=missed / 7, false_reject_rate=rejected / 7)
    made = conformal.calibrate(np.linspace(0.1, 0.2, pictures), 0.01, engine="e", fingerprint="f")
    assert figures.test.unlike, "the cells are of another module, and look otherwise"
    test = dataclasses.replace(figures.test, evaluation=measured, unlike=())
    changed = dataclasses.replace(figures, calibration=made, test=test)
    assert [each.status for each in verdict.findings(changed)] == statuses
    assert f"Missed {missed} of 7 defective test parts and rejected {rejected} of 7" in verdict.headline(changed)


def test_the_command_writes_the_page(tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "report.html"
    assert command.main(["report", str(tiny.path), "--output", str(output), "--engine", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    Checked(output.read_text())
    assert [each.name for each in output.parent.iterdir()] == ["report.html"]
    assert command.main(["report", str(tiny.path), "--output", str(tmp_path), "--engine", "cpu"]) == 2
    assert f"{tmp_path}: a page cannot be written there" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("option", "strides", "told"),
    [
        ({}, (4, 8, 16), "The three scales add up to the heat map; each is shown on a third of the threshold."),
        ({"scales": (2, 3)}, (8, 16), "The two scales add up to the heat map; each is shown on half of the threshold."),
        ({"scales": (1,)}, (4,), "One scale alone counts, and is the heat map."),
        ({"combine": "multiply"}, (4, 8, 16), "The three scales multiply to the heat map, before they are smoothed;"),
    ],
)
def test_the_page_shows_the_scales_that_count_and_how_they_combine(
    option: dict[str, Any],
    strides: tuple[int, ...],
    told: str,
    tiny: Bundle,
    good_folder: Path,
    lite0: teacher.Teacher,
    tmp_path: Path,
) -> None:
    job = train.Job(
        good=good_folder,
        product="cell",
        output=tmp_path / "cell",
        recipe=dataclasses.replace(tiny.recipe, steps=1, **option),
    )
    engine = Engine(lite0, device="cpu")
    made = bundle.load(train.train(job, lite0, device="cpu").path, engine)
    figures = gather(made, engine, Request(), MADE)
    assert {tuple(stride for stride, _ in case.scales) for case in figures.golden} == {strides}
    text = " ".join(_render(figures).text.split())
    assert told in text
    assert f"stride {strides[0]} px" in text
