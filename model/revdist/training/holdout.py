"""Gather pictures of good parts, without those left out by hand and with their blocks, and calibrate a product.

A calibration uses pictures that the student has not seen. Training and `revdist calibrate` share this module.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from revdist.bundle.bundle import Bundle
from revdist.data import equal_pictures, images, survey
from revdist.data import lots as blocks
from revdist.data.lots import Block
from revdist.data.reading import PLAIN, Reading
from revdist.data.survey import Look
from revdist.engines.engine import Engine
from revdist.errors import CalibrationError, DataError, ImageError, TrainError
from revdist.evaluation import evaluate, ties
from revdist.recipe import Recipe
from revdist.thresholds import conformal, outliers
from revdist.thresholds.conformal import Calibration
from revdist.thresholds.outliers import Excluded
from revdist.training.checkpoint import Sides
from revdist.training.confirmation import NOTHING, Confirmed, Scored, unconfirmed

log = logging.getLogger("revdist")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodPictures:
    """The pictures of a folder of good parts."""

    root: Path
    used: tuple[Path, ...]
    excluded: tuple[Path, ...]  # left out by hand
    blocks: tuple[str, ...]  # the block of each used picture; empty without blocks
    looks: tuple[Look, ...] = ()  # one for each used picture
    copies: tuple[Path, ...] = ()  # copies of used pictures, which are left out

    @property
    def with_copies(self) -> list[Path]:
        """All pictures that are not excluded by hand, copies too."""
        return sorted((*self.used, *self.copies))

    def name(self, path: Path) -> str:
        """Return a picture's path relative to the folder, or its file name where it lies elsewhere."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name


def gather(
    good: Path, pattern: str, exclude: Sequence[Path], held_out_before: Collection[str] = (), how: Reading = PLAIN
) -> GoodPictures:
    """Gather the pictures of good parts in a folder (or its train/good); with blocks, in its subfolders too.

    Copies of a picture count once: a copy on the other side of a split would make every promise worthless.

    `exclude`: files, also relative to the folder; pictures of the same content are left out, wherever they lie.
    `held_out_before`: SHA-256 of pictures outside of the folder that may be excluded too.
    Raises DataError where no picture is left, nothing can be learnt from the set or an excluded file is none of the
    pictures; ImageError where a picture is missing or cannot be read.
    """
    root = images.good_folder(good)
    pictures = images.pictures_below(root) if pattern else images.pictures_in(root)
    unwanted = {images.content_hash(path if os.path.lexists(path) else root / path): path for path in exclude}
    hashes = {path: images.content_hash(path) for path in pictures} if unwanted else {}
    elsewhere = []
    for sha256, path in unwanted.items():
        if sha256 in hashes.values():
            continue
        elsewhere.append(path if path.exists() else root / path)
        if sha256 not in held_out_before:
            raise DataError(f"{path}: cannot be excluded, it is none of the pictures in {root}", hint="check --exclude")
    excluded = tuple(path for path, sha256 in hashes.items() if sha256 in unwanted)
    used = tuple(path for path in pictures if path not in excluded)
    if not used:
        raise DataError(f"{root}: all {len(pictures)} pictures are excluded")
    lots = blocks.names(pattern, [path.relative_to(root) for path in used]) if pattern else [""] * len(used)
    lot_of = dict(zip(used, lots, strict=True))
    looks = survey.survey(used, how)
    survey.check(looks, how)
    distinct, folded = equal_pictures.fold(looks)
    equal_pictures.tell(folded, len(distinct))
    return GoodPictures(
        root=root,
        used=tuple(look.path for look in distinct),
        excluded=(*excluded, *elsewhere),
        blocks=tuple(lot_of[look.path] for look in distinct) if pattern else (),
        looks=tuple(distinct),
        copies=tuple(pair.copy.path for pair in folded),
    )


def identities(loaded: Bundle, pictures: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each picture, or for a copy that of the bundle's picture that it is a copy of.

    Raises ImageError where a file cannot be read.
    """
    by_pixels = {pixels: sha256 for sha256, pixels in loaded.pixels.items()}

    def identity(path: Path) -> str:
        sha256 = images.content_hash(path)
        if sha256 in loaded.pixels or not by_pixels:
            return sha256
        return by_pixels.get(survey.look(path, loaded.recipe.reading).pixels, sha256)

    return survey.each_of(pictures, identity)


def trained_with(loaded: Bundle, pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures that a bundle's student was trained on, also copies of those. Raises ImageError."""
    hashes = identities(loaded, pictures)
    return [path for path, sha256 in zip(pictures, hashes, strict=True) if sha256 in loaded.trained_on]


def check_depth(loaded: Bundle, pictures: Sequence[Path]) -> None:
    """Check pictures before they are inspected. Raises DataError where their depth is not the bundle's; ImageError."""
    survey.check_depth(survey.survey(pictures, loaded.recipe.reading), loaded.recipe.reading)


def check_tests(loaded: Bundle, pictures: Sequence[Path]) -> None:
    """Check test pictures before they are inspected; warn of those that a bundle's student was trained on.

    Raises DataError where their depth is not the bundle's, ImageError that names all unreadable pictures.
    """
    looks = survey.survey(pictures, loaded.recipe.reading)
    survey.check_depth(looks, loaded.recipe.reading)
    trained = {loaded.pixels[sha256] for sha256 in loaded.trained_on if sha256 in loaded.pixels}
    seen = [look for look in looks if look.pixels in trained or images.content_hash(look.path) in loaded.trained_on]
    if seen:
        log.warning(
            "%d of %d test pictures were trained with, and look better than they are: %s",
            len(seen), len(looks), survey.named(seen),
        )  # fmt: skip


def unseen(loaded: Bundle, pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures that a bundle's student was trained on neither itself nor in a copy.

    Raises CalibrationError where none is left, ImageError where a file cannot be read.
    """
    seen = set(trained_with(loaded, pictures))
    unseen_pictures = [picture for picture in pictures if picture not in seen]
    if not unseen_pictures:
        raise CalibrationError(
            f"{pictures[0].parent}: the student was trained on all {len(pictures)} pictures",
            hint="take pictures that it has not seen",
        )
    return unseen_pictures


def keep_sides(good: GoodPictures, before: Sides) -> tuple[list[Path], list[Path]]:
    """Split pictures as a stopped run did: return those to train with, and those held out.

    A picture that was trained with is never held out; new pictures are trained with. Raises TrainError where
    no held-out picture is left.
    """
    fitted: list[Path] = []
    held_out: list[Path] = []
    for path in good.used:
        sha256, name = images.content_hash(path), good.name(path)
        kept_out = name in before.held_out or sha256 in before.held_out.values()
        (held_out if kept_out and sha256 not in before.all_seen else fitted).append(path)
    if not held_out or not fitted:
        raise TrainError(f"{good.root}: none of the pictures that the stopped run held out is left", hint="start anew")
    return fitted, held_out


def score(
    engine: Engine, product: str, good: GoodPictures, held_out: Sequence[Path], how: Reading = PLAIN
) -> list[Scored]:
    """Score pictures on an engine. Raises DataError or ImageError."""
    if not held_out:
        return []
    block_of = dict(zip(good.used, good.blocks, strict=True)) if good.blocks else {}
    scores = evaluate.scores(engine, product, held_out, how)  # (n,)
    return [
        Scored(file=good.name(path), sha256=images.content_hash(path), score=float(value), block=block_of.get(path, ""))
        for path, value in zip(held_out, scores, strict=True)
    ]


def calibrations_from_pictures(
    engines: Sequence[Engine],
    product: str,
    good: GoodPictures,
    held_out: Sequence[Path],
    recipe: Recipe,
    confirmed: Confirmed = NOTHING,
) -> list[Calibration]:
    """Set a product's threshold on each engine for the rate and the guarantee of a recipe, with unseen pictures.

    Outliers that are not `confirmed` do not count. Which these are, and what is odd about the pictures, the scores on
    the first engine decide, and it is told once. Raises CalibrationError, DataError or ImageError.
    """
    calibrations: list[Calibration] = []
    waiting_sha256: set[str] = set()
    for engine in engines:
        scored = score(engine, product, good, held_out, recipe.reading)
        if not calibrations:
            waiting_sha256 = {picture.sha256 for picture in unconfirmed(scored, confirmed)}
        waiting = [picture for picture in scored if picture.sha256 in waiting_sha256]
        counted = [picture for picture in scored if picture.sha256 not in waiting_sha256]
        if not calibrations:
            tell_odd(counted)
        calibration = calibration_from_scores(counted, recipe, engine=engine.identity, waiting=waiting)
        records = excluded(engine, product, good, recipe.reading)
        calibrations.append(dataclasses.replace(calibration, excluded=records))
        readable = {picture.file for picture in records}  # the others were told
        kept = tuple(path for path in good.excluded if good.name(path) in readable)
        good = dataclasses.replace(good, excluded=kept)
    return calibrations


def calibration_from_scores(
    scored: Sequence[Scored], recipe: Recipe, *, engine: str, waiting: Sequence[Scored] = ()
) -> Calibration:
    """Set the threshold from scores. Raises CalibrationError.

    Pictures that are `waiting` for a person are listed among the suspects, but do not count.
    """
    scores = np.array([picture.score for picture in scored])
    calibration = conformal.calibrate(
        scores,
        recipe.false_reject_rate,
        engine=engine,
        fingerprint=images.fingerprint_of(picture.sha256 for picture in scored),
        guarantee=recipe.guarantee,
    )
    shown = [*scored, *waiting]
    return dataclasses.replace(
        calibration,
        blocks=_fare([picture for picture in scored if picture.block], calibration),
        suspects=outliers.find(
            [picture.file for picture in shown],
            [picture.sha256 for picture in shown],
            np.array([picture.score for picture in shown]),
        ),
        held_out=tuple(scored[row].sha256 for row in np.argsort(scores, kind="stable")),
        unconfirmed=tuple(
            Excluded(file=picture.file, sha256=picture.sha256, score=picture.score) for picture in waiting
        ),
    )


def tell_odd(scored: Sequence[Scored]) -> None:
    """Warn of held-out pictures that are all of one block, and of pictures with equal scores."""
    blocks = {picture.block for picture in scored if picture.block}
    if len(blocks) == 1:
        log.warning("all held-out pictures are of block %s: nothing to compare it with", blocks.pop())
    ties.tell([picture.file for picture in scored], [picture.score for picture in scored], "held-out pictures")


def _fare(scored: Sequence[Scored], calibration: Calibration) -> tuple[Block, ...]:
    """Count each block's rejects at a threshold from the other blocks; empty where there is only one block."""
    counts = Counter(picture.block for picture in scored)
    if len(counts) < 2:
        return ()
    scores = np.array([picture.score for picture in scored])
    fared = []
    for name in sorted(counts):
        own = np.array([picture.block == name for picture in scored])
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


def excluded(engine: Engine, product: str, good: GoodPictures, how: Reading = PLAIN) -> tuple[Excluded, ...]:
    """Score the pictures that were left out by hand; those that cannot be read get no record."""
    records = []
    for path in good.excluded:
        try:
            (picture,) = score(engine, product, good, [path], how)
        except ImageError as error:
            log.warning("%s; excluded without a record", error.message)
        else:
            records.append(Excluded(file=picture.file, sha256=picture.sha256, score=picture.score))
    return tuple(records)
