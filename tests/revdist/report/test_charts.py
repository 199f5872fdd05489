"""revdist.report.charts, planes and markup: numbers to SVG"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from revdist.report import charts, planes
from revdist.report.charts import ChartRow, Range
from revdist.report.markup import Markup, join, tag, text
from revdist.report.planes import Line

NAMES = ("false", "found")


def _row(values: list[float], *, name: str = "crack", defective: bool = True) -> ChartRow:
    return ChartRow(name=name, values=np.array(values, np.float64), defective=defective, note="note")


def _bars(svg: Markup, kind: str) -> list[ElementTree.Element]:
    return [each for each in ElementTree.fromstring(svg).iter("rect") if each.get("class") == kind]


def test_text_from_outside_is_escaped_and_markup_is_not() -> None:
    nasty = "<script>&\"'"
    assert text(nasty) == "&lt;script&gt;&amp;&quot;&#x27;"
    assert tag("p", nasty, title=nasty) == f'<p title="{text(nasty)}">{text(nasty)}</p>'
    assert tag("p", join("a<b", tag("br")), class_="x", stroke_width=1.5, id=None) == (
        '<p class="x" stroke-width="1.5">a&lt;b<br></p>'
    )


def test_numbers_in_attributes_are_short() -> None:
    assert tag("circle", cx=1 / 3, r=2.0, cy=3) == '<circle cx="0.333" r="2" cy="3"></circle>'


@pytest.mark.parametrize(
    ("low", "high", "wanted", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.62, 1.93, 6, [1, 1.5]),
        (0, 0.3, 5, [0, 0.1, 0.2, 0.3]),
        (2, 2, 4, [2]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, wanted: int, expected: list[float]) -> None:
    assert charts.ticks(low, high, wanted) == expected


@pytest.mark.parametrize(("rough", "step"), [(0.3, 0.5), (0.5, 0.5), (0.51, 1), (7, 10), (0, 1), (float("nan"), 1)])
def test_steps_are_one_two_or_five(rough: float, step: float) -> None:
    assert charts.round_step(rough) == pytest.approx(step)


def test_a_bar_ends_at_the_threshold_and_what_equals_it_is_not_over_it() -> None:
    values = np.array([0.5, 1.0, np.nextafter(1.0, 2), 1.4])
    across = charts.bins([_row(values.tolist())])
    counts = across.counts(values)
    over = np.arange(across.count) + across.first > 0
    assert counts[over].sum() == 2
    assert counts.sum() == 4
    assert across.low <= 0.5
    assert across.high >= 1.05
    assert across.place(across.low) == 0
    assert across.place(across.high) == pytest.approx(100)


def test_scores_far_out_are_in_the_last_bar_and_the_axis_says_so() -> None:
    row = _row([*np.linspace(0.5, 1.5, 200).tolist(), 40.0])
    across = charts.bins([row])
    assert across.high < 2
    assert across.counts(row.values)[-1] >= 1
    assert across.counts(row.values).sum() == 201
    assert "all higher ones" in charts.histograms([row], "scores")
    assert "all higher ones" not in charts.histograms([_row([0.5, 1.5])], "scores")


def test_bars_on_the_wrong_side_are_marked() -> None:
    svg = charts.histograms([_row([0.5, 0.5, 2.0]), _row([0.5, 2.0], name="good", defective=False)], "scores")
    assert len(_bars(svg, "wrong")) == 2  # the escapes at 0.5, the false reject at 2
    assert len(_bars(svg, "right")) == 2


@pytest.mark.parametrize("values", [[], [1.0], [0.7, 0.7, 0.7], [0.0]])
def test_histograms_of_nothing_and_of_one_value_are_drawn(values: list[float]) -> None:
    svg = charts.histograms([_row(values)], "scores")
    assert len(_bars(svg, "right") + _bars(svg, "wrong")) == bool(values)
    assert "nan" not in svg


def test_names_from_outside_are_escaped_and_long_ones_cut() -> None:
    svg = charts.histograms([_row([1.2], name="<b>&" + "x" * 40)], 'a "title"')
    ElementTree.fromstring(svg)
    assert "<b>" not in svg
    assert "…" in svg


def test_a_curve_shows_its_points_and_the_threshold() -> None:
    false, found = np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.0, 0.6, 0.9, 1.0])
    svg = planes.curve(false, found, at=(0.5, 0.9), limit=1.0, title="ROC", names=NAMES)
    root = ElementTree.fromstring(svg)
    line = next(each.get("d") for each in root.iter("path") if each.get("class") == "line")
    assert line is not None
    assert len(re.findall(r"[ML]", line)) == 4
    point = next(root.iter("circle"))
    plane = planes.Plane()
    assert (float(point.get("cx", 0)), float(point.get("cy", 0))) == pytest.approx(
        (plane.x(0.5), plane.y(0.9)), abs=0.1
    )
    assert "threshold: 90.0% found, 50.0% false" in svg


def test_a_long_curve_is_thinned_and_ends_at_the_limit() -> None:
    false = np.linspace(0, 1, 10_001)
    xs, ys = planes.thin(false, np.sqrt(false), 0.3)
    assert len(xs) == planes.POINTS
    assert (xs[0], xs[-1]) == (0, pytest.approx(0.3))
    np.testing.assert_allclose(ys, np.sqrt(xs), atol=5e-3)
    xs, ys = planes.thin(np.array([0.0, 0.2, 0.4]), np.array([0.0, 0.5, 1.0]), 0.3)
    assert xs.tolist() == pytest.approx([0, 0.2, 0.3])
    assert ys.tolist() == pytest.approx([0, 0.5, 0.75])


def test_an_operating_point_beyond_the_limit_is_told() -> None:
    ones = np.array([0.0, 1.0])
    assert "beyond 30%" in planes.curve(ones, ones, at=(0.7, 0.7), limit=0.3, title="PRO", names=NAMES)


@pytest.mark.parametrize("sizes", [[], [4.0], [4.0, 8.0, 16.0]])
def test_rates_have_a_mark_and_a_whisker_for_each_size(sizes: list[float]) -> None:
    lines = [
        Line(name=name, rates=[0.5] * len(sizes), intervals=[(0.3, 0.7)] * len(sizes))
        for name in ("a", "b", "<c>", "d")
    ]
    root = ElementTree.fromstring(planes.rates(sizes, lines, level=0.9, title="seen", names=NAMES))
    assert sum(each.get("class") == "mark" for each in root.iter()) == 4 * len(sizes)
    assert sum(each.get("class") == "whisker" for each in root.iter()) == 4 * len(sizes)
    assert "&lt;c&gt;" in planes.key([line.name for line in lines])


def test_ranges_are_bars_of_their_share_of_the_axis() -> None:
    rows = [
        Range(name="bound", value=None, low=0, high=0.04, note="4%"),
        Range(name="<b>", value=0.02, low=0.01, high=0.03, note=""),
    ]
    svg = charts.ranges(rows, 0.01, "rates")
    bars = _bars(svg, "range")
    assert [(bar.get("x"), bar.get("width")) for bar in bars] == [("0.000%", "80.000%"), ("20.000%", "40.000%")]
    assert sum(each.get("class") == "value" for each in ElementTree.fromstring(svg).iter()) == 1
    assert "&lt;b&gt;" in svg
    ElementTree.fromstring(charts.ranges([], 0.01, "nothing"))
