"""Set a bundle's threshold anew: for another false-reject rate, with more good pictures, or for another engine."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from revdist import bundle, holdout, images
from revdist.bundle import Bundle
from revdist.conformal import Calibration, Guarantee
from revdist.engine import Engine
from revdist.suspects import Excluded

log = logging.getLogger("revdist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to calibrate for, and with which pictures."""

    good: Path  # pictures of good parts, or the root of an MVTec layout
    false_reject_rate: float
    guarantee: Guarantee = "average"
    blocks: str = ""  # as in a recipe
    exclude: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """The bundle with its new calibration, and how many pictures were left out because it was trained on them."""

    bundle: Bundle
    left_out: int


def recalibrate(path: Path, request: Request, engine: Engine) -> Recalibration:
    """Calibrate the bundle at `path` on this engine, which then holds its product.

    Pictures that the student was trained on score too low to be of use: they are recognised by their content and left
    out. Pictures that an older calibration excludes stay on record unless they are used now.
    Raises CalibrationError where nothing remains, RecipeError, BundleError, DataError or ImageError.
    """
    loaded = bundle.load(path, engine)
    wanted = dataclasses.replace(
        loaded.recipe,
        false_reject_rate=request.false_reject_rate,
        guarantee=request.guarantee,
        blocks=request.blocks,
    )
    good = holdout.gather(request.good, request.blocks, request.exclude)
    unseen = holdout.unseen(loaded, good.used)
    made = holdout.calibrate(engine, loaded.product, good, unseen, wanted)
    kept = _still_excluded(loaded, {images.content_hash(each) for each in unseen}, made)
    for each in made.excluded:
        if each.sha256 in loaded.trained_on:
            log.warning("%s is excluded, but the student was trained on it: train again without it", each.file)
    made = dataclasses.replace(made, excluded=made.excluded + kept)
    return Recalibration(bundle=bundle.recalibrate(loaded, made), left_out=len(good.used) - len(unseen))


def _still_excluded(loaded: Bundle, used: set[str], made: Calibration) -> tuple[Excluded, ...]:
    """What older calibrations exclude, each once, and neither used nor excluded by the new one."""
    known = used | {each.sha256 for each in made.excluded}
    older = [each for calibration in loaded.calibrations.values() for each in calibration.excluded]
    return tuple({each.sha256: each for each in older if each.sha256 not in known}.values())
