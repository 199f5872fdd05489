"""Turns figures into one HTML page that needs no other file and no JavaScript, and can be printed."""

from __future__ import annotations

from pathlib import Path

from revdist.errors import RevdistError
from revdist.files import folders, trouble
from revdist.report import cases, records, sections, verdict
from revdist.report.document import document
from revdist.report.gather import Figures
from revdist.report.markup import Markup, tag
from revdist.report.verdict import Finding


def check_place(path: Path) -> None:
    """Raise RevdistError, before minutes of measuring, unless a page can be written at `path`."""
    folders.check_takes_file(path, RevdistError, what="a page cannot", hint="name a file, such as report.html")


def write(path: Path, figures: Figures) -> None:
    """Write the report as one file, whole or not at all. Raises RevdistError if the file cannot be written."""
    try:
        folders.write_file(path, render(figures).encode(errors="backslashreplace"))
    except trouble.FILE_ERRORS as error:
        raise trouble.error(RevdistError, error, path, "written", hint="choose another --output") from error


def render(figures: Figures) -> Markup:
    """Build the document."""
    title = f"{figures.bundle.product}: inspection report"
    parts = _sections(figures)
    links = [tag("li", tag("a", name, href=f"#{anchor}")) for anchor, name, _ in parts]
    return document(
        title,
        tag("a", "To the figures", class_="skip", href="#main"),
        _header(figures),
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag("main", *(part for _, _, part in parts), id="main"),
        tag("footer", tag("p", f"Made by revdist {figures.revdist}. This page fetches nothing and holds no programs.")),
    )


def _sections(figures: Figures) -> list[tuple[str, str, Markup]]:
    """Return anchor, name and content of every section."""
    parts = [("scores", "Scores", sections.scores(figures))]
    if figures.test:
        parts.append(("curves", "Curves", sections.curves(figures.test)))
    parts.append(("pictures", "Pictures", sections.pictures(figures, cases.colour_bar())))
    parts.append(
        (
            "calibration",
            "Calibration",
            records.calibration(figures.calibration, figures.test, figures.bundle.recipe.holdout),
        )
    )
    if figures.sensitivity:
        drawn = sections.sensitivity(figures.sensitivity, figures.painted_on)
        parts.append(("sensitivity", "Sensitivity", drawn))
    if figures.test or figures.sensitivity:
        parts.append(("next", "What to do next", sections.what_to_do(figures)))
    parts.append(("provenance", "Provenance", records.provenance(figures)))
    return parts


def _header(figures: Figures) -> Markup:
    findings = verdict.findings(figures)
    overall = verdict.overall(findings)
    bundle = figures.bundle
    sub = f"{bundle.teacher.name} at {bundle.size[0]} x {bundle.size[1]} pixels, {figures.written_at:%d %B %Y}"
    return tag(
        "header",
        tag("p", "Inspection report", class_="kicker"),
        tag("h1", bundle.product),
        tag("p", sub, class_="sub"),
        tag(
            "div",
            tag("p", _status(overall), tag("strong", verdict.headline(figures)), class_="headline"),
            tag("ul", *(_finding(finding) for finding in findings), class_="findings"),
            class_=f"verdict {overall}",
        ),
        tag("dl", *_tiles(figures), class_="tiles"),
    )


def _status(status: verdict.Status) -> Markup:
    sign, word = verdict.WORDS[status]
    return tag("span", tag("span", sign, aria_hidden="true", class_="sign"), f" {word}", class_=f"badge {status}")


def _finding(finding: Finding) -> Markup:
    return tag("li", _status(finding.status), tag("h2", finding.subject), tag("p", finding.sentence))


def _tiles(figures: Figures) -> list[Markup]:
    """Return the figures that people ask for first."""
    calibration = figures.calibration
    tiles = []
    if figures.test:
        measured = figures.test.evaluation
        tiles += [
            ("missed defects", f"{measured.escape_rate:.1%}", f"of {measured.defective} parts"),
            ("false rejects", f"{measured.false_reject_rate:.1%}", f"of {measured.good} parts"),
            ("image AUROC", f"{measured.image_auroc:.3f}", "chance 0.5, perfect 1"),
        ]
        if measured.pro is not None:
            tiles.append(("PRO", f"{measured.pro:.3f}", "up to 30% false pixels"))
    tiles += [
        ("promise on average", f"≤\N{NO-BREAK SPACE}{calibration.attained_rate:.2%}", "of good parts rejected"),
        ("promise, 95% sure", f"≤\N{NO-BREAK SPACE}{calibration.bound95:.2%}", "of good parts rejected"),
    ]
    return [
        tag("div", tag("dt", name), tag("dd", tag("strong", value), tag("span", unit))) for name, value, unit in tiles
    ]
