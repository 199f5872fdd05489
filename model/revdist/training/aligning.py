"""Makes the alignment of a product whose parts lie shifted or turned, from a reference and pictures of good parts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from revdist.data import alignment, images, survey
from revdist.data.alignment import Alignment
from revdist.data.reading import Reading
from revdist.errors import ImageError
from revdist.files import trouble

log = logging.getLogger("revdist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """How parts are brought to one position: the reference picture, and how far they may lie off."""

    reference: Path
    area: tuple[int, int, int, int] | None = None  # x, y, width, height of the part in the reference; None: all of it
    shift_px: float = 20.0
    angle_deg: float = 5.0
    scale: float = 0.0


def alignment_of(align: Align | None, pictures: Sequence[Path], how: Reading) -> Alignment | None:
    """Make the alignment, and learn its least quality from pictures of good parts; None if none is asked for.

    Raises DataError for limits that make no sense, ImageError that names the pictures whose part is not found.
    """
    if align is None:
        return None
    plain = replace(how, alignment=None)
    reference = images.read(align.reference, plain)
    prepared = alignment.prepare(
        reference, align.area, shift_px=align.shift_px, angle_deg=align.angle_deg, scale=align.scale
    )

    def quality(path: Path) -> float:
        try:
            return prepared.checked(images.read(path, plain)).quality
        except ImageError as error:
            raise ImageError(f"{trouble.shown(path)}: {error.message}", hint=error.hint) from error

    learnt = alignment.learnt(prepared, survey.each_of(pictures, quality))
    log.info("parts are aligned to %s: %s", trouble.shown(align.reference), learnt.told)
    return learnt
