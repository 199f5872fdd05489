"""Paint defects on good pictures, for known bad pictures where nobody has photographed any. A probe, no proof.

Every kind of defect is a covering that is blended over the part with an opacity:
painted = picture + contrast * mask * (covering - picture).
With black ink on a light part that is the Weber contrast of the defect. H W height and width.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np
import numpy.typing as npt

Picture: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)
Plane: TypeAlias = npt.NDArray[np.float32]  # (H, W)
Kind: TypeAlias = Literal["scratch", "spot", "paste", "blur"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MARGIN = 0.2  # share of each side at the border that no defect's centre lies in: the part is in the middle
SLENDER = 16  # how many times longer than wide a scratch is
_TRIES = 200  # places that are drawn until a defect lies where parts are inspected
_SHIFT = 4  # fractional bits of OpenCV's coordinates


def paint(
    kind: Kind,
    picture: Picture,
    *,
    size_px: float,
    contrast: float,
    generator: np.random.Generator,
    inspected: npt.NDArray[np.bool_] | None = None,
) -> Picture:
    """Copy a picture, uint8 (H, W, 3), with one defect at a place, angle and shape drawn by the generator.

    scratch: a bent line, `size_px` long and a sixteenth of it wide, at least a pixel; spot: a disc, `size_px` across;
    both of black ink where the part is light and of white ink where it is dark. paste: a square of `size_px` from
    elsewhere in the picture, turned. blur: a disc out of focus by a Gaussian of a quarter of `size_px`.
    `contrast` is the covering's opacity, 0..1. Nothing is checked: sizes from 1 to half of the shorter side make sense.
    `inspected` (H, W): at least half of the defect lies there, if such a place is found.
    """
    for _ in range(1 if inspected is None else _TRIES):
        centre, mask = _placed(kind, (picture.shape[0], picture.shape[1]), size_px, generator)
        if inspected is None or mask[inspected].sum() >= mask.sum() / 2:
            break
    covering = _covering(kind, picture, mask, centre, size_px, generator)
    blended = picture + contrast * mask[..., None] * (covering - picture)  # (H, W, 3) float32
    return np.asarray(np.rint(blended), np.uint8)


def _placed(
    kind: Kind, shape: tuple[int, int], size_px: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float64], Plane]:
    """Draw the place of a defect. Returns its centre and, for each pixel, the share that it covers."""
    centre = generator.uniform(MARGIN, 1 - MARGIN, 2) * (shape[1], shape[0])  # x, y
    if kind == "scratch":
        return centre, _line(shape, centre, size_px, generator)
    return centre, (_square if kind == "paste" else _disc)(shape, centre, size_px)


def scratch(picture: Picture, seed: int, inspected: npt.NDArray[np.bool_] | None = None) -> Picture:
    """A copy of a picture with a scratch that nobody overlooks: a third of the shorter side long, nine tenths black
    or white. The same seed paints the same one."""
    length = min(picture.shape[:2]) / 3
    generator = np.random.default_rng(seed)
    return paint("scratch", picture, size_px=length, contrast=0.9, generator=generator, inspected=inspected)


def _covering(
    kind: Kind,
    picture: Picture,
    mask: Plane,
    centre: npt.NDArray[np.float64],
    size_px: float,
    generator: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Return the covering, float32 (H, W, 3); it matters only where the mask is not 0."""
    whole = picture.astype(np.float32)
    if kind == "blur":
        return np.asarray(cv2.GaussianBlur(whole, (0, 0), size_px / 4, borderType=cv2.BORDER_REFLECT_101), np.float32)
    if kind == "paste":
        return _turned(whole, centre, generator)
    ground = np.average(whole.mean(2), weights=mask)
    return np.full_like(whole, 0 if ground > 127 else 255)


def _turned(
    whole: npt.NDArray[np.float32], centre: npt.NDArray[np.float64], generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Turn the picture about another place and move that place to `centre`; edges are mirrored."""
    height, width = whole.shape[:2]
    source = generator.uniform(MARGIN, 1 - MARGIN, 2) * (width, height)
    matrix = np.asarray(cv2.getRotationMatrix2D(source.tolist(), generator.uniform(0, 360), 1.0), np.float64)
    matrix[:, 2] += centre - source
    turned = cv2.warpAffine(whole, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.float32)


def _line(
    shape: tuple[int, int], centre: npt.NDArray[np.float64], length: float, generator: np.random.Generator
) -> Plane:
    angle = generator.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = along[::-1] * (-1, 1)
    steps = np.linspace(-length / 2, length / 2, 9)[:, None]  # (9, 1)
    points = centre + steps * along + generator.uniform(-1, 1, (9, 1)) * length / 20 * across  # (9, 2) x, y
    mask = np.zeros(shape, np.uint8)
    fixed = np.rint(points * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(mask, [fixed], False, 255, max(1, round(length / SLENDER)), cv2.LINE_AA, _SHIFT)
    return np.asarray(mask / 255, np.float32)


def _disc(shape: tuple[int, int], centre: npt.NDArray[np.float64], diameter: float) -> Plane:
    """Return a disc: 1 inside, 0 outside, and at the edge the covered share of a pixel."""
    rows, columns = np.indices(shape)
    distance = np.hypot(columns - centre[0], rows - centre[1])
    return np.asarray(np.clip(diameter / 2 - distance + 0.5, 0, 1), np.float32)


def _square(shape: tuple[int, int], centre: npt.NDArray[np.float64], side: float) -> Plane:
    rows, columns = np.indices(shape)
    distance = np.maximum(abs(columns - centre[0]), abs(rows - centre[1]))
    return np.asarray(np.clip(side / 2 - distance + 0.5, 0, 1), np.float32)
