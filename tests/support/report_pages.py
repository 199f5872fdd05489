"""What the tests of the report have in common: what is measured, and a reader of pages that notes what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser

from revdist.evaluation.sensitivity import Grid
from revdist.report import page
from revdist.report.gather import Figures
from revdist.report.markup import VOID

MADE = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
GRID = Grid(kinds=("spot",), sizes_px=(4.0, 16.0), contrasts=(0.3, 1.0), pictures=2)
NASTY = '<b>&"x'  # a kind of defect, and so a folder's name


class Checked(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def read_page(figures: Figures) -> Checked:
    """Write the page of a report and read it."""
    return Checked(page.render(figures))
