"""Charts as inline SVG: pure functions from numbers to markup, coloured by the page's style sheet.

Histograms stretch with the page and so have percentages across; curves keep their shape and have a view box. Units in
the code: user units of the view box, which are about a pixel on a phone. Nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from revdist.report.markup import Markup, join, tag

Numbers = npt.NDArray[np.float64]

BINS = 44  # about so many
ROW, LABEL, BARS, TOP, AXIS = 62, 18, 34, 22, 40  # heights of a histogram's parts
CUT = 0.98  # quantile of all scores that still has a place of its own; what is higher goes into the last bar
WIDTH, HEIGHT = 360, 300  # of a curve's view box
LEFT, RIGHT, UPPER, LOWER = 50, 14, 14, 46  # its margins
POINTS = 240  # of a drawn curve, at most


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A histogram of one group of pictures."""

    name: str
    values: Numbers  # scores in multiples of the threshold
    defective: bool  # whether they should be over it
    note: str  # at the right


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of measured rates with their intervals, all 0..1."""

    name: str
    rates: Sequence[float]
    intervals: Sequence[tuple[float, float]]


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers from low to high, steps of 1, 2 or 5 times a power of ten, about as many as wanted."""
    step = round_step((high - low) / max(1, wanted))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.10g}") for place in range(first, last + 1)]


def round_step(rough: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not smaller; 1 for nothing."""
    if not rough > 0 or not math.isfinite(rough):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Bars (edge, edge + step] of which one ends at the threshold, 1: what is over it is in a bar beyond."""

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
        """Where a value is from left to right, in percent."""
        return 100 * (value - self.low) / (self.high - self.low)

    def counts(self, values: Numbers) -> npt.NDArray[np.int64]:
        """How many are in each bar; those that are higher are in the last one."""
        bars = np.ceil((values - 1) / self.step).astype(np.int64) - self.first
        return np.bincount(np.clip(bars, 0, self.count - 1), minlength=self.count)


def bins(rows: Sequence[Row]) -> Bins:
    """Common bars for all rows, with some room about the threshold."""
    values = np.concatenate([np.array([0.95, 1.05]), *(row.values for row in rows)])
    low, high = float(values.min()), max(1.05, float(np.quantile(values, CUT)))
    step = round_step((high - low) / BINS)
    first = math.ceil((low - 1) / step - 1e-9) - 1
    return Bins(first=first, count=math.ceil((high - 1) / step) + 1 - first, step=step)


def histograms(rows: Sequence[Row], title: str) -> Markup:
    """A row of bars for each group over one axis, in multiples of the threshold, which is a line through all."""
    across = bins(rows)
    height = TOP + ROW * len(rows) + AXIS
    base = TOP + ROW * len(rows)
    line = f"{across.place(1):.3f}%"
    parts = [
        tag("title", title),
        _hatching(),
        *(_row(row, across, TOP + ROW * index) for index, row in enumerate(rows)),
        tag("line", class_="threshold", x1=line, x2=line, y1=TOP - 4, y2=base),
        tag("text", "threshold", class_="threshold-name", x=line, y=12, text_anchor="middle"),
        *_axis(across, rows, base),
    ]
    return tag("svg", *parts, class_="chart histograms", role="img", aria_label=title, width="100%", height=height)


def _hatching() -> Markup:
    stripe = tag("path", class_="stripe", d="M-1 1l2-2M0 6l6-6M5 7l2-2")
    ground = tag("rect", class_="ground", width=6, height=6)
    hatch = tag("pattern", ground, stripe, id="wrong", width=6, height=6, patternUnits="userSpaceOnUse")
    return tag("defs", hatch)


def _row(row: Row, across: Bins, top: int) -> Markup:
    bottom = top + LABEL + BARS
    counts = across.counts(row.values)
    drawn = []
    for bar in np.flatnonzero(counts):
        tall = max(2.0, BARS * float(counts[bar] / counts.max()))
        over = across.first + bar > 0
        said = f"{row.name}: {counts[bar]} at {across.low + (bar + 1) * across.step:.3g} x threshold or just below"
        drawn.append(
            tag(
                "rect",
                tag("title", said),
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


def _axis(across: Bins, rows: Sequence[Row], base: int) -> list[Markup]:
    cut = any((row.values > across.high).any() for row in rows)
    parts = []
    for value in ticks(across.low, across.high, 6):
        place = across.place(value)
        anchor = "start" if place < 3 else "end" if place > 97 else "middle"
        at = f"{place:.3f}%"
        parts.append(tag("line", class_="tick", x1=at, x2=at, y1=base, y2=base + 5))
        parts.append(tag("text", f"{value:g}", class_="tick-name", x=at, y=base + 17, text_anchor=anchor))
    unit = "score in multiples of the threshold" + (" (last bar: and all higher)" if cut else "")
    return [*parts, tag("text", unit, class_="axis-name", x="50%", y=base + 34, text_anchor="middle")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Maps x from 0 to `limit` and y from 0 to 1 onto the inside of a curve's view box."""

    limit: float = 1.0

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.limit

    def y(self, value: float) -> float:
        return HEIGHT - LOWER - (HEIGHT - UPPER - LOWER) * value

    def path(self, xs: Sequence[float] | Numbers, ys: Sequence[float] | Numbers) -> str:
        return "M" + "L".join(f"{self.x(float(x)):.1f} {self.y(float(y)):.1f}" for x, y in zip(xs, ys, strict=True))


def curve(
    false: Numbers, found: Numbers, *, at: tuple[float, float], limit: float, title: str, names: tuple[str, str]
) -> Markup:
    """A curve of what is found against what is falsely found up to a limit, with the point of the threshold.

    `names`: of the x and the y axis.
    """
    plane = Plane(limit=limit)
    xs, ys = thin(false, found, limit)
    line = plane.path(xs, ys)
    x, y = plane.x(min(at[0], limit)), plane.y(at[1])
    said = f"{at[1]:.1%} at {at[0]:.1%}" + (f", beyond {limit:.0%}" if at[0] > limit else "")
    left = x > WIDTH * 0.6
    parts = [
        tag("title", title),
        *_grid(plane, [(value, f"{value:.0%}") for value in ticks(0, limit, 5)], names),
        tag("path", class_="chance", d=plane.path([0, limit], [0, limit])),
        tag("path", class_="area", d=f"{line}L{plane.x(float(xs[-1])):.1f} {plane.y(0)}L{plane.x(0)} {plane.y(0)}Z"),
        tag("path", class_="line", d=line),
        tag("circle", class_="point", cx=x, cy=y, r=6),
        tag(
            "text",
            f"threshold: {said}",
            class_="point-name",
            x=x - 11 if left else x + 11,
            y=y + 4 if y < plane.y(0) - 20 else y - 8,
            text_anchor="end" if left else "start",
        ),
    ]
    return _framed(title, parts)


def thin(false: Numbers, found: Numbers, limit: float) -> tuple[Numbers, Numbers]:
    """The curve up to a limit: as it is where it has few points, else interpolated at even distances."""
    inside = int(np.searchsorted(false, limit, side="right"))
    if inside <= POINTS:
        end = [] if inside == len(false) else [float(np.interp(limit, false, found))]
        return np.append(false[:inside], [limit] * len(end)), np.append(found[:inside], end)
    even = limit * np.linspace(0, 1, POINTS) ** 2  # closer where few are falsely found
    return even, np.interp(even, false, found)


def rates(sizes: Sequence[float], lines: Sequence[Line], *, level: float, title: str, names: tuple[str, str]) -> Markup:
    """Lines of rates over sizes, which stand at equal distances, with intervals as whiskers and a level to reach."""
    plane = Plane()
    room = len(sizes) + 0.2
    places = [(index + 0.6) / room for index in range(len(sizes))]
    parts = [
        tag("title", title),
        *_grid(plane, [(place, f"{size:g}") for place, size in zip(places, sizes, strict=True)], names),
        tag("line", class_="level", x1=plane.x(0), x2=plane.x(1), y1=plane.y(level), y2=plane.y(level)),
    ]
    for index, line in enumerate(lines):
        shift = 0.035 * (index - (len(lines) - 1) / 2)  # so that equal rates do not hide each other
        parts.append(_rate_line(plane, [place + shift for place in places], line, index))
    return _framed(title, parts)


def _rate_line(plane: Plane, places: Sequence[float], line: Line, index: int) -> Markup:
    whiskers, marks = [], []
    for place, rate, (low, high) in zip(places, line.rates, line.intervals, strict=True):
        x = plane.x(place)
        whiskers.append(tag("line", class_="whisker", x1=x, x2=x, y1=plane.y(low), y2=plane.y(high)))
        marks.append(_mark(index, x, plane.y(rate), f"{line.name}: {rate:.0%} (95 % interval {low:.0%} to {high:.0%})"))
    path = tag("path", class_="line", d=plane.path(places, line.rates)) if places else ""
    return tag("g", path, *whiskers, *marks, class_=f"series series-{index % 3}")


def _mark(index: int, x: float, y: float, said: str) -> Markup:
    """A disc, a square or a triangle."""
    title = tag("title", said)
    shapes: tuple[Callable[[], Markup], ...] = (
        lambda: tag("circle", title, class_="mark", cx=x, cy=y, r=4.5),
        lambda: tag("rect", title, class_="mark", x=x - 4, y=y - 4, width=8, height=8),
        lambda: tag("path", title, class_="mark", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"),
    )
    return shapes[index % 3]()


def key(names: Sequence[str]) -> Markup:
    """Which line is which, for `rates`."""
    entries = []
    for index, name in enumerate(names):
        drawn = tag(
            "g", tag("path", class_="line", d="M0 8h28"), _mark(index, 14, 8, name), class_=f"series series-{index % 3}"
        )
        swatch = tag("svg", drawn, class_="swatch", width=28, height=16, aria_hidden="true")
        entries.append(tag("li", swatch, f" {name}"))
    return tag("ul", *entries, class_="key")


def _grid(plane: Plane, across: Sequence[tuple[float, str]], names: tuple[str, str]) -> list[Markup]:
    """Lines and names of both axes; y runs from 0 to 100 %."""
    left, right, bottom = plane.x(0), plane.x(plane.limit), plane.y(0)
    parts = []
    for value in ticks(0, 1, 5):
        y = plane.y(value)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        parts.append(tag("text", f"{value:.0%}", class_="tick-name", x=left - 6, y=y + 4, text_anchor="end"))
    for value, name in across:
        x = plane.x(value)
        parts.append(tag("line", class_="tick", x1=x, x2=x, y1=bottom, y2=bottom + 5))
        parts.append(tag("text", name, class_="tick-name", x=x, y=bottom + 18, text_anchor="middle"))
    middle = (UPPER + bottom) / 2
    turned = f"rotate(-90 12 {middle:.1f})"
    return [
        *parts,
        tag("text", names[0], class_="axis-name", x=(left + right) / 2, y=HEIGHT - 8, text_anchor="middle"),
        tag("text", names[1], class_="axis-name", x=12, y=middle, text_anchor="middle", transform=turned),
    ]


def _framed(title: str, parts: Sequence[Markup]) -> Markup:
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", join(*parts), class_="chart plane", role="img", aria_label=title, viewBox=box)
