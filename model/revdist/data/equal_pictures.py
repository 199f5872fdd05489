"""Find copies of pictures in a set: pictures with equal pixels, whatever the file's format or name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from revdist.data.survey import NAMED, Look, folder_of
from revdist.errors import DataError
from revdist.files import trouble

log = logging.getLogger("revdist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A picture, and an earlier picture of the set with the same pixels."""

    copy: Look
    original: Look


def fold(looks: Sequence[Look]) -> tuple[list[Look], list[Copy]]:
    """Separate the distinct pictures of a set, in order, from the copies.

    Raises DataError for one picture and nothing but copies of it, which would pass for calibration pictures.
    """
    first: dict[str, Look] = {}
    copies = []
    for picture in looks:
        original = first.setdefault(picture.pixels, picture)
        if original is not picture:
            copies.append(Copy(copy=picture, original=original))
    if copies and len(first) == 1:
        raise DataError(
            f"{folder_of(looks)}: {len(looks)} files hold one and the same picture",
            hint="one distinct picture is neither training nor calibration: take pictures of many parts",
        )
    return list(first.values()), copies


def tell(copies: Sequence[Copy], distinct: int) -> None:
    """Log in one line which pictures are copies."""
    if not copies:
        return
    names = [
        f"{trouble.shown(pair.copy.path.name)} is {trouble.shown(pair.original.path.name)}" for pair in copies[:NAMED]
    ]
    more = f" and {len(copies) - NAMED} more" if len(copies) > NAMED else ""
    log.warning(
        "%d copies of pictures are left out, %d distinct ones count: %s%s",
        len(copies), distinct, ", ".join(names), more,
    )  # fmt: skip
