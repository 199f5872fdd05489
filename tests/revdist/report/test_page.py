"""revdist.report.page: one page without programs, which all can read"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import MADE, NASTY, Checked, read_page

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import command
from revdist.engines.engine import Engine
from revdist.networks import teacher
from revdist.report import page
from revdist.report.gather import Figures, ReportRequest, gather
from revdist.training import train


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
    assert f"{NASTY}/" in read_page(figures).text


def test_sensitivity_is_called_synthetic(figures: Figures) -> None:
    text = read_page(figures).text
    assert "SYNTHETIC defects painted on 2 of the good test pictures" in text
    assert "contrast 30%" in text


def test_the_command_writes_the_page(tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "report.html"
    assert command.main(["report", str(tiny.path), "--output", str(output), "--engine", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    Checked(output.read_text())
    assert [each.name for each in output.parent.iterdir()] == ["report.html"]
    assert command.main(["report", str(tiny.path), "--output", str(tmp_path), "--engine", "cpu"]) == 2
    assert f"{tmp_path}: a page cannot be written there" in capsys.readouterr().err


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
    figures = gather(made, engine, ReportRequest(), MADE)
    assert {tuple(stride for stride, _ in case.scales) for case in figures.golden} == {strides}
    text = " ".join(read_page(figures).text.split())
    assert told in text
    assert f"stride {strides[0]} px" in text
