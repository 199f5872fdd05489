"""Frames every page as one HTML document that needs no other file."""

from __future__ import annotations

import importlib.resources

from revdist.report.markup import Content, Markup, join, tag

# Nothing may be fetched or run, whatever a file name holds; pictures and styles are in the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, *body: Content) -> Markup:
    """Build a whole document around the content of its body."""
    style = importlib.resources.files("revdist.report").joinpath("style.css").read_text()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return join(Markup("<!DOCTYPE html>\n"), tag("html", head, tag("body", *body), lang="en"))
