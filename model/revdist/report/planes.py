"""Draws charts that keep their shape as inline SVG: curves, and rates over a plane. Pure functions, numbers to markup.

Units are those of the view box, about a pixel on a phone. Colour alone never carries meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from revdist.report.charts import Numbers, ticks
from revdist.report.markup import Markup, join, tag

WIDTH, HEIGHT = 360, 290  # of the view box
LEFT, RIGHT, UPPER, LOWER = 54, 16, 12, 46  # its margins
POINTS = 240  # at most, of a drawn curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of measured rates with their intervals, all 0..1."""

    name: str
    rates: Sequence[float]
    intervals: Sequence[tuple[float, float]]


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
    false: Numbers, detected: Numbers, *, at: tuple[float, float], limit: float, title: str, names: tuple[str, str]
) -> Markup:
    """Draw the rate found against the rate falsely found, up to a limit, with the point of the threshold.

    `names`: names of the x axis and the y axis.
    """
    plane = Plane(limit=limit)
    xs, ys = thin(false, detected, limit)
    line = plane.path(xs, ys)
    x, y = plane.x(min(at[0], limit)), plane.y(at[1])
    point_name = f"{at[1]:.1%} found, {at[0]:.1%} false" + (f" (beyond {limit:.0%})" if at[0] > limit else "")
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
            f"threshold: {point_name}",
            class_="point-name",
            x=x - 11 if left else x + 11,
            y=y + 4 if y < plane.y(0) - 20 else y - 8,
            text_anchor="end" if left else "start",
        ),
    ]
    return _framed(title, parts)


def thin(false: Numbers, detected: Numbers, limit: float) -> tuple[Numbers, Numbers]:
    """Cut a curve at a limit; if more than POINTS points remain, interpolate POINTS of them."""
    inside = int(np.searchsorted(false, limit, side="right"))
    if inside <= POINTS:
        end = [] if inside == len(false) else [float(np.interp(limit, false, detected))]
        return np.append(false[:inside], [limit] * len(end)), np.append(detected[:inside], end)
    even = limit * np.linspace(0, 1, POINTS) ** 2  # closer together where few are falsely found
    return even, np.interp(even, false, detected)


def rates(sizes: Sequence[float], lines: Sequence[Line], *, level: float, title: str, names: tuple[str, str]) -> Markup:
    """Draw lines of rates over sizes at equal distances, with intervals as whiskers and a level to reach."""
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
    """Draw a disc, a square or a triangle, by the number of the line."""
    title = tag("title", said)
    shapes: tuple[Callable[[], Markup], ...] = (
        lambda: tag("circle", title, class_="mark", cx=x, cy=y, r=4.5),
        lambda: tag("rect", title, class_="mark", x=x - 4, y=y - 4, width=8, height=8),
        lambda: tag("path", title, class_="mark", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"),
    )
    return shapes[index % 3]()


def key(names: Sequence[str]) -> Markup:
    """Draw the key of `rates`: which line is which."""
    entries = []
    for index, name in enumerate(names):
        drawn = tag(
            "g", tag("path", class_="line", d="M0 8h28"), _mark(index, 14, 8, name), class_=f"series series-{index % 3}"
        )
        swatch = tag("svg", drawn, class_="swatch", width=28, height=16, aria_hidden="true")
        entries.append(tag("li", swatch, f" {name}"))
    return tag("ul", *entries, class_="key")


def _grid(plane: Plane, across: Sequence[tuple[float, str]], names: tuple[str, str]) -> list[Markup]:
    """Draw grid lines and names of both axes; y runs from 0 to 100 %."""
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
