"""Builds the sections of a report on what was measured: scores, curves, pictures and sensitivity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revdist.evaluation import advice, heatmaps, measures, what_if
from revdist.evaluation.advice import Advice
from revdist.evaluation.sensitivity import DETECTED, Sensitivity
from revdist.evaluation.what_if import Choice
from revdist.report import charts, planes
from revdist.report.cases import Case
from revdist.report.charts import ChartRow
from revdist.report.gather import Figures, Test
from revdist.report.markup import Content, Markup, join, section, table, tag
from revdist.report.planes import Line
from revdist.scoring import detector


def scores(figures: Figures) -> Markup:
    """Show histograms of all groups of pictures, and a table of the same scores."""
    groups = _groups(figures)
    lead = (
        "Every picture has one score, the highest value of its anomaly map. Over the threshold it is rejected. "
        "Hollow bars are on the wrong side. Each row has its own height."
    )
    rows = [
        (row.name, str(len(row.values)), f"{np.median(row.values):.2f}", f"{row.values.max():.2f}", row.note)
        for row in groups
    ]
    heads = ("pictures", "number", "median score (x threshold)", "highest (x threshold)", "at the threshold")
    return section(
        "scores",
        "Scores",
        tag("p", lead),
        charts.histograms(groups, "Scores of each group of pictures in multiples of the threshold"),
        tag("details", tag("summary", "In numbers"), table("Scores", heads, rows)),
    )


def what_to_do(figures: Figures) -> Markup:
    """Show what other thresholds would do to the test pictures, and what to do next, with the evidence."""
    parts: list[Content] = []
    test, threshold = figures.test, figures.calibration.threshold
    advices: list[Advice] = []
    if test is not None:
        inspected = test.inspected
        choices = what_if.choices(inspected.defective, inspected.scores, threshold)
        auroc = test.evaluation.image_auroc
        advices = advice.of_test(inspected, figures.calibration, figures.bundle.recipe, auroc, choices)
        lead = (
            "What other thresholds would do to the test pictures. One that is chosen here must be proven with others."
        )
        heads = ("threshold", "good rejected", "95 % interval", "defects missed", "which")
        parts += [tag("p", lead), table("What if", heads, [_choice(choice) for choice in choices])]
    elif figures.sensitivity is not None:
        advices = advice.of_sensitivity(figures.sensitivity, figures.calibration, figures.bundle.recipe)
    items = [
        tag("li", tag("strong", found.do), f": {found.evidence}. ", tag("code", found.command.replace("`", "")))
        for found in advices
    ]
    parts.append(tag("ul", *items) if items else tag("p", "Nothing that these pictures ask for.", class_="quiet"))
    return section("next", "What to do next", *parts)


def _choice(choice: Choice) -> tuple[str, ...]:
    low, high = choice.interval
    shares = f"{choice.rejected} of {choice.good}", f"{low:.1%} to {high:.1%}", f"{choice.missed} of {choice.defective}"
    return f"{choice.threshold:.4g}", *shares, choice.name


def _groups(figures: Figures) -> list[ChartRow]:
    threshold = figures.calibration.threshold
    held_out = figures.calibration.scores
    over = int((held_out > threshold).sum())
    rows = [
        ChartRow(name="held-out good", values=held_out / threshold, defective=False, note=_noted(over, len(held_out)))
    ]
    if figures.test is None:
        return rows
    inspected = figures.test.inspected
    kinds = sorted({sample.kind for sample in inspected.samples}, key=lambda kind: (kind != "good", kind))
    for kind in kinds:
        kind_scores = inspected.scores[[sample.kind == kind for sample in inspected.samples]]
        good = kind == "good"
        wrong = int((kind_scores > threshold).sum() if good else (kind_scores <= threshold).sum())
        note = (
            _noted(wrong, len(kind_scores))
            if good
            else f"{wrong} of {len(kind_scores)} missed ({wrong / len(kind_scores):.0%})"
        )
        rows.append(
            ChartRow(name="test good" if good else kind, values=kind_scores / threshold, defective=not good, note=note)
        )
    return rows


def _noted(rejected: int, total: int) -> str:
    return f"{rejected} of {total} rejected ({rejected / total:.0%})"


def curves(test: Test) -> Markup:
    """Show the ROC curve of pictures and the PRO curve of pixels, with areas and the points of the threshold."""
    inspected, measured = test.inspected, test.evaluation
    roc = measures.roc_curve(inspected.defective, inspected.scores)
    names = ("good pictures rejected", "defective pictures rejected")
    drawn = planes.curve(
        roc.false, roc.detected, at=roc.at(measured.threshold), limit=1.0, title="ROC curve of pictures", names=names
    )
    figures = [_figure(drawn, "ROC, pictures", f"area {measured.image_auroc:.3f} (image AUROC; chance is 0.5)")]
    pixelwise = inspected.pixelwise
    if pixelwise is None:
        unmasked = tag("p", "The data has no masks: where defects lie was not measured.", class_="quiet")
        return section("curves", "Curves", tag("div", *figures, class_="pair"), unmasked)
    assert measured.pro is not None
    assert measured.pro_per_image is not None
    assert measured.pixel_auroc is not None
    names = ("good pixels marked", "mean overlap with defects")
    overlap = pixelwise.pro_curve
    drawn = planes.curve(
        overlap.false,
        overlap.detected,
        at=overlap.at(measured.threshold),
        limit=measures.FPR_LIMIT,
        title="PRO curve of pixels",
        names=names,
    )
    areas = (
        f"area {measured.pro:.3f} up to {measures.FPR_LIMIT:.0%}; pixel AUROC {measured.pixel_auroc:.3f}; "
        f"PRO per image (another measure) {measured.pro_per_image:.3f}"
    )
    figures.append(_figure(drawn, "PRO, pixels", areas))
    return section("curves", "Curves", tag("div", *figures, class_="pair"))


def _figure(drawn: Markup, title: str, told: str) -> Markup:
    return tag("figure", tag("figcaption", tag("strong", title), tag("span", told)), drawn)


def pictures(figures: Figures, colour_bar: str) -> Markup:
    """Show the worst and the typical test pictures; without a test, the golden pictures."""
    ends = (f"{heatmaps.TRANSPARENT:g} x", "threshold", f"{heatmaps.SATURATED:g} x")
    legend = tag(
        "figure",
        tag(
            "img",
            src=colour_bar,
            alt="Colours from clear over blue and, at the threshold, purple to orange",
            width=320,
            height=20,
        ),
        tag("figcaption", *(tag("span", end) for end in ends)),
        class_="legend",
    )
    lead = (
        "For each part: the picture and its heat map, then the map of each scale. Heat maps share one scale, the "
        f"threshold, so they can be compared. {_scales(detector.Scoring.of(figures.bundle.recipe))} "
        "A yellow line is where the map is over the threshold. "
        "A white line on black marks the true defect where there is a mask. p is the share of good "
        "parts that score at least as high, as far as the held-out ones can tell."
    )
    test = figures.test
    if test is None:
        note = "Pictures of the bundle itself: held-out good ones, and the same with a painted (synthetic) scratch."
        groups = [_cases("Golden pictures", note, figures.golden, "")]
    else:
        groups = [
            _cases("Worst misses", _of(test.escapes, test.missed), test.escapes, "No defective test part was missed."),
            _cases(
                "Worst false rejects",
                _of(test.false_rejects, test.rejected),
                test.false_rejects,
                "No good test part was rejected.",
            ),
            _cases("Typical parts", "The picture with the median score of each kind.", test.typical, ""),
        ]
    return section("pictures", "Pictures", tag("p", lead), legend, *groups)


def _scales(scoring: detector.Scoring) -> str:
    """Explain how the maps of the scales make the heat map, and how they are coloured."""
    count = len(scoring.scales)
    if count == 1:
        return "One scale alone counts, and is the heat map."
    number = {2: "two", 3: "three"}[count]
    rest = "" if count == len(detector.STRIDES) else " The scale that is not shown does not count."
    if scoring.combine == "add":
        part = {2: "half", 3: "a third"}[count]
        return f"The {number} scales add up to the heat map; each is shown on {part} of the threshold.{rest}"
    root = {2: "square", 3: "cube"}[count]
    return (
        f"The {number} scales multiply to the heat map, before they are smoothed; each is shown smoothed and on the "
        f"{root} root of the threshold.{rest}"
    )


def _of(shown: Sequence[Case], total: int) -> str:
    return f"The {len(shown)} furthest from the threshold, of {total}." if total > len(shown) else ""


def _cases(title: str, told: str, shown: Sequence[Case], none: str) -> Markup:
    content = tag("div", *(_case(case) for case in shown), class_="cases") if shown else tag("p", none, class_="quiet")
    return join(tag("h3", title), tag("p", told) if told else "", content)


def _case(case: Case) -> Markup:
    right = case.rejected == case.defective
    word = ("found" if case.rejected else "missed") if case.defective else ("rejected" if case.rejected else "passed")
    badge = tag("span", f"{'✓' if right else '✕'} {word}", class_="badge good" if right else "badge bad")
    outlined = ", true defect outlined" if case.outlined else ""
    shape_name = "wide" if case.width > 1.5 * case.height else "tall" if case.height > 1.5 * case.width else "square"
    shape = {"width": case.width, "height": case.height}
    small = [
        tag(
            "figure",
            tag("img", src=scale_map, alt=f"Map of {case.name} at stride {stride}", **shape),
            tag("figcaption", f"stride {stride} px"),
        )
        for stride, scale_map in case.scales
    ]
    return tag(
        "figure",
        tag(
            "div",
            tag("img", src=case.picture, alt=f"Picture {case.name}{outlined}", **shape),
            tag("img", src=case.heat, alt=f"Heat map of {case.name}{outlined}", **shape),
            class_=f"views {shape_name}",
        ),
        tag("div", *small, class_="scales"),
        tag(
            "figcaption",
            tag("span", case.name, class_="file"),
            badge,
            tag("span", f"{case.times:.2f} x threshold, p {case.p_value:.3f}", class_="figure"),
        ),
        class_="case",
    )


def sensitivity(measured: Sensitivity, painted_on: str) -> Markup:
    """Show the detection of painted defects by kind, size and contrast."""
    sizes = sorted({probe.size_px for probe in measured.probes})
    contrasts = sorted({probe.contrast for probe in measured.probes})
    names = [f"contrast {contrast:.0%}" for contrast in contrasts]
    lead = (
        f"SYNTHETIC defects painted on {measured.pictures} of {painted_on}: a probe of what is surely too small or too "
        f"faint, no measure of real defects. Whiskers are 95% intervals; the dotted line is {DETECTED:.0%}. "
        f"{measured.clean_rejected} of the {measured.pictures} are rejected with nothing painted."
    )
    kinds = list(dict.fromkeys(probe.kind for probe in measured.probes))
    drawn = []
    rows: list[list[Content]] = []
    for kind in kinds:
        lines = []
        for contrast, name in zip(contrasts, names, strict=True):
            probes = sorted(
                (probe for probe in measured.probes if (probe.kind, probe.contrast) == (kind, contrast)),
                key=lambda probe: probe.size_px,
            )
            lines.append(
                Line(name=name, rates=[probe.rate for probe in probes], intervals=[probe.interval for probe in probes])
            )
            smallest = measured.smallest(kind, contrast)
            rows.append(
                [
                    f"{kind}, {name}",
                    *(f"{probe.rate:.0%}" for probe in probes),
                    f"{smallest:g} px" if smallest else "none",
                ]
            )
        title = f"Detected synthetic defects: {kind}"
        chart = planes.rates(sizes, lines, level=DETECTED, title=title, names=("size, pixels of the input", "detected"))
        drawn.append(_figure(chart, f"{kind} (synthetic)", ""))
    heads = ["synthetic defect", *(f"{size:g} px" for size in sizes), f"{DETECTED:.0%} from"]
    numbers = tag("details", tag("summary", "In numbers"), table("Detected synthetic defects", heads, rows))
    return section(
        "sensitivity",
        "Sensitivity to synthetic defects",
        tag("p", lead),
        planes.key(names),
        tag("div", *drawn, class_="pair"),
        numbers,
    )
