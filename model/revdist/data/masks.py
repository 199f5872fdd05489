"""Read masks of labelled defects: which pixels of a picture are defective, from any drawing tool's file.

Background is 0 and any other value is defective, in grey, 16 bits, palettes and colour, where that is plain. Any other
mask is refused with the file and the reason, because a misread mask gives wrong figures silently.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from revdist.data import images, picture_headers, pictures
from revdist.data.reading import Fit, Reading
from revdist.errors import ImageError
from revdist.files import trouble

Mask: TypeAlias = npt.NDArray[np.bool_]  # (H, W)

LEVELS_MOST = 32  # values of a mask that is drawn, not photographed
PLAIN = 0.9  # share of a smooth mask's values that are 0 or the highest
NEAR = 0.25  # of the highest value: how far a JPEG's noise goes
EXPECTED = "a mask is 0 for background, and any other value where it is defective"


def read(
    path: Path,
    size: images.Size,
    picture: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    move: Callable[[Mask], Mask] | None = None,
) -> Mask:
    """Read a mask at the model's input size, bool (h, w): resized like a picture, then thresholded at one half.

    `picture`: (height, width) of the picture that it belongs to; `move`: see `mover`.
    Raises ImageError that names the file and the reason.
    """
    defective = decode(path)
    height, width = defective.shape
    if picture is not None and abs(height * picture[1] - width * picture[0]) > max(picture) + max(height, width):
        raise _error(
            path, f"is {width}x{height} pixels, its picture {picture[1]}x{picture[0]}: another shape", "draw it anew"
        )
    if move is not None:
        defective = move(defective)
    levels = np.where(defective, 255, 0).astype(np.uint8)
    return np.asarray(images.prepare_mask(images.to_rgb(levels), size, fit)[..., 0] > 127)


def mover(picture: Path, how: Reading) -> Callable[[Mask], Mask] | None:
    """Return what moves the mask of a picture as its part is moved to the reference position; None if none is moved.

    Raises ImageError where the picture cannot be read, or its part is not found.
    """
    alignment = how.alignment
    if alignment is None:
        return None
    pixels = images.read(picture, replace(how, alignment=None))
    return lambda mask: alignment.bring_mask(mask, pixels)


def decode(path: Path) -> Mask:
    """Return which pixels of a mask's file are defective, (H, W). Raises ImageError, also where it looks inverted."""
    defective = marked(path)
    _check_background(path, defective)
    return defective


def marked(path: Path) -> Mask:
    """Return which pixels of a file are not 0, (H, W), whatever they stand for. Raises ImageError."""
    stored = images.values(path)
    content = path.read_bytes()
    levels = (stored if stored.ndim == 2 else stored.max(axis=2)).astype(np.int64)
    drawn = _of_lossy(path, levels) if _lossy(content) else _of_values(path, stored, levels)
    return _with_alpha(path, drawn, stored, content)


def _of_values(path: Path, stored: pictures.Values, levels: npt.NDArray[np.int64]) -> Mask:
    """Accept values that are labels, or one value with smooth edges."""
    values, counts = np.unique(levels, return_counts=True)
    if len(values) > LEVELS_MOST:
        ends = counts[values == 0].sum() + counts[-1]
        if values[0] != 0 or ends < PLAIN * levels.size:
            raise _error(path, f"has {len(values)} values: it looks like a picture, not a mask", EXPECTED)
    if values[0] != 0 and len(values) > 1:
        raise _error(path, f"has {len(values)} values and none is 0: which is the background?", EXPECTED)
    return np.asarray(stored != 0 if stored.ndim == 2 else (stored != 0).any(axis=2))


def _of_lossy(path: Path, levels: npt.NDArray[np.int64]) -> Mask:
    """Accept a JPEG: noise about two values, which must be far apart."""
    highest = int(levels.max())
    if highest == 0:
        return np.zeros(levels.shape, bool)
    between = (levels > NEAR * highest) & (levels < (1 - NEAR) * highest)
    if highest < 64 or between.mean() > 1 - PLAIN:
        raise _error(path, "is a JPEG whose values are not plainly two: its noise hides the mask", "save it as PNG")
    return np.asarray(levels > highest / 2)


def _lossy(content: bytes) -> bool:
    kind = picture_headers.kind(content)
    return kind == "JPEG" or (kind == "WebP" and b"VP8 " in content[:64])


def _with_alpha(path: Path, marked: Mask, stored: pictures.Values, content: bytes) -> Mask:
    """Take transparency as the mask where the colour says nothing; where both mark defects, they must agree."""
    alpha = _alpha(content)
    if alpha is None or alpha.shape != marked.shape or alpha.min() == alpha.max():
        return marked
    opaque = np.asarray(alpha != 0)
    plain = stored.min() == stored.max() if stored.ndim == 2 else (stored == stored[:1, :1]).all()
    if plain and not opaque.all():
        return opaque
    if np.array_equal(marked & opaque, marked):  # what is transparent is background in colour too
        return marked
    raise _error(path, "its colours and its transparency say different things", f"save it without alpha: {EXPECTED}")


def _alpha(content: bytes) -> npt.NDArray[np.uint8] | None:
    """Return the alpha channel (H, W) of a file that was decoded before; None without one."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "TIFF", "WEBP")) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return None
            return np.asarray(image.convert("RGBA").getchannel("A"))
    except pictures.BROKEN:  # of another format, or with what the decoder of pictures leaves out
        return None


def _check_background(path: Path, marked: Mask) -> None:
    border = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    if marked.all() or border.mean() <= 0.5 or marked.mean() <= 0.5:
        return
    raise _error(
        path,
        f"{border.mean():.0%} of its border and {marked.mean():.0%} of it are set: it looks inverted",
        f"invert it: {EXPECTED}",
    )


def _error(path: Path, cause: str, hint: str) -> ImageError:
    return ImageError(f"{trouble.shown(path)}: {cause}", hint=hint)
