"""Set a bundle's threshold anew: for another false-reject rate, with more good pictures, or for another engine.

New pictures are added to those of the engine's earlier calibration. An outlier among the new pictures changes nothing
until a person confirms that it is a good part: one bad part among the good ones raises the threshold for all.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.engines.processor import quantised
from revdist.errors import CalibrationError, RevdistError
from revdist.evaluation import evaluate, look, near_copies
from revdist.thresholds.conformal import Calibration, Guarantee
from revdist.thresholds.outliers import Excluded
from revdist.training import confirmation, holdout, packing
from revdist.training.confirmation import Scored
from revdist.training.holdout import GoodPictures
from revdist.training.packing import Observed

log = logging.getLogger("revdist")

OBSERVED = 32  # pictures to take ranges from, and to compare with float32
TOO_FAR = 0.25  # largest median deviation of scores from float32, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalibrationRequest:
    """The wanted false-reject rate, and the pictures to calibrate with."""

    good: Path  # pictures of good parts, or the root of an MVTec layout
    false_reject_rate: float
    guarantee: Guarantee = "average"
    blocks: str = ""  # as in a recipe
    exclude: tuple[Path, ...] = ()
    share: Path | None = None  # for int8: take the teacher's ranges from this bundle, so that both share one teacher
    replace_held_out: bool = False  # use only the new pictures, do not add them to the earlier ones
    confirm: tuple[Path, ...] | None = None  # outliers that a person has confirmed as good; (): all, None: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """The bundle with its new calibration, and what became of the pictures."""

    bundle: Bundle
    left_out: int  # pictures left out because the student was trained on them
    added: int  # pictures that are new to the calibration
    observed: int  # unseen pictures that int8 took the ranges of maps from
    deviations: npt.NDArray[np.float64]  # (n,) relative, of scores from those in float32; empty for float32


def engines(product_bundle: Bundle) -> tuple[list[backend.Name], dict[str, str]]:
    """Return the engines of a bundle's calibrations that this machine has, and the missing ones with the reason.

    Raises CalibrationError where this machine has none of them.
    """
    names, left = [], {}
    for identity in product_bundle.calibrations:
        try:
            names.append(backend.usable(identity))
        except RevdistError as error:
            left[identity] = str(error)
    if product_bundle.calibrations and not names:
        raise CalibrationError(
            f"{product_bundle.path}: this machine has no engine that it is calibrated for, {', '.join(left)}",
            hint="name another with --engine, or calibrate it on a machine that has one of them",
        )
    return names or [backend.Name("auto")], left


def recalibrate(path: Path, request: RecalibrationRequest, engine: Engine, plain: Engine) -> Recalibration:
    """Calibrate the bundle at `path` on `engine`, which then holds its product.

    `plain`: an engine in float32; it may be `engine` itself.
    Pictures that the student was trained on score too low for a threshold: they are recognised by their content and
    left out. int8 takes the ranges of maps from them; without them, from some unseen pictures, which then do not count
    for the threshold. Pictures that an older calibration excludes stay on record unless they are used now.
    Raises CalibrationError where no picture remains or the precision is too coarse, RecipeError, BundleError, DataError
    or ImageError.
    """
    loaded = bundle.load(path, plain)
    before = _before(loaded, request, engine)
    good = holdout.gather(
        request.good, request.blocks, request.exclude, held_out_before=_held_out(loaded), how=loaded.recipe.reading
    )
    unseen = _apart(plain, loaded, good, request)
    observed = _observe(loaded, request, plain, good, unseen) if engine.needs_ranges else None
    if engine is not plain:
        bundle.add(loaded, engine, product=loaded.product, ranges=observed.ranges if observed else None)
    of_ranges = (observed.pictures if observed else loaded.ranges_from) if engine.needs_ranges else frozenset()
    identities = zip(unseen, holdout.identities(loaded, unseen), strict=True)
    usable = {sha256: path for path, sha256 in identities if sha256 not in of_ranges}
    who = f"the unseen pictures in {good.root}"
    look.unlike(plain, loaded.trained_appearance, list(usable.values()), loaded.recipe, who, loaded.mask)
    added, calibration = _calibration(loaded, before, engine, good, usable, request)
    golden = bundle.golden_scores(loaded, engine, loaded.product)
    deviations = np.empty(0) if engine is plain else _deviations(engine, plain, loaded, list(usable.values()))
    return Recalibration(
        bundle=packing.recalibrate(
            loaded, calibration, golden, observed, packing.seen_pixels(good), packing.healthy(good, calibration)
        ),
        left_out=len(holdout.trained_with(loaded, good.used)),
        added=added,
        observed=len(unseen) - len(usable),
        deviations=deviations,
    )


def _apart(plain: Engine, loaded: Bundle, good: GoodPictures, request: RecalibrationRequest) -> list[Path]:
    """Return the unseen pictures without near copies of pictures that the student was trained on, which score too low.

    Pictures that a threshold is made of already stay. Near copies among the others are named. Raises CalibrationError
    where none is left.
    """
    unseen = holdout.unseen(loaded, good.used)
    group_of = dict(zip(good.used, near_copies.groups(plain, good.used, loaded.recipe.reading), strict=True))
    taught = {group_of[path] for path in good.used if path not in unseen}
    held_out = _held_out(loaded)
    hashes = dict(zip(unseen, holdout.identities(loaded, unseen), strict=True))
    spoiled = [path for path in unseen if group_of[path] in taught and hashes[path] not in held_out]
    near_copies.tell(spoiled, "nearly the same as pictures that the student was trained on, and set no threshold")
    apart = [path for path in unseen if path not in spoiled]
    if not apart:
        raise CalibrationError(
            f"{good.root}: all {len(unseen)} unseen pictures are nearly the same as those that the student was trained "
            "on",
            hint="take pictures of other parts",
        )
    numbers = [group_of[path] for path in apart]
    near_copies.tell(
        [path for path, number in zip(apart, numbers, strict=True) if numbers.count(number) > 1],
        "nearly the same as others, and prove little more than one of each group",
    )
    near_copies.promise(numbers, request.false_reject_rate, request.guarantee)
    return apart


def _calibration(
    loaded: Bundle,
    before: Calibration | None,
    engine: Engine,
    good: GoodPictures,
    usable: Mapping[str, Path],
    request: RecalibrationRequest,
) -> tuple[int, Calibration]:
    """Return how many pictures are new, and the calibration with them. `usable`: unseen pictures by SHA-256."""
    kept, waiting = _kept(before, good, usable)
    of_before = {picture.sha256 for picture in kept}
    added = [path for sha256, path in usable.items() if sha256 not in of_before]
    waiting = [picture for picture in waiting if picture.sha256 not in usable]
    scored = [*kept, *waiting, *holdout.score(engine, loaded.product, good, added, loaded.recipe.reading)]
    confirmed = confirmation.confirmed(request.confirm, good.root)
    unconfirmed = confirmation.unconfirmed(scored, confirmed, accepted=_held_out(loaded), waiting=_waiting(loaded))
    wanted = dataclasses.replace(
        loaded.recipe,
        false_reject_rate=request.false_reject_rate,
        guarantee=request.guarantee,
        blocks=request.blocks,
    )
    counted = [picture for picture in scored if picture not in unconfirmed]
    holdout.tell_odd(counted)
    calibration = holdout.calibration_from_scores(counted, wanted, engine=engine.identity, waiting=unconfirmed)
    excluded = holdout.excluded(engine, loaded.product, good, loaded.recipe.reading)
    for picture in excluded:
        if picture.sha256 in loaded.trained_on:
            log.warning("%s is excluded, but the student was trained on it: train again without it", picture.file)
    calibration = dataclasses.replace(calibration, excluded=excluded)
    return len(added), dataclasses.replace(
        calibration, excluded=excluded + _still_excluded(loaded, set(usable), calibration)
    )


def _held_out(loaded: Bundle) -> frozenset[str]:
    """Return the SHA-256 of each picture that a threshold of the bundle is made of."""
    return frozenset(sha256 for calibration in loaded.calibrations.values() for sha256 in calibration.held_out)


def _before(loaded: Bundle, request: RecalibrationRequest, engine: Engine) -> Calibration | None:
    """Return the calibration to add pictures to, if any. Raises CalibrationError where none can be added."""
    before = loaded.calibrations.get(engine.identity)
    if before is None or request.replace_held_out:
        return None
    hint = "give all pictures that it is to be made of, with --replace-held-out"
    if not before.held_out:
        text = f"{loaded.path}: does not say which pictures its threshold on {engine.identity} is made of"
        raise CalibrationError(text, hint=hint)
    if request.share is not None and engine.needs_ranges:
        raise CalibrationError(
            f"{loaded.path}: with the ranges of {request.share} its old scores do not hold", hint=hint
        )
    return before


def _observe(
    loaded: Bundle, request: RecalibrationRequest, plain: Engine, good: GoodPictures, unseen: Sequence[Path]
) -> Observed | None:
    """Observe the ranges of maps for int8; None keeps the bundle's own ranges, which its scores were made with.

    Raises CalibrationError where the ranges take all unseen pictures.
    """
    if loaded.ranges is not None and request.share is None and not request.replace_held_out:
        return None
    shown = _representative([path for path in good.used if path not in unseen] or unseen)
    if set(unseen) <= set(shown):
        raise CalibrationError(
            f"{good.root}: the ranges of maps for int8 take all {len(unseen)} unseen pictures",
            hint="give more of them, or those that the student was trained with too",
        )
    ranges = plain.observe(loaded.product, evaluate.read_prepared(shown, loaded.size, loaded.recipe.reading))
    if request.share is not None:
        ranges = dataclasses.replace(ranges, teacher=_shared(request.share, loaded))
    pictures = frozenset(images.content_hash(path) for path in shown if path in unseen)
    return Observed(ranges=ranges, pictures=pictures)


def _kept(
    before: Calibration | None, good: GoodPictures, usable: Mapping[str, Path]
) -> tuple[list[Scored], list[Scored]]:
    """Return the pictures of the earlier calibration with their scores, and its unconfirmed outliers.

    Pictures that are excluded now are dropped. A picture that is among the new ones has its new name and block.
    """
    if before is None:
        return [], []
    gone = {images.content_hash(path) for path in good.excluded}
    block_of = dict(zip(good.used, good.blocks, strict=True)) if good.blocks else {}
    names = {suspect.sha256: suspect.file for suspect in before.suspects}

    def scored(sha256: str, value: float) -> Scored:
        path = usable.get(sha256)
        file = good.name(path) if path else names.get(sha256, f"held out before ({sha256[:12]})")
        return Scored(file=file, sha256=sha256, score=value, block=block_of.get(path, "") if path else "")

    scores = zip(before.held_out, before.scores.tolist(), strict=True)
    kept = [scored(sha256, value) for sha256, value in scores if sha256 not in gone]
    return kept, [scored(outlier.sha256, outlier.score) for outlier in before.unconfirmed if outlier.sha256 not in gone]


def _waiting(loaded: Bundle) -> frozenset[str]:
    """Return the SHA-256 of each outlier that no threshold of the bundle uses, since nobody has confirmed it."""
    return frozenset(
        outlier.sha256 for calibration in loaded.calibrations.values() for outlier in calibration.unconfirmed
    )


def _representative(pictures: Sequence[Path]) -> list[Path]:
    """Choose at most OBSERVED pictures and at most a quarter of them, evenly from the whole list."""
    return list(pictures[:: max(4, math.ceil(len(pictures) / OBSERVED))])


def _shared(path: Path, loaded: Bundle) -> quantised.Ranges:
    """Return the teacher's ranges of another bundle: products with equal ranges share one pass of the teacher."""
    other = bundle.read(path)
    if other.ranges is None:
        raise CalibrationError(f"{path}: has no ranges to share", hint="calibrate it for int8 first")
    if other.teacher != loaded.teacher:
        raise CalibrationError(f"{path}: has another teacher, {other.teacher.name}", hint="share with one of the same")
    return other.ranges.teacher


def _deviations(engine: Engine, plain: Engine, loaded: Bundle, pictures: Sequence[Path]) -> npt.NDArray[np.float64]:
    compared = _representative(pictures)
    exact, rounded = (
        evaluate.scores(scorer, loaded.product, compared, loaded.recipe.reading) for scorer in (plain, engine)
    )
    deviations = np.abs(rounded / exact - 1)
    if not np.median(deviations) <= TOO_FAR:
        raise CalibrationError(
            f"{loaded.path}: scores on {engine.identity} are {np.median(deviations):.0%} off those in float32",
            hint="this student does not bear so coarse a precision: use bfloat16 or float32",
        )
    return deviations


def _still_excluded(loaded: Bundle, used: set[str], renewed: Calibration) -> tuple[Excluded, ...]:
    """Return the pictures that only older calibrations exclude, each once; the new one does not use them either."""
    used_or_excluded = used | {picture.sha256 for picture in renewed.excluded}
    older = [picture for calibration in loaded.calibrations.values() for picture in calibration.excluded]
    return tuple({picture.sha256: picture for picture in older if picture.sha256 not in used_or_excluded}.values())
