"""revdist.report.gather: the figures of a report, with and without test pictures and masks"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from report_pages import GRID, MADE, read_page

from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.evaluation import evaluate
from revdist.report import page, verdict
from revdist.report.gather import Figures, ReportRequest, gather


def test_the_figures_are_those_of_evaluate(figures: Figures, held: Engine, tiny: Bundle, data: Path) -> None:
    calibration = tiny.calibration(held.identity)
    expected = evaluate.evaluate(held, tiny.product, calibration, data)
    assert figures.test is not None
    found = dataclasses.replace(figures.test.evaluation, images_per_second=expected.images_per_second)
    assert found == expected
    assert expected.pro is not None
    text = read_page(figures).text
    for shown in (f"{expected.image_auroc:.3f}", f"{expected.pro:.3f}", f"{expected.escape_rate:.1%}"):
        assert shown in text
    inspected = figures.test.inspected
    passed = inspected.defective & (inspected.scores <= calibration.threshold)
    assert figures.test.missed == passed.sum()
    assert f"Missed {passed.sum()} of 7 defective test parts" in text


def test_without_data_the_page_shows_the_promise_and_the_golden_pictures(tiny: Bundle, held: Engine) -> None:
    found = gather(tiny, held, ReportRequest(), MADE)
    checked = read_page(found)
    assert found.test is found.sensitivity is None
    assert len(found.golden) == len(tiny.golden)
    assert "What it misses is unknown without labelled test pictures" in checked.text
    assert verdict.overall(verdict.findings(found)) in ("caution", "unknown")
    assert {each["id"] for each in checked.all("section")} == {"scores", "pictures", "calibration", "provenance"}
    for part in (tiny.digest, tiny.fingerprint, tiny.teacher.sha256, held.identity, "2026-11-25"):
        assert part in checked.text


def test_without_masks_there_is_no_pixel_figure(tiny: Bundle, held: Engine, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "test", tmp_path / "test")
    found = gather(tiny, held, ReportRequest(data=tmp_path, good=tmp_path / "test" / "good", grid=GRID), MADE)
    checked = read_page(found)
    assert "The data has no masks" in checked.text
    assert "PRO" not in checked.text
    assert "true defect outlined" not in page.render(found)
    assert "2 of the given pictures of good parts" in checked.text


def test_test_pictures_that_were_trained_on_are_told(tiny: Bundle, held: Engine, data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    source = images.pictures_in(root / "test" / "good")[0]
    seen = dataclasses.replace(tiny, trained_on=tiny.trained_on | {images.content_hash(source)})
    found = gather(seen, held, ReportRequest(data=root, grid=GRID), MADE)
    assert "The student was trained on 1 of the test pictures: the figures flatter." in read_page(found).text
    assert verdict.overall(verdict.findings(found)) == "bad"
