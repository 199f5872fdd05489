"""Find the mask of a test picture, and the folder of good test pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from revdist.data.pictures import SUFFIXES
from revdist.errors import DataError
from revdist.files import trouble

log = logging.getLogger("revdist")

GOOD = "good"
OTHER_GOOD = ("ok", "normal", "good")  # usual names of the good folder, in lower case
GROUND_TRUTH = "ground_truth"
OTHER_GROUND_TRUTH = ("masks", "mask", "gt", "groundtruth", "ground-truth", "labels", "annotations")


def find(root: Path, kind: str, picture: Path) -> Path:
    """Find the mask of a defective picture. Raises DataError that tells what is expected and what is there."""
    folder = root / GROUND_TRUTH / kind
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for stem in (f"{picture.stem}_mask", picture.stem):
        named = [name for name in there if Path(name).stem == stem and Path(name).suffix.lower() in SUFFIXES]
        if f"{stem}.png" in named:
            return folder / f"{stem}.png"
        if len(named) == 1:
            return folder / named[0]
        if named:
            raise DataError(f"{trouble.shown(picture)}: has {len(named)} masks: {', '.join(named)}", hint="keep one")
    shown = ", ".join(trouble.shown(Path(name)) for name in there[:3])
    contents = f"in it are {shown}{', ...' if len(there) > 3 else ''}" if there else "it is empty or missing"
    raise DataError(
        f"{trouble.shown(picture)}: there is no mask {trouble.shown(folder / f'{picture.stem}_mask.png')}; {contents}",
        hint=f"name it {picture.stem}_mask.png or {picture.stem}.png, or with another picture suffix",
    )


def has_masks(root: Path) -> bool:
    """Whether a data set has masks. Raises DataError where masks seem to lie in a folder of another name."""
    if (root / GROUND_TRUTH).is_dir():
        return True
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and entry.name.lower() in (*OTHER_GROUND_TRUTH, GROUND_TRUTH):
            raise DataError(
                f"{trouble.shown(root)}: masks are looked for in {GROUND_TRUTH}, and here is {trouble.shown(entry)}",
                hint=f"name it {GROUND_TRUTH}/<kind of defect>, or move it away to measure without masks",
            )
    return False


def good_kind(kinds: Sequence[str], above: str = "test") -> str:
    """Return the folder of good pictures: the only one of a usual name, which is logged, else `good`.

    Raises DataError where several folders have a usual name.
    """
    usual = [kind for kind in kinds if kind.lower() in OTHER_GOOD]
    if usual == [GOOD]:
        return GOOD
    if len(usual) == 1:
        log.info("%s/%s is taken as the good pictures, which MVTec AD calls %s/good", above, usual[0], above)
        return usual[0]
    if usual:
        raise DataError(
            f"{above} has {' and '.join(usual)}: which of them holds the good pictures?",
            hint="keep the folder good alone",
        )
    return GOOD
