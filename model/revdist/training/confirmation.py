"""Which held-out outliers set no threshold: those that no person has confirmed as pictures of good parts.

One bad part among the good ones raises the threshold for all, so that bad parts pass. Leaving out a good part lowers
the threshold: good parts are rejected, which people see. So an outlier waits, in training as in `revdist calibrate`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from revdist.data import images
from revdist.thresholds import outliers


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A held-out picture and its score."""

    file: str  # relative to the folder of good pictures
    sha256: str
    score: float
    block: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The outliers that a person has confirmed."""

    everything: bool = False
    hashes: frozenset[str] = frozenset()  # SHA-256 of files

    def __contains__(self, sha256: str) -> bool:
        return self.everything or sha256 in self.hashes


NOTHING = Confirmed()


def confirmed(files: Sequence[Path] | None, root: Path) -> Confirmed:
    """Return what `--confirm-outliers` confirms: nothing without it (None), everything where it names no file.

    `files` may be relative to the folder of good pictures. Raises ImageError where a file cannot be read.
    """
    if files is None:
        return NOTHING
    there = [path if os.path.lexists(path) else root / path for path in files]
    return Confirmed(everything=not files, hashes=frozenset(images.content_hash(path) for path in there))


def unconfirmed(
    scored: Sequence[Scored],
    confirmed: Confirmed,
    *,
    accepted: Collection[str] = (),
    waiting: Collection[str] = (),
) -> list[Scored]:
    """Return the outliers that nobody has confirmed.

    `accepted`: SHA-256 of pictures that set a threshold already; `waiting`: of outliers that wait since an earlier
    calibration. Those keep waiting, also where more pictures like them make them look usual.
    """
    if not scored:
        return []
    far = outliers.outliers(np.array([picture.score for picture in scored]))
    return [
        picture
        for picture, outlier in zip(scored, far, strict=True)
        if (outlier or picture.sha256 in waiting) and picture.sha256 not in accepted and picture.sha256 not in confirmed
    ]
