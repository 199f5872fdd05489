"""What to do next about a bundle that sees too little: rules, each with its evidence and a command.

Defect sizes are in pixels of the model's input: the square root of a region's area.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from revdist.evaluation.evaluate import Inspected
from revdist.evaluation.sensitivity import DETECTED, Sensitivity, wilson
from revdist.evaluation.what_if import IN_FORCE, Choice, all_caught
from revdist.recipe import STRIDE, Recipe
from revdist.thresholds.conformal import Calibration

SMALL_PX = 10.0  # defects below this fill hardly more than one location of the middle scale
AIM_PX = 16.0  # to this size a larger input should bring the median missed defect
LARGEST = 1024  # pixels a side that are still proposed without tiles
LOW_AUROC, HIGH_AUROC = 0.95, 0.99
MANY = 0.3  # share of missed defects from which a rule speaks
TILE = 256  # pixels a side, for inputs that are larger than LARGEST
UNSURE = 3.0  # times the wanted rate that the true one may be, from which more pictures are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do, why, and how."""

    do: str
    evidence: str
    command: str

    def sentence(self) -> str:
        return f"{self.do}: {self.evidence}. {self.command}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def of_test(
    inspected: Inspected, calibration: Calibration, recipe: Recipe, auroc: float, table: tuple[Choice, ...]
) -> list[Advice]:
    """Return what labelled test pictures advise, the most useful first; nothing where nothing is wrong."""
    missed = inspected.defective & (inspected.scores <= calibration.threshold)
    rules = [_lower_threshold(table, auroc), _other_parts(inspected, calibration)]
    if missed.any():
        rules += [_small_defects(inspected, missed, recipe), _elsewhere(inspected, missed)]
        rules.append(_combined_score(recipe, auroc))
    rules.append(_more_pictures(calibration))
    return [advice for advice in rules if advice]


def of_sensitivity(measured: Sensitivity, calibration: Calibration, recipe: Recipe) -> list[Advice]:
    """Return what painted defects advise."""
    rules = [_painted(measured, recipe), _more_pictures(calibration)]
    share = measured.clean_rejected / measured.pictures
    low, _ = wilson(measured.clean_rejected, measured.pictures)
    if low > calibration.bound95:
        evidence = f"{share:.0%} of the pictures are rejected with nothing painted, at most {calibration.bound95:.1%}"
        rules.insert(0, _recalibrate(f"{evidence} was promised"))
    return [advice for advice in rules if advice]


def _lower_threshold(table: tuple[Choice, ...], auroc: float) -> Advice | None:
    """Where scores tell apart what the threshold does not."""
    in_force, best = next(choice for choice in table if choice.name == IN_FORCE), all_caught(table)
    if auroc < HIGH_AUROC or not in_force.missed:
        return None
    low, high = best.interval
    evidence = (
        f"{in_force.missed} of {best.defective} defects pass though the image AUROC is {auroc:.3f}; at "
        f"{best.threshold:.6g} none would, and {best.rejected} of {best.good} good pictures would be rejected "
        f"({low:.1%} to {high:.1%})"
    )
    rate = max(best.rejected, 1) / best.good
    return Advice(
        do="lower the threshold",
        evidence=evidence,
        command=f"`revdist calibrate BUNDLE --good DIR --false-reject-rate {max(rate, 0.001):.3g}`, then prove it with "
        "pictures that are not among these",
    )


def _other_parts(inspected: Inspected, calibration: Calibration) -> Advice | None:
    """Where more good test pictures are rejected than chance explains."""
    good = inspected.scores[~inspected.defective]
    rejected = int((good > calibration.threshold).sum())
    low, _ = wilson(rejected, len(good))
    if low <= calibration.bound95:
        return None
    evidence = f"{rejected} of {len(good)} good test pictures are rejected"
    return _recalibrate(f"{evidence}, where at most {calibration.bound95:.1%} was promised")


def _recalibrate(evidence: str) -> Advice:
    return Advice(
        do="take in pictures of other lots and days",
        evidence=evidence,
        command="`revdist calibrate BUNDLE --good DIR` with pictures that the student has not seen, and if it lasts, "
        "`revdist train` with some of each lot (`--blocks folders` holds out whole lots)",
    )


def _small_defects(inspected: Inspected, missed: npt.NDArray[np.bool_], recipe: Recipe) -> Advice | None:
    """Where what is missed is small at this input size."""
    if inspected.pixelwise is None:
        return None
    sizes = [size for row in np.flatnonzero(missed) if (size := _largest(inspected.pixelwise.masks[row]))]
    small = [size for size in sizes if size < SMALL_PX]
    if not sizes or len(small) < MANY * len(sizes):
        return None
    evidence = (
        f"{len(small)} of {len(sizes)} missed defects are smaller than {SMALL_PX:g} pixels at "
        f"{recipe.size[0]}x{recipe.size[1]}, half of them smaller than {float(np.median(small)):.0f}"
    )
    return _larger(evidence, AIM_PX / float(np.median(small)), recipe)


def _larger(evidence: str, times: float, recipe: Recipe) -> Advice:
    height, width = size = larger(recipe.size, times)
    cost = height * width / (recipe.size[0] * recipe.size[1])
    tiles = f" --tile {TILE}" if max(size) > LARGEST else ""
    return Advice(
        do="show the networks more pixels",
        evidence=evidence,
        command=f"`revdist train --size {height}x{width}{tiles}`, which costs about {cost:.0f} times the time; "
        "compare the missed defects at equal false rejects, not the AUROC alone",
    )


def larger(size: tuple[int, int], times: float) -> tuple[int, int]:
    """Return an input size so many times as large a side, up to a multiple of the stride, and larger in any case."""
    height, width = (max(side + STRIDE, math.ceil(side * times / STRIDE) * STRIDE) for side in size)
    return height, width


def _largest(mask: npt.NDArray[np.bool_]) -> float:
    """Return the size of the largest region of a mask (h, w) in pixels; 0 where it is empty."""
    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    return float(np.sqrt(np.bincount(labels.ravel())[1:].max())) if count else 0.0


def _elsewhere(inspected: Inspected, missed: npt.NDArray[np.bool_]) -> Advice | None:
    """Where the highest place of the map is not the defect."""
    if inspected.pixelwise is None:
        return None
    rows = [row for row in np.flatnonzero(missed) if inspected.pixelwise.masks[row].any()]
    away = sum(_off(inspected.pixelwise.maps[row], inspected.pixelwise.masks[row]) for row in rows)
    if not rows or away < max(2, 2 * MANY * len(rows)):
        return None
    return Advice(
        do="let the part, not what surrounds it, make the score",
        evidence=f"in {away} of {len(rows)} missed defects the map is highest away from the defect",
        command="`revdist train --mask FILE` leaves out background that varies; parts that lie differently each time "
        "need a fixture, or a camera's region of interest",
    )


def _off(anomaly_map: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> bool:
    """Whether a map's highest place is further from the defect than smoothing moves it."""
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    return bool(ndimage.distance_transform_edt(~mask)[row, column] > STRIDE / 2)


def _combined_score(recipe: Recipe, auroc: float) -> Advice | None:
    if recipe.score == "combined" or recipe.combine != "add" or auroc >= LOW_AUROC:
        return None
    return Advice(
        do="try the combined score",
        evidence=f"the image AUROC is {auroc:.3f}, and the score is the paper's",
        command="`revdist train --score combined` had a higher image AUROC on each set in model/FIGURES.md, but not "
        "fewer misses on each at 1 and 5 % false rejects; compare those here. Inspection takes up to 1.6 times as long",
    )


def _more_pictures(calibration: Calibration) -> Advice | None:
    """Where the threshold stands on few pictures."""
    count, rate = len(calibration.scores), calibration.false_reject_rate
    if calibration.enough and calibration.bound95 <= UNSURE * rate:
        return None
    return Advice(
        do="hold out more good pictures",
        evidence=f"the threshold is made of {count}, so that up to {calibration.bound95:.1%} of good parts may be "
        f"rejected instead of {rate:.1%} (95 % sure)",
        command=f"`revdist calibrate BUNDLE --good DIR --false-reject-rate {rate:g}` with more, also of other lots",
    )


def _painted(measured: Sensitivity, recipe: Recipe) -> Advice | None:
    """Where even painted defects of full contrast must be large."""
    contrast = max(probe.contrast for probe in measured.probes)
    smallest = {
        kind: measured.smallest(kind, contrast) for kind in dict.fromkeys(probe.kind for probe in measured.probes)
    }
    hard = {kind: size for kind, size in smallest.items() if size is None or size > AIM_PX}
    if not hard:
        return None
    told = ", ".join(f"{kind} {f'from {size:g} px' if size else 'at no size'}" for kind, size in hard.items())
    evidence = f"painted defects of full contrast are seen in {DETECTED:.0%} of pictures only so: {told}"
    return _larger(evidence, 2.0, recipe)


def told(advices: Sequence[Advice]) -> Iterator[str]:
    """Yield the lines of a terminal."""
    yield "what to do next" if advices else "what to do next: nothing that these pictures ask for"
    for advice in advices:
        yield f"  {advice.do}: {advice.evidence}"
        yield f"    {advice.command}"
