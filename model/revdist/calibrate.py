"""Set a bundle's threshold anew: for another false-reject rate, with more good pictures, or for another engine."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist import bundle, evaluate, holdout, images, packing, quantised
from revdist.bundle import Bundle
from revdist.conformal import Calibration, Guarantee
from revdist.engine import Engine
from revdist.errors import CalibrationError
from revdist.suspects import Excluded

log = logging.getLogger("revdist")

OBSERVED = 32  # pictures for the ranges, and to compare with float32
TOO_FAR = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to calibrate for, and with which pictures."""

    good: Path  # pictures of good parts, or the root of an MVTec layout
    false_reject_rate: float
    guarantee: Guarantee = "average"
    blocks: str = ""  # as in a recipe
    exclude: tuple[Path, ...] = ()
    share: Path | None = None  # for int8: a bundle whose teacher's ranges are taken, so that both share one teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """The bundle with its new calibration, and what became of the pictures that it was not made of."""

    bundle: Bundle
    left_out: int  # because the student was trained on them
    observed: int  # unseen ones that int8 took the ranges of maps from
    deviations: npt.NDArray[np.float64]  # (n,) of scores from those in float32, relative; empty for float32 itself


def recalibrate(path: Path, request: Request, engine: Engine, plain: Engine) -> Recalibration:
    """Calibrate the bundle at `path` on `engine`, which then holds its product. `plain`: in float32, or the same one.

    Pictures that the student was trained on score too low to be of use: they are recognised by their content and left
    out; but int8 takes the ranges of maps from them, or from some unseen ones, which are of no other use then.
    Pictures that an older calibration excludes stay on record unless they are used now.
    Raises CalibrationError where nothing remains or this precision is too coarse, RecipeError, BundleError, DataError
    or ImageError.
    """
    loaded = bundle.load(path, plain)
    wanted = dataclasses.replace(
        loaded.recipe,
        false_reject_rate=request.false_reject_rate,
        guarantee=request.guarantee,
        blocks=request.blocks,
    )
    good = holdout.gather(request.good, request.blocks, request.exclude)
    unseen = holdout.unseen(loaded, good.used)
    left_out, ranges, observed = len(good.used) - len(unseen), None, 0
    if engine.needs_ranges:
        shown = _representative([path for path in good.used if path not in unseen] or unseen)
        ranges = plain.observe(loaded.product, evaluate.read_prepared(shown, loaded.size))
        unseen = [path for path in unseen if path not in shown]
        observed = len(good.used) - left_out - len(unseen)
        if not unseen:
            raise CalibrationError(
                f"{good.root}: the ranges of maps for int8 take all {observed} unseen pictures",
                hint="give more of them, or those that the student was trained with too",
            )
        if request.share is not None:
            ranges = dataclasses.replace(ranges, teacher=_shared(request.share, loaded))
    if engine is not plain:
        bundle.add(loaded, engine, product=loaded.product, ranges=ranges)
    made = holdout.calibrate(engine, loaded.product, good, unseen, wanted)
    kept = _still_excluded(loaded, {images.content_hash(each) for each in unseen}, made)
    for each in made.excluded:
        if each.sha256 in loaded.trained_on:
            log.warning("%s is excluded, but the student was trained on it: train again without it", each.file)
    made = dataclasses.replace(made, excluded=made.excluded + kept)
    golden = bundle.golden_scores(loaded, engine, loaded.product)
    deviations = np.empty(0) if engine is plain else _deviations(engine, plain, loaded, unseen)
    return Recalibration(
        bundle=packing.recalibrate(loaded, made, golden, ranges),
        left_out=left_out,
        observed=observed,
        deviations=deviations,
    )


def _representative(pictures: Sequence[Path]) -> list[Path]:
    """Some of the pictures, from all over the list."""
    return list(pictures[:: max(4, math.ceil(len(pictures) / OBSERVED))])


def _shared(path: Path, loaded: Bundle) -> quantised.Ranges:
    """The teacher's ranges of another bundle: products with the same ones are inspected in one pass."""
    other = bundle.read(path)
    if other.ranges is None:
        raise CalibrationError(f"{path}: has no ranges to share", hint="calibrate it for int8 first")
    if other.teacher != loaded.teacher:
        raise CalibrationError(f"{path}: has another teacher, {other.teacher.name}", hint="share with one of the same")
    return other.ranges.teacher


def _deviations(engine: Engine, plain: Engine, loaded: Bundle, pictures: Sequence[Path]) -> npt.NDArray[np.float64]:
    compared = _representative(pictures)
    exact, found = (evaluate.scores(each, loaded.product, compared) for each in (plain, engine))
    deviations = np.abs(found / exact - 1)
    if not np.median(deviations) <= TOO_FAR:
        raise CalibrationError(
            f"{loaded.path}: scores on {engine.identity} are {np.median(deviations):.0%} off those in float32",
            hint="this student does not bear so coarse a precision: use bfloat16 or float32",
        )
    return deviations


def _still_excluded(loaded: Bundle, used: set[str], made: Calibration) -> tuple[Excluded, ...]:
    """What older calibrations exclude, each once, and neither used nor excluded by the new one."""
    known = used | {each.sha256 for each in made.excluded}
    older = [each for calibration in loaded.calibrations.values() for each in calibration.excluded]
    return tuple({each.sha256: each for each in older if each.sha256 not in known}.values())
