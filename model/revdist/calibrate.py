"""Set a bundle's threshold anew: for another false-reject rate, with more good pictures, or for another engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from revdist import bundle, conformal, evaluate, images
from revdist.bundle import Bundle
from revdist.engine import Engine
from revdist.errors import CalibrationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """The bundle with its new calibration, and how many pictures were left out because it was trained on them."""

    bundle: Bundle
    left_out: int


def recalibrate(path: Path, good: Path, false_reject_rate: float, engine: Engine) -> Recalibration:
    """Calibrate the bundle at `path` on this engine with the pictures of good parts in `good`.

    Pictures that the student was trained on score too low to be of use: they are recognised by their content and left
    out. Raises CalibrationError where nothing remains, BundleError, DataError or ImageError.
    """
    loaded = bundle.load(path, engine)
    pictures = images.good_pictures(good)
    unseen = [picture for picture in pictures if images.content_hash(picture) not in loaded.trained_on]
    if not unseen:
        raise CalibrationError(
            f"{good}: the student was trained on all {len(pictures)} pictures",
            hint="take pictures that it has not seen",
        )
    calibration = conformal.calibrate(
        evaluate.scores(engine, loaded.product, unseen),
        false_reject_rate,
        engine=engine.identity,
        fingerprint=images.fingerprint(unseen),
    )
    return Recalibration(bundle=bundle.recalibrate(loaded, calibration), left_out=len(pictures) - len(unseen))
