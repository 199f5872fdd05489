"""Describes a folder of pictures, for a page and for a terminal, before anything is trained with the pictures.

N: pictures. D: channels of a teacher's pooled features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist.data import appearance, images, survey
from revdist.data.appearance import Appearance
from revdist.data.reading import Reading
from revdist.data.survey import Look
from revdist.engines.engine import Engine
from revdist.errors import DataError, ImageError
from revdist.evaluation import look, near_copies
from revdist.report import cases

SHEET_MOST = 96  # pictures on the contact sheet, from all over the folder
ODD_SHOWN = 8
ODD_FROM = 6.0  # robust standard deviations from the median: further away than nearly all, whatever the distribution
NEIGHBOURS = 3
THUMB = 150  # longer side, pixels
_SIDE = 224  # pixels: the teacher sees pictures of this side, and sharpness is measured on them


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """A small picture with its name and a word on it."""

    name: str
    word: str
    picture: str  # data URI


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Folder:
    """The pictures of a folder and what was measured on them."""

    root: Path
    looks: tuple[Look, ...]
    unreadable: tuple[str, ...]  # what is wrong with each unreadable picture
    groups: tuple[str, ...]  # the folder of each look, relative to the root
    measured: Appearance  # of the looks
    copies: tuple[tuple[str, ...], ...]  # names of pictures that are the same, the first one first
    near: tuple[tuple[str, ...], ...] | None  # names of pictures that are nearly the same; None if nobody looked
    oddness: npt.NDArray[np.float64]  # (N,) robust standard deviations from the others
    odd: tuple[Thumb, ...]  # the oddest first
    sheet: tuple[Thumb, ...]

    @property
    def group_sizes(self) -> Counter[str]:
        return Counter(self.groups)

    def of_group(self, group: str) -> list[int]:
        """Return the rows of the looks that lie in a group."""
        return [row for row, name in enumerate(self.groups) if name == group]


def gather(root: Path, how: Reading, engine: Engine | None) -> Folder:
    """Look at all pictures in a folder, its subfolders or its MVTec layout; ground truth is left out.

    `engine`: with a teacher, to find odd ones and near copies; None leaves them out.
    Pictures that cannot be read are listed, not raised. Raises DataError where there is no picture that can be read.
    """
    paths = _pictures(root)
    looks, prepared, thumbs, unreadable = [], [], [], []
    for path in paths:
        try:
            looks.append(survey.look(path, how))
            picture = images.read(path, how)
        except ImageError as error:
            unreadable.append(error.message)
            continue
        prepared.append(images.prepare(picture, (_SIDE, _SIDE)))
        thumbs.append(picture if max(picture.shape) <= THUMB else cases.fitted(picture, THUMB))
    if not looks:
        raise DataError(f"{root}: none of its {len(paths)} pictures can be read: {unreadable[0]}")
    names = [picture.path.relative_to(root).as_posix() for picture in looks]
    oddness = _oddness(look.pooled(engine, prepared)) if engine else np.zeros(len(looks))
    order = np.argsort(-oddness, kind="stable")[:ODD_SHOWN].tolist()
    rows = np.unique(np.linspace(0, len(looks) - 1, min(SHEET_MOST, len(looks))).round().astype(int)).tolist()

    def thumb(row: int, word: str) -> Thumb:
        return Thumb(name=names[row], word=word, picture=cases.jpeg(thumbs[row]))

    return Folder(
        root=root,
        looks=tuple(looks),
        unreadable=tuple(unreadable),
        groups=tuple(Path(name).parent.as_posix() for name in names),
        measured=appearance.measure(prepared, [picture.path for picture in looks]),
        copies=_copies(looks, names),
        near=_near(looks, names, how, engine) if engine else None,
        oddness=oddness,
        odd=tuple(thumb(row, f"{oddness[row]:.1f}") for row in order if oddness[row] > ODD_FROM / 2),
        sheet=tuple(thumb(row, "") for row in rows),
    )


def _pictures(root: Path) -> list[Path]:
    """List all pictures below a folder, without the ground truth, which holds masks."""
    if not (root / "train").is_dir() and not (root / "test").is_dir():
        return images.pictures_below(root)
    folders = [
        inner for part in ("train", "test") if (root / part).is_dir() for inner in sorted((root / part).iterdir())
    ]
    return [path for folder in folders if folder.is_dir() for path in images.pictures_in(folder)]


def _copies(looks: Sequence[Look], names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    same: dict[str, list[str]] = {}
    for picture, name in zip(looks, names, strict=True):
        same.setdefault(picture.pixels, []).append(name)
    return tuple(tuple(group) for group in same.values() if len(group) > 1)


def _near(looks: Sequence[Look], names: Sequence[str], how: Reading, engine: Engine) -> tuple[tuple[str, ...], ...]:
    """Group the names of pictures that are nearly the same; equal ones count as one."""
    distinct = list({picture.pixels: row for row, picture in reversed(list(enumerate(looks)))}.values())
    rows = sorted(distinct)
    groups: dict[int, list[str]] = {}
    for row, group in zip(rows, near_copies.groups(engine, [looks[row].path for row in rows], how), strict=True):
        groups.setdefault(group, []).append(names[row])
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _oddness(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return how unusually far (N,) each picture is from its nearest ones, in robust standard deviations."""
    count = len(features)
    if count <= NEIGHBOURS:
        return np.zeros(count)
    squares = (features**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * features @ features.T  # (N, N)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sqrt(np.maximum(np.sort(distances, 1)[:, :NEIGHBOURS], 0)).mean(1).astype(np.float64)  # (N,)
    spread = 1.4826 * float(np.median(np.abs(nearest - np.median(nearest))))
    return (nearest - np.median(nearest)) / spread if spread > 0 else np.zeros(count)
