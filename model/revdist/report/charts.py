"""Charts that stretch with the page, as inline SVG: pure functions from numbers to markup, coloured by the style sheet.

Horizontal units are percent, vertical units pixels, so that text keeps its size. Colour alone never carries meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from revdist.report.markup import Markup, tag

Numbers = npt.NDArray[np.float64]

BINS = 44  # about so many
ROW, LABEL, BARS, TOP, AXIS = 66, 22, 34, 22, 56  # heights of a histogram's parts, pixels
RANGE = 40  # height of a range's row, pixels
CUT = 0.98  # quantile of all scores up to which scores have bars of their own; higher ones share the last bar


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChartRow:
    """A histogram of one group of pictures."""

    name: str
    values: Numbers  # scores in multiples of the threshold
    defective: bool  # whether the scores should be over the threshold
    note: str  # shown at the right


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return about `wanted` round numbers from low to high, in steps of 1, 2 or 5 times a power of ten."""
    step = round_step((high - low) / max(1, wanted))
    first_step, last_step = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.10g}") for place in range(first_step, last_step + 1)]


def round_step(rough: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten; return 1 for a step that is not positive and finite."""
    if not rough > 0 or not math.isfinite(rough):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Bars (edge, edge + step]. One bar ends at the threshold, 1, so that scores over it are in later bars."""

    first: int  # number of the lowest bar; bar 0 ends at 1
    count: int
    step: float

    @property
    def low(self) -> float:
        return 1 + (self.first - 1) * self.step

    @property
    def high(self) -> float:
        return self.low + self.count * self.step

    def place(self, value: float) -> float:
        """Return the place of a value from left to right, in percent."""
        return 100 * (value - self.low) / (self.high - self.low)

    def counts(self, values: Numbers) -> npt.NDArray[np.int64]:
        """Count the values in each bar; the last bar also counts all higher values."""
        bars = np.ceil((values - 1) / self.step).astype(np.int64) - self.first
        return np.bincount(np.clip(bars, 0, self.count - 1), minlength=self.count)


def bins(rows: Sequence[ChartRow]) -> Bins:
    """Return common bars for all rows, with some room around the threshold."""
    values = np.concatenate([np.array([0.95, 1.05]), *(row.values for row in rows)])
    low, high = float(values.min()), max(1.05, float(np.quantile(values, CUT)))
    step = round_step((high - low) / BINS)
    first = math.ceil((low - 1) / step - 1e-9) - 1
    return Bins(first=first, count=math.ceil((high - 1) / step) + 1 - first, step=step)


def histograms(rows: Sequence[ChartRow], title: str) -> Markup:
    """Draw a row of bars for each group over one axis in multiples of the threshold, which is a line through all."""
    across = bins(rows)
    height = TOP + ROW * len(rows) + AXIS
    base = TOP + ROW * len(rows)
    place = across.place(1)
    line = f"{place:.3f}%"
    parts = [
        tag("title", title),
        tag("line", class_="threshold", x1=line, x2=line, y1=TOP - 4, y2=base),
        tag("text", "threshold", class_="threshold-name", x=line, y=12, text_anchor="end" if place > 85 else "middle"),
        *(_row(row, across, TOP + ROW * index) for index, row in enumerate(rows)),
        *_axis(across, rows, base),
    ]
    return tag("svg", *parts, class_="chart histograms", role="img", aria_label=title, width="100%", height=height)


def _row(row: ChartRow, across: Bins, top: int) -> Markup:
    bottom = top + LABEL + BARS
    counts = across.counts(row.values)
    drawn = []
    for bar in np.flatnonzero(counts):
        tall = max(2.0, BARS * float(counts[bar] / counts.max()))
        over = across.first + bar > 0
        tooltip = f"{row.name}: {counts[bar]} at {across.low + (bar + 1) * across.step:.3g} x threshold or just below"
        drawn.append(
            tag(
                "rect",
                tag("title", tooltip),
                class_="right" if over == row.defective else "wrong",
                x=f"{100 * bar / across.count:.3f}%",
                width=f"{94 / across.count:.3f}%",
                y=bottom - tall,
                height=tall,
            )
        )
    return tag(
        "g",
        tag("text", _short(row.name), tag("tspan", f"  {len(row.values)}"), class_="name", x="0", y=top + 13),
        tag("text", row.note, class_="note", x="100%", y=top + 13, text_anchor="end"),
        tag("line", class_="base", x1="0", x2="100%", y1=bottom, y2=bottom),
        *drawn,
    )


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _axis(across: Bins, rows: Sequence[ChartRow], base: int) -> list[Markup]:
    cut = any((row.values > across.high).any() for row in rows)
    parts = []
    for value in ticks(across.low, across.high, 9):
        place = across.place(value)
        anchor = "start" if place < 3 else "end" if place > 97 else "middle"
        at = f"{place:.3f}%"
        parts.append(tag("line", class_="tick", x1=at, x2=at, y1=base, y2=base + 5))
        parts.append(tag("text", f"{value:g}", class_="tick-name", x=at, y=base + 17, text_anchor=anchor))
    axis_lines = ["score in multiples of the threshold", *(["the last bar also holds all higher ones"] if cut else [])]
    for line, words in enumerate(axis_lines):
        parts.append(tag("text", words, class_="axis-name", x="50%", y=base + 34 + 16 * line, text_anchor="middle"))
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A rate with its interval, all 0..1; without a value, a bound from 0 to `high`."""

    name: str
    value: float | None
    low: float
    high: float
    note: str


def ranges(rows: Sequence[Range], wanted: float, title: str) -> Markup:
    """Draw a bar for each range and a dot for its value over one axis of rates, with a line at the wanted rate."""
    highest = 1.02 * max([wanted, *(row.high for row in rows)])
    step = round_step(highest / 5)
    top = math.ceil(highest / step) * step
    base = TOP + RANGE * len(rows)

    def at(rate: float) -> str:
        return f"{100 * rate / top:.3f}%"

    drawn = [tag("line", class_="threshold", x1=at(wanted), x2=at(wanted), y1=TOP - 4, y2=base)]
    for index, row in enumerate(rows):
        y = TOP + RANGE * index
        bar = tag("rect", class_="range", x=at(row.low), width=at(row.high - row.low), y=y + 20, height=8, rx=4)
        dot = "" if row.value is None else tag("circle", class_="value", cx=at(row.value), cy=y + 24, r=5.5)
        name = tag("text", row.name, class_="name", x="0", y=y + 13)
        note = tag("text", row.note, class_="note", x="100%", y=y + 13, text_anchor="end")
        drawn.append(
            tag("g", name, note, tag("line", class_="base", x1="0", x2="100%", y1=y + 24, y2=y + 24), bar, dot)
        )
    for rate in ticks(0, top, 5):
        anchor = "start" if rate == 0 else "end" if rate > 0.97 * top else "middle"
        drawn.append(tag("line", class_="tick", x1=at(rate), x2=at(rate), y1=base, y2=base + 5))
        drawn.append(tag("text", f"{100 * rate:g}%", class_="tick-name", x=at(rate), y=base + 17, text_anchor=anchor))
    side = "end" if wanted > 0.85 * top else "middle" if wanted > 0.15 * top else "start"
    drawn += [
        tag("text", f"wanted {wanted:.2%}", class_="threshold-name", x=at(wanted), y=12, text_anchor=side),
        tag("text", "share of good parts rejected", class_="axis-name", x="50%", y=base + 34, text_anchor="middle"),
    ]
    parts = (tag("title", title), *drawn)
    return tag("svg", *parts, class_="chart ranges", role="img", aria_label=title, width="100%", height=base + AXIS)
