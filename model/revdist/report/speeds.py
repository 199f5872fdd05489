"""Draws the times of engines as an SVG file of its own, which carries its size and colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from revdist.report import charts
from revdist.report.charts import AXIS, RANGE
from revdist.report.markup import Markup, tag

WIDTH, MARGIN, HEAD = 720, 20, 34
_STYLE = Markup(
    "<style>text { font: 13px system-ui, sans-serif; fill: #17202b } .title, .name { font-weight: 650 }"
    " .note, .tick-name, .axis-name { fill: #53606e } .base, .tick { stroke: #dbe1e8 } .ground { fill: #fff }"
    " .first { fill: #17202b } .ours { fill: #2a6db5 } .peer { fill: #8a949e }</style>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """The times of an engine or a peer for one picture, in milliseconds."""

    name: str
    best_ms: float  # at the best batch size; drawn as a bar
    first_ms: float  # at the smallest batch size; drawn as a mark
    note: str
    ours: bool


def drawing(rows: Sequence[Speed], title: str) -> Markup:
    """Draw a bar for each row over one axis of milliseconds, as an SVG file."""
    highest = 1.02 * max([0.0, *(max(row.best_ms, row.first_ms) for row in rows)])
    step = charts.round_step(highest / 6)
    top = step * max(1, math.ceil(highest / step))
    base = HEAD + RANGE * len(rows)

    def at(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * value / top

    drawn = [_row(row, HEAD + RANGE * index, at) for index, row in enumerate(rows)]
    for value in charts.ticks(0, top, 6):
        drawn.append(tag("line", class_="tick", x1=at(value), x2=at(value), y1=base, y2=base + 5))
        drawn.append(tag("text", f"{value:g}", class_="tick-name", x=at(value), y=base + 18, text_anchor="middle"))
    axis_name = "milliseconds a picture, less is better; bar: best batch size, mark: smallest"
    drawn.append(tag("text", axis_name, class_="axis-name", x=WIDTH / 2, y=base + 38, text_anchor="middle"))
    ground = tag("rect", class_="ground", width="100%", height="100%")
    head = tag("text", title, class_="title", x=MARGIN, y=20)
    height = base + AXIS
    box = f"0 0 {WIDTH} {height}"
    parts = (tag("title", title), _STYLE, ground, head, *drawn)
    return tag("svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=box, width=WIDTH, height=height)


def _row(row: Speed, y: float, at: Callable[[float], float]) -> Markup:
    return tag(
        "g",
        tag("text", row.name, class_="name", x=at(0), y=y + 13),
        tag("text", row.note, class_="note", x=WIDTH - MARGIN, y=y + 13, text_anchor="end"),
        tag("line", class_="base", x1=at(0), x2=WIDTH - MARGIN, y1=y + 24, y2=y + 24),
        tag("rect", class_="ours" if row.ours else "peer", x=at(0), width=at(row.best_ms) - at(0), y=y + 19, height=10),
        tag("rect", class_="first", x=at(row.first_ms) - 1, width=2, y=y + 17, height=14),
    )
