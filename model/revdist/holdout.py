"""Pictures of good parts: which there are, which are left out by hand, which lot each is of; and the calibration of
a product with those that its student has not seen. Training and `revdist calibrate` share it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist import blocks, conformal, evaluate, heatmaps, images, suspects, trouble
from revdist.blocks import Block
from revdist.bundle import Bundle
from revdist.conformal import Calibration
from revdist.engine import Engine
from revdist.errors import CalibrationError, DataError, ImageError, RevdistError
from revdist.recipe import Recipe
from revdist.suspects import Excluded

log = logging.getLogger("revdist")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodPictures:
    """The pictures of a folder of good parts."""

    root: Path
    used: tuple[Path, ...]
    excluded: tuple[Path, ...]  # by hand
    blocks: tuple[str, ...]  # of each of the used; empty where no blocks are asked for

    def name(self, path: Path) -> str:
        """A picture's path relative to the folder."""
        return path.relative_to(self.root).as_posix()


def gather(good: Path, pattern: str, exclude: Sequence[Path]) -> GoodPictures:
    """List the pictures of good parts in a folder (or its train/good); with blocks, in its subfolders too.

    `exclude`: files, also relative to the folder; pictures of the same content are left out, wherever they lie.
    Raises DataError where nothing is left or an excluded file is none of the pictures, ImageError where it is missing.
    """
    root = images.good_folder(good)
    pictures = images.pictures_below(root) if pattern else images.pictures_in(root)
    unwanted = {images.content_hash(path if os.path.lexists(path) else root / path): path for path in exclude}
    hashes = {path: images.content_hash(path) for path in pictures} if unwanted else {}
    for sha256, path in unwanted.items():
        if sha256 not in hashes.values():
            raise DataError(f"{path}: cannot be excluded, it is none of the pictures in {root}", hint="check --exclude")
    excluded = tuple(path for path, sha256 in hashes.items() if sha256 in unwanted)
    used = tuple(path for path in pictures if path not in excluded)
    if not used:
        raise DataError(f"{root}: all {len(pictures)} pictures are excluded")
    named = blocks.names(pattern, [path.relative_to(root) for path in used]) if pattern else ()
    return GoodPictures(root=root, used=used, excluded=excluded, blocks=tuple(named))


def unseen(loaded: Bundle, pictures: Sequence[Path]) -> list[Path]:
    """Those of the pictures that a bundle's student was not trained on, by content.

    Raises CalibrationError where none is left, ImageError where a file cannot be read.
    """
    found = [picture for picture in pictures if images.content_hash(picture) not in loaded.trained_on]
    if not found:
        raise CalibrationError(
            f"{pictures[0].parent}: the student was trained on all {len(pictures)} pictures",
            hint="take pictures that it has not seen",
        )
    return found


def calibrate(
    engine: Engine, product: str, good: GoodPictures, held_out: Sequence[Path], recipe: Recipe
) -> Calibration:
    """Set a product's threshold for the rate and the guarantee of a recipe with pictures that it has not seen.

    Raises CalibrationError, DataError or ImageError.
    """
    scores = evaluate.scores(engine, product, held_out)  # (n,)
    made = conformal.calibrate(
        scores,
        recipe.false_reject_rate,
        engine=engine.identity,
        fingerprint=images.fingerprint(held_out),
        guarantee=recipe.guarantee,
    )
    block_of = dict(zip(good.used, good.blocks, strict=True)) if good.blocks else {}
    return dataclasses.replace(
        made,
        blocks=_fare([block_of[path] for path in held_out] if block_of else [], scores, made),
        suspects=suspects.find(
            [good.name(path) for path in held_out], [images.content_hash(path) for path in held_out], scores
        ),
        excluded=_excluded(engine, product, good),
    )


def _fare(block_of: Sequence[str], scores: npt.NDArray[np.float64], calibration: Calibration) -> tuple[Block, ...]:
    """Each block's rejects at a threshold from the other blocks; none where there is only one.

    `block_of`: of each score.
    """
    counts = Counter(block_of)
    if len(counts) == 1:
        log.warning("all held-out pictures are of block %s: nothing to compare it with", block_of[0])
    if len(counts) < 2:
        return ()
    fared = []
    for name in sorted(counts):
        own = np.array([each == name for each in block_of])
        others = conformal.calibrate(
            scores[~own],
            calibration.false_reject_rate,
            engine=calibration.engine,
            fingerprint="",
            guarantee=calibration.guarantee,
        )
        rejected = int((scores[own] > others.threshold).sum())
        fared.append(Block(name=name, pictures=counts[name], rejected=rejected))
    return tuple(fared)


def _excluded(engine: Engine, product: str, good: GoodPictures) -> tuple[Excluded, ...]:
    """What pictures that were left out by hand would have scored; those that cannot be read have no record."""
    excluded = []
    for path in good.excluded:
        try:
            (score,) = evaluate.scores(engine, product, [path])
        except ImageError as error:
            log.warning("%s; excluded without a record", error.message)
        else:
            excluded.append(Excluded(file=good.name(path), sha256=images.content_hash(path), score=float(score)))
    return tuple(excluded)


def write_suspects(folder: Path, engine: Engine, product: str, calibration: Calibration, good: Path) -> None:
    """Overlays of a calibration's suspects as <place>-<stem>.png, 1 the highest. Raises RevdistError."""
    root = images.good_folder(good)
    for place, suspect in enumerate(calibration.suspects, 1):
        picture = images.read(root / suspect.file)
        inspection = engine.inspect([images.prepare(picture, engine.size(product))], [product])
        overlay = heatmaps.heatmap(picture, inspection.map(0), calibration.threshold)
        file = folder / f"{place}-{Path(suspect.file).stem}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encode_png(overlay))
        except trouble.FILE_ERRORS as error:
            raise trouble.error(RevdistError, error, file, "written", hint="choose another --suspects") from error
