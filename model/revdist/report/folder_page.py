"""Writes the page about a folder of pictures, and its table for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from revdist.data.appearance import BRIGHTNESS, CONTRAST, SHARPNESS
from revdist.errors import RevdistError
from revdist.files import folders, trouble
from revdist.report import spreads
from revdist.report.document import document
from revdist.report.folder import ODD_FROM, SHEET_MOST, Folder, Thumb
from revdist.report.markup import Markup, section, table, tag

NOT_LOOKED = "near copies and odd ones were not looked for: that takes a teacher"
_SIZES_MOST = 6
_NAMED_MOST = 20
_GROUPS_MOST = 12  # groups that are drawn at most


def write(path: Path, seen: Folder) -> None:
    """Write the page as one file, whole or not at all. Raises RevdistError if the file cannot be written."""
    try:
        folders.write_file(path, render(seen).encode(errors="backslashreplace"))
    except trouble.FILE_ERRORS as error:
        raise trouble.error(RevdistError, error, path, "written", hint="choose another --output") from error


def render(seen: Folder) -> Markup:
    """Build the document."""
    name = trouble.shown(Path(seen.root.resolve().name or "/"))
    tiles = [
        ("pictures", str(len(seen.looks)), f"in {_plural(len(seen.group_sizes), 'folder')}"),
        (
            "distinct",
            str(len({picture.pixels for picture in seen.looks})),
            _plural(len(seen.copies), "picture") + " more than once",
        ),
        ("not readable", str(len(seen.unreadable)), "file" if len(seen.unreadable) == 1 else "files"),
        ("sizes", str(len({picture.size for picture in seen.looks})), _sizes(seen, range(len(seen.looks)), 1)),
        ("odd ones out", str(_odd_count(seen)), "unlike all others"),
    ]
    head = tag(
        "header",
        tag("p", "Pictures at a glance", class_="kicker"),
        tag("h1", name),
        tag("p", trouble.shown(seen.root), class_="sub"),
        tag(
            "dl",
            *(
                tag("div", tag("dt", title), tag("dd", tag("strong", value), tag("span", unit)))
                for title, value, unit in tiles
            ),
            class_="tiles",
        ),
    )
    parts = [
        ("files", "Folders", _files(seen)),
        ("odd", "Odd ones out", _odd(seen)),
        ("copies", "Copies", _copies(seen)),
        ("near", "Near copies", _near(seen)),
        ("spread", "Light and sharpness", _spread(seen)),
        ("sheet", "Contact sheet", _sheet(seen)),
    ]
    links = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title, _ in parts]
    return document(
        f"{name}: pictures",
        tag("a", "To the figures", class_="skip", href="#main"),
        head,
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag("main", *(part for _, _, part in parts), id="main"),
        tag("footer", tag("p", "Made by revdist. This page fetches nothing and holds no programs.")),
    )


HEADS = ("folder", "pictures", "sizes", "depth", "range", "brightness", "contrast", "sharpness")


def rows(seen: Folder) -> Iterator[tuple[str, ...]]:
    """Yield one row for each folder, with the columns of HEADS."""
    for group in sorted(seen.group_sizes):
        picture_rows = seen.of_group(group)
        looks = [seen.looks[row] for row in picture_rows]
        medians = {
            name: float(np.median(seen.measured[name][picture_rows])) for name in (BRIGHTNESS, CONTRAST, SHARPNESS)
        }
        depths = Counter(f"{picture.used_bits.bit_length()} of 16" if picture.used_bits else "8" for picture in looks)
        yield (
            trouble.shown(Path(group)) if group != "." else "(the folder itself)",
            str(len(picture_rows)),
            _sizes(seen, picture_rows, 2),
            ", ".join(f"{depth} bit" for depth, _ in depths.most_common(2)),
            f"{min(picture.lowest for picture in looks)}..{max(picture.highest for picture in looks)}",
            f"{medians[BRIGHTNESS]:.0f}",
            f"{medians[CONTRAST]:.0f}",
            f"{math.exp(medians[SHARPNESS]):.2f}",
        )


def lines(seen: Folder) -> Iterator[str]:
    """Yield the table of folders for a terminal, then unreadable, repeated and odd pictures."""
    table_rows = [HEADS, *rows(seen)]
    widths = [max(len(row[column]) for row in table_rows) for column in range(len(HEADS))]
    for row in table_rows:
        cells = [
            f"{row[0]:{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells)
    for message in seen.unreadable[:_NAMED_MOST]:
        yield f"NOT READABLE  {message}"
    for group in seen.copies[:_NAMED_MOST]:
        yield f"the same picture: {', '.join(trouble.shown(Path(name)) for name in group)}"
    for group in (seen.near or ())[:_NAMED_MOST]:
        yield f"nearly the same picture: {', '.join(trouble.shown(Path(name)) for name in group)}"
    if seen.near is None:
        yield NOT_LOOKED
    for thumb in seen.odd:
        if float(thumb.word) > ODD_FROM:
            yield f"unlike all others ({thumb.word} robust standard deviations): {trouble.shown(Path(thumb.name))}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _sizes(seen: Folder, own: Sequence[int], most: int) -> str:
    sizes = Counter(seen.looks[row].size for row in own)
    shown_sizes = ", ".join(f"{width}x{height}" for (height, width), _ in sizes.most_common(most))
    return shown_sizes + (f", {len(sizes) - most} more" if len(sizes) > most else "")


def _odd_count(seen: Folder) -> int:
    return int((seen.oddness > ODD_FROM).sum())


def _files(seen: Folder) -> Markup:
    lead = (
        "Range: the lowest and the highest grey level of any picture, of 0 to 255. Brightness, contrast and sharpness "
        "are medians, measured on pictures brought to one size; sharpness is the strength of edges over the contrast."
    )
    parts = [tag("p", lead), table("Pictures by folder", HEADS, rows(seen))]
    if seen.unreadable:
        broken = [(text,) for text in seen.unreadable[:_NAMED_MOST]]
        parts.append(table(f"Cannot be read: {_plural(len(seen.unreadable), 'file')}", ("what is wrong",), broken))
    return section("files", "Folders", *parts)


def _odd(seen: Folder) -> Markup:
    lead = (
        "The pictures that have the fewest like them, as a network sees them that was trained with everyday "
        "photographs. The number says how many robust standard deviations they are further from their nearest ones "
        f"than is usual; over {ODD_FROM:g}, look whether a picture belongs here."
    )
    none = "No picture stands out." if seen.near is not None else f"{NOT_LOOKED}."
    shown = _thumbs(seen.odd) if seen.odd else tag("p", none, class_="quiet")
    return section("odd", "Odd ones out", tag("p", lead), shown)


def _copies(seen: Folder) -> Markup:
    if not seen.copies:
        return section("copies", "Copies", tag("p", "No picture is there twice.", class_="quiet"))
    lead = "Equal in every pixel, whatever their names. Training counts such pictures once."
    more = f", the first {_NAMED_MOST}" if len(seen.copies) > _NAMED_MOST else ""
    named = [(name, ", ".join(other_names)) for name, *other_names in seen.copies[:_NAMED_MOST]]
    caption = f"There more than once: {_plural(len(seen.copies), 'picture')}{more}"
    return section("copies", "Copies", tag("p", lead), table(caption, ("picture", "is also"), named))


def _near(seen: Folder) -> Markup:
    if seen.near is None:
        return section("near", "Near copies", tag("p", f"{NOT_LOOKED}.", class_="quiet"))
    if not seen.near:
        return section("near", "Near copies", tag("p", "No two pictures are nearly the same.", class_="quiet"))
    lead = (
        "Nearly the same to a network, such as frames of a standing belt. Training keeps each group on one side of its "
        "split, and drops none; between folders, what is trained with should not be what is tested with."
    )
    more = f", the first {_NAMED_MOST}" if len(seen.near) > _NAMED_MOST else ""
    named = [(name, ", ".join(other_names)) for name, *other_names in seen.near[:_NAMED_MOST]]
    caption = f"Nearly the same: {_plural(len(seen.near), 'group')}{more}"
    return section("near", "Near copies", tag("p", lead), table(caption, ("picture", "is nearly"), named))


def _spread(seen: Folder) -> Markup:
    groups = [group for group, _ in seen.group_sizes.most_common(_GROUPS_MOST)]
    drawn = []
    for name in (BRIGHTNESS, CONTRAST, SHARPNESS):
        values = np.exp(seen.measured[name]) if name == SHARPNESS else seen.measured[name]
        values_by_group = {group if group != "." else "all": values[seen.of_group(group)] for group in sorted(groups)}
        unit = "edges over contrast" if name == SHARPNESS else "grey levels"
        drawn += [tag("h3", name.capitalize()), tag("p", unit), spreads.spreads(values_by_group, f"{name}, {unit}")]
    lead = "Folders that are to be compared with each other should look alike here: a threshold knows no other light."
    return section("spread", "Light and sharpness", tag("p", lead), *drawn)


def _sheet(seen: Folder) -> Markup:
    count = len(seen.looks)
    lead = f"All {count} pictures." if count <= SHEET_MOST else f"{len(seen.sheet)} of {count}, from all over."
    return section("sheet", "Contact sheet", tag("p", lead), _thumbs(seen.sheet))


def _thumbs(thumbs: Sequence[Thumb]) -> Markup:
    shown = [
        tag(
            "figure",
            tag("img", src=thumb.picture, alt=thumb.name, loading="lazy"),
            tag("figcaption", tag("span", thumb.name), *([tag("strong", thumb.word)] if thumb.word else [])),
        )
        for thumb in thumbs
    ]
    return tag("div", *shown, class_="sheet")
