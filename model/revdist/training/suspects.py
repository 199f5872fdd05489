"""Writes overlays of the held-out pictures with the highest scores, for a person who says whether they are good."""

from __future__ import annotations

import logging
from pathlib import Path

from revdist.data import fitting, images
from revdist.data.reading import PLAIN, Reading
from revdist.engines.engine import Engine
from revdist.errors import RevdistError
from revdist.evaluation import heatmaps
from revdist.files import trouble
from revdist.thresholds.conformal import Calibration

log = logging.getLogger("revdist")


def write(
    folder: Path, engine: Engine, product: str, calibration: Calibration, good: Path, how: Reading = PLAIN
) -> None:
    """Write overlays of a calibration's suspects as <place>-<stem>.png; place 1 scores highest. Raises RevdistError."""
    root = images.good_folder(good)
    for place, suspect in enumerate(calibration.suspects, 1):
        if not (root / suspect.file).is_file():
            log.warning("%s does not lie in %s: no overlay of it", suspect.file, root)
            continue
        picture = images.read(root / suspect.file, how)
        inspection = engine.inspect([images.prepare(picture, engine.size(product), how.fit)], [product])
        overlay = heatmaps.heatmap(
            picture, fitting.over_picture(inspection.map(0), picture.shape, how.fit), calibration.threshold
        )
        file = folder / f"{place}-{Path(suspect.file).stem}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encode_png(overlay))
        except trouble.FILE_ERRORS as error:
            raise trouble.error(RevdistError, error, file, "written", hint="choose another --suspects") from error
