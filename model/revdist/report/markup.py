"""Builds HTML and SVG: text is escaped unless this file made it, and tags are closed by construction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "col", "hr", "img", "link", "meta"})


class Markup(str):
    """Finished HTML, which goes into a page as it is. Only `tag`, `join` and constants of the page make it."""

    __slots__ = ()


Content: TypeAlias = "str | Markup"  # a plain string is from outside until it is escaped


def text(content: Content) -> Markup:
    """Escape a string; return finished markup as it is."""
    return content if isinstance(content, Markup) else Markup(escape(content, quote=True))


def join(*parts: Content) -> Markup:
    return Markup("".join(text(part) for part in parts))


def tag(name: str, /, *children: Content, **attributes: str | float | None) -> Markup:
    """Build an element. `class_` is the attribute class and `stroke_width` is stroke-width; None: no attribute."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opening = name + "".join(f' {key}="{escape(_plain(value), quote=True)}"' for key, value in named.items())
    if name in VOID:
        assert not children, f"{name} has no content"
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def section(name: str, title: str, *content: Content) -> Markup:
    """Build a section with its heading; links find it by name."""
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Content]]) -> Markup:
    """Build a table whose first column names the row."""
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in heads)))
    body = [tag("tr", tag("th", label, scope="row"), *(tag("td", cell) for cell in cells)) for label, *cells in rows]
    element = tag("table", tag("caption", caption), head, tag("tbody", *body))
    return tag("div", element, class_="scroll", role="region", aria_label=caption, tabindex=0)


def terms(pairs: Iterable[tuple[str, Content]]) -> Markup:
    """Build a list of names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))


def _plain(value: str | float) -> str:
    """Write a number with at most three decimals: drawings need no more, and pages stay small."""
    if isinstance(value, str):
        return value
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
