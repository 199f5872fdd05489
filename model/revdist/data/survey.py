"""Survey a set of picture files before anything is learnt from it: copies, range of values, sizes, oddities.

Every file is decoded once. Pictures that would silently spoil a threshold are refused with a reason; each oddity that
is only worth knowing is logged in one line.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import operator
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from revdist.data import health, images, pictures
from revdist.data.health import Health
from revdist.data.reading import Reading
from revdist.errors import DataError, ImageError
from revdist.files import trouble

log = logging.getLogger("revdist")

NAMED = 3  # files that a line names
NAMED_MOST = 10  # unreadable pictures that an error names
SATURATED = 0.98  # share of the values at the highest level
_ORIENTATION = 274
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The facts about one picture that a survey needs."""

    path: Path
    pixels: str  # SHA-256 of size and RGB values; equal for copies in any format
    size: tuple[int, int]  # (height, width)
    used_bits: int  # of a deep picture: every bit that any value has; 0 for 8 bits
    lowest: int  # of the RGB values, 0..255
    highest: int
    saturated: bool
    grey: bool  # stored as grey
    health: Health
    orientation: int  # the camera's tag, which is not followed; 1: upright, or no tag


def each_of(paths: Sequence[Path], act: Callable[[Path], _Answer]) -> list[_Answer]:
    """Call `act` for each file, on all cores; return results in order. Raises one ImageError for unreadable files."""

    def attempt(path: Path) -> _Answer | ImageError:
        try:
            return act(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(thread_name_prefix="read") as pool:
        outcomes = list(pool.map(attempt, paths))
    unreadable = [outcome for outcome in outcomes if isinstance(outcome, ImageError)]
    if unreadable:
        raise _together(unreadable)
    return [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]


def _together(errors: Sequence[ImageError]) -> ImageError:
    """Join the errors of unreadable pictures into one, with the reason of the first."""
    if len(errors) == 1:
        return errors[0]
    lines = [f"  {error.message}" for error in errors[:NAMED_MOST]]
    more = [f"  and {len(errors) - NAMED_MOST} more"] if len(errors) > NAMED_MOST else []
    told = "\n".join([f"{len(errors)} pictures cannot be read:", *lines, *more])
    hints = {error.hint for error in errors}
    same = f"{hints.pop()}; or " if len(hints) == 1 else ""
    return ImageError(told, hint=f"{same}copy them again, move them out of the folder, or --exclude them")


def read(path: Path, how: Reading) -> images.Pixels:
    """Read a single picture as images.read does; warn where it looks like data of fewer bits."""
    stored = images.values(path)
    highest = int(stored.max())
    if stored.dtype == np.uint16 and not how.bits and highest < 1 << pictures.NARROW:
        log.warning(
            "%s: no 16-bit value is over %d: it looks like %d-bit data, and is taken over all 16 bits",
            trouble.shown(path), highest, pictures.usual_bits(highest),
        )  # fmt: skip
    seen = _seen(stored, path, how)
    if how.alignment is None:
        return seen
    try:
        return how.alignment.bring(seen)
    except ImageError as error:
        raise ImageError(f"{trouble.shown(path)}: {error.message}", hint=error.hint) from error


def _seen(stored: pictures.Values, path: Path, how: Reading) -> images.Pixels:
    try:
        return pictures.to_rgb8(stored, how.bits) if stored.dtype != np.uint8 else images.to_rgb(stored)
    except ImageError as error:
        raise ImageError(f"{trouble.shown(path)}: {error.message}", hint=error.hint) from error


def look(path: Path, how: Reading) -> Look:
    """Decode a picture and return the facts about it. Raises ImageError."""
    stored = images.values(path)
    deep = stored.dtype != np.uint8
    seen = _seen(stored, path, how)
    return Look(
        path=path,
        pixels=pixels_hash(seen),
        size=(seen.shape[0], seen.shape[1]),
        used_bits=int(np.bitwise_or.reduce(stored, axis=None)) if deep else 0,
        lowest=int(seen.min()),
        highest=int(seen.max()),
        saturated=float((seen == 255).mean()) >= SATURATED,
        grey=stored.ndim == 2 or bool((seen == seen[..., :1]).all()),
        health=health.measure(seen),
        orientation=_orientation(path),
    )


def pixels_hash(seen: images.Pixels) -> str:
    """Return the SHA-256 of a picture's size and RGB values (H, W, 3), hexadecimal."""
    return hashlib.sha256(f"{seen.shape[0]} {seen.shape[1]} ".encode() + seen.tobytes()).hexdigest()


def _orientation(path: Path) -> int:
    """Return the orientation tag of a file that was decoded before; 1 where the tag is missing or damaged."""
    if path.suffix.lower() not in (".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff"):
        return 1
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=("JPEG", "TIFF")) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except pictures.BROKEN:
        return 1


def survey(paths: Sequence[Path], how: Reading) -> list[Look]:
    """Look at every picture of a set. Raises ImageError that names all unreadable pictures."""
    return each_of(paths, lambda path: look(path, how))


def check(looks: Sequence[Look], how: Reading) -> None:
    """Log what is odd about a set. Raises DataError where nothing can be learnt from it, or its range is unknown."""
    check_depth(looks, how)
    _check_contents(looks)
    _tell_sizes(looks)


def check_depth(looks: Sequence[Look], how: Reading) -> None:
    """Check the depth of a set. Raises DataError where all deep values are so low that they must have fewer bits."""
    deep = [picture for picture in looks if picture.used_bits]
    used = functools.reduce(operator.or_, (picture.used_bits for picture in deep), 0)
    if not deep or how.bits:
        return
    if used.bit_length() <= pictures.NARROW:
        bits = pictures.usual_bits(used)
        raise DataError(
            f"{folder_of(looks)}: the values of {_count(deep, looks)} 16-bit pictures are all under {1 << bits}: they "
            f"look like {bits}-bit data, which would be seen nearly black",
            hint=f"say how many bits the camera gives: --bits {bits} (or --bits 16 if they are truly that dark)",
        )
    empty = (used & -used).bit_length() - 1
    if empty >= 16 - pictures.NARROW:
        log.info(
            "%d 16-bit pictures hold %d-bit data, left-aligned: taken over all 16 bits, as they stand",
            len(deep), 16 - empty,
        )  # fmt: skip
    if len(deep) < len(looks):
        log.info("%d pictures of 16 bits beside %d of 8: both are taken over their full range", len(deep),
                 len(looks) - len(deep))  # fmt: skip


def _check_contents(looks: Sequence[Look]) -> None:
    """Check that pictures are not black, saturated or plain, because those teach nothing."""
    black = [picture for picture in looks if picture.highest <= 1]
    saturated = [picture for picture in looks if picture.saturated]
    plain = [p for p in looks if p.lowest == p.highest and p not in black and p not in saturated]
    useless = {picture.path for picture in (*black, *saturated, *plain)}
    for odd, word in ((black, "black"), (saturated, "saturated"), (plain, "of one colour")):
        if odd and len(useless) == len(looks):
            raise DataError(
                f"{folder_of(looks)}: all {len(looks)} pictures are useless, {len(odd)} of them {word}: {named(odd)}",
                hint="check light, exposure and lens, and the pictures' depth (--bits)",
            )
        if odd:
            log.warning("%d of %d pictures are %s: %s", len(odd), len(looks), word, named(odd))


def _tell_sizes(looks: Sequence[Look]) -> None:
    sizes = Counter(picture.size for picture in looks)
    if len(sizes) > 1:
        told = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(NAMED))
        shapes = {round(width / height, 2) for height, width in sizes}
        kind = "sizes and aspect ratios" if len(shapes) > 1 else "sizes of one aspect ratio"
        more = ", ..." if len(sizes) > NAMED else ""
        log.info("%d %s, %s%s: all are brought to the model's input", len(sizes), kind, told, more)
    grey = [picture for picture in looks if picture.grey]
    if 0 < len(grey) < len(looks):
        few, kind = (grey, "grey") if 2 * len(grey) <= len(looks) else ([p for p in looks if not p.grey], "in colour")
        log.warning(
            "%d grey pictures beside %d in colour: grey is taken as colour; %s are %s", len(grey),
            len(looks) - len(grey), kind, named(few),
        )  # fmt: skip
    turned = [picture for picture in looks if picture.orientation != 1]
    if 0 < len({picture.orientation for picture in looks}) > 1:
        log.warning(
            "orientation tags differ: %d of %d pictures are tagged as turned, %s; tags are not followed, for a line's "
            "camera is mounted as it is", len(turned), len(looks), named(turned),
        )  # fmt: skip


def size_of(path: Path) -> tuple[int, int]:
    """Return the (height, width) of a picture. Raises ImageError."""
    stored = images.values(path)
    return stored.shape[0], stored.shape[1]


def folder_of(looks: Sequence[Look]) -> str:
    """Return the folder that holds the pictures, to be shown."""
    return trouble.shown(Path(os.path.commonpath([picture.path.parent for picture in looks])))


def named(looks: Sequence[Look]) -> str:
    """Return the names of the first few pictures."""
    more = f" and {len(looks) - NAMED} more" if len(looks) > NAMED else ""
    return ", ".join(trouble.shown(Path(picture.path.name)) for picture in looks[:NAMED]) + more


def _count(some: Sequence[Look], every: Sequence[Look]) -> str:
    return f"all {len(some)}" if len(some) == len(every) else f"{len(some)} of {len(every)}"
