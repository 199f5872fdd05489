"""Draws how a measure spreads over groups of pictures: bars for each group over one axis, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from revdist.report import charts
from revdist.report.markup import Markup, tag

BINS = 40
_ROW, _LABEL, _BARS, _AXIS = 60, 20, 32, 40  # heights, pixels


def spreads(groups: Mapping[str, npt.NDArray[np.float64]], title: str) -> Markup:
    """Draw a row of bars for each group of values, with the group's median at the right."""
    values = np.concatenate(list(groups.values()))
    low, high = float(values.min()), float(values.max())
    step = charts.round_step(max(high - low, 1e-9 + abs(high) * 1e-6) / BINS)
    first_bar, last_bar = int(np.floor(low / step)), int(np.floor(high / step)) + 1
    count, base = last_bar - first_bar, _ROW * len(groups)
    drawn = []
    for row, (name, group_values) in enumerate(groups.items()):
        bottom = _ROW * row + _LABEL + _BARS
        bars = np.bincount(
            np.clip(np.floor(group_values / step).astype(int) - first_bar, 0, count - 1), minlength=count
        )
        drawn += [
            tag("text", name, tag("tspan", f"  {len(group_values)}"), class_="name", x="0", y=_ROW * row + 13),
            tag(
                "text",
                f"median {np.median(group_values):.3g}",
                class_="note",
                x="100%",
                y=_ROW * row + 13,
                text_anchor="end",
            ),
            tag("line", class_="base", x1="0", x2="100%", y1=bottom, y2=bottom),
        ]
        for bar in np.flatnonzero(bars).tolist():
            tall = max(2.0, _BARS * float(bars[bar] / bars.max()))
            tooltip = f"{name}: {bars[bar]} from {(first_bar + bar) * step:.4g} to {(first_bar + bar + 1) * step:.4g}"
            left, wide = f"{100 * bar / count:.3f}%", f"{94 / count:.3f}%"
            bar_top = bottom - tall
            drawn.append(tag("rect", tag("title", tooltip), class_="right", x=left, width=wide, y=bar_top, height=tall))
    for value in charts.ticks(first_bar * step, last_bar * step, 8):
        place = 100 * (value / step - first_bar) / count
        anchor = "start" if place < 3 else "end" if place > 97 else "middle"
        drawn.append(tag("line", class_="tick", x1=f"{place:.3f}%", x2=f"{place:.3f}%", y1=base, y2=base + 5))
        at = f"{place:.3f}%"
        drawn.append(tag("text", f"{value:g}", class_="tick-name", x=at, y=base + 18, text_anchor=anchor))
    parts = (tag("title", title), *drawn)
    height = base + _AXIS
    return tag("svg", *parts, class_="chart histograms", role="img", aria_label=title, width="100%", height=height)
