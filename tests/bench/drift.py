"""How soon drift is seen, how often it is named rightly, and how often it is seen where there is none.

    python tests/bench/drift.py --tiles ../shared/data/magnetic_tile

Real photographs, each changed in light, focus, place or by dirt on the lens, to several degrees. A student is trained
with good pictures of a set; others, that it never saw, pass in random order and again and again: first as they are, for
the watcher to learn, then changed. A false alarm is one before the change. `--json` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import sets

from rejectd.contract.messages import DriftCause
from rejectd.drift.causes import cause
from rejectd.drift.part import Reference, cells
from rejectd.drift.watched import Watched
from revdist import recipe
from revdist.data import appearance, images
from revdist.engines.engine import Engine
from revdist.networks import teacher
from revdist.thresholds import conformal
from revdist.training import train
from revdist.training.checkpoint import Checkpoint

Picture: TypeAlias = images.Pixels
RATE = 0.02
YEAR = 365.25 * 86_400  # parts, at one a second
LEARNING, QUIET, LONGEST, LATER = 500, 300, 600, 20
Values: TypeAlias = npt.NDArray[np.float64]


def light(picture: Picture, gain: float) -> Picture:
    return np.clip(picture.astype(np.float32) * gain, 0, 255).astype(np.uint8)


def focus(picture: Picture, sigma: float) -> Picture:
    """`sigma` in pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def shift(picture: Picture, share: float) -> Picture:
    """To the right by a share of the width, and down by half as much."""
    height, width = picture.shape[:2]
    across = round(share * width)
    matrix = np.array([[1, 0, across], [0, 1, across // 2]], np.float32)
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)


def dirt(picture: Picture, share: float) -> Picture:
    """A soft spot that takes half of the light; its radius as a share of the shorter side."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    squared = ((rows - 0.3 * height) ** 2 + (columns - 0.7 * width) ** 2) / (share * min(height, width)) ** 2
    return np.asarray(picture * (1 - 0.5 * np.exp(-(squared**2)))[..., np.newaxis], np.uint8)


Change: TypeAlias = Callable[[Picture, float], Picture]
CHANGES: dict[DriftCause, tuple[Change, tuple[float, ...], str]] = {
    DriftCause.LIGHT: (light, (0.95, 0.9, 0.8, 0.6), "times the light"),
    DriftCause.FOCUS: (focus, (0.5, 1.0, 1.5, 2.5), "pixels of blur"),
    DriftCause.SHIFT: (shift, (0.02, 0.05, 0.1, 0.2), "of the width"),
    DriftCause.DIRT: (dirt, (0.03, 0.06, 0.1, 0.15), "of the side: radius of the spot"),
}
DEFECTIVE = (0.05, 0.1, 0.2, 0.4)  # share of defective parts


@dataclass(frozen=True)
class Seen:
    """What the watcher gets of pictures: a row for each."""

    scores: Values
    looks: Values
    cells: Values


@dataclass(frozen=True)
class Trained:
    """A student, as a bundle would have it."""

    engine: Engine
    reference: Reference
    threshold: float

    def see(self, pictures: list[Picture]) -> Seen:
        scores = scored(self.engine, pictures)
        looks = np.array([appearance.of_pixels(picture) for picture in pictures])
        return Seen(scores, looks, np.array([cells(picture) for picture in pictures]))


def scored(engine: Engine, pictures: list[Picture]) -> Values:
    batches = [pictures[at : at + 8] for at in range(0, len(pictures), 8)]
    return np.concatenate([engine.inspect(batch, ["p"] * len(batch)).scores for batch in batches]).astype(np.float64)


def trained(data: sets.Data, steps: int, size: int) -> Trained:
    encoder = teacher.load("efficientnet_lite0")
    chosen = replace(recipe.default("efficientnet_lite0"), size=(size, size), steps=steps)
    engine = Engine(encoder, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        state = Checkpoint(Path(folder) / "state", {})
        student = train.make_student(chosen, encoder, engine.device)
        fitted = train.fit(engine, student, data.good, chosen, state, threading.Event())
    engine.add("p", fitted.average, chosen.size)
    held_out = scored(engine, data.held_out)
    calibration = conformal.calibrate(held_out.tolist(), RATE, engine=engine.identity, fingerprint="0" * 64)
    looks = np.array([appearance.of_pixels(picture) for picture in data.good])
    names = (appearance.BRIGHTNESS, appearance.CONTRAST, appearance.SHARPNESS)
    reference = Reference(scores=calibration.scores, looks=dict(zip(names, looks.T, strict=True)))
    return Trained(engine, reference, calibration.threshold)


def rows(seen: Seen, defective: Seen, share: float, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Parts without end."""
    while True:
        of = defective if rng.random() < share else seen
        row = int(rng.integers(len(of.scores)))
        yield float(of.scores[row]), of.looks[row], of.cells[row]


def series(student: Trained, as_is: Seen, after: Seen, defective: Seen, share: float, seed: int) -> dict[str, Any]:
    """One series: learn, pass, change; what was said when, counted from the change, and what some parts later."""
    rng = np.random.default_rng(seed)
    watched = Watched("p", student.reference, LEARNING)
    before, changed = rows(as_is, defective, 0.01, rng), rows(after, defective, share, rng)

    def step(parts: Iterator[tuple[Any, ...]]) -> tuple[DriftCause, str] | None:
        score, looks, of_cells = next(parts)
        watched.observe(score, student.threshold, looks, of_cells, YEAR)
        return cause(watched.signs(YEAR))

    for _ in range(LEARNING + QUIET):
        if named := step(before):
            return {"false": named[0]}
    for delay in range(1, LONGEST + 1):
        if named := step(changed):
            for _ in range(LATER):
                step(changed)
            later = cause(watched.signs(YEAR), least=0.0)
            return {"delay": delay, "named": named[0], "later": later[0] if later else None}
    return {}


def quiet(student: Trained, as_is: Seen, limit: float, parts: int, seed: int) -> int:
    """False alarms among so many parts, those of the learning included; the watcher begins anew after each."""
    rng = np.random.default_rng(seed)
    alarms, watched, left = 0, Watched("p", student.reference, LEARNING), parts
    for score, looks, of_cells in rows(as_is, as_is, 0.0, rng):
        watched.observe(score, student.threshold, looks, of_cells, limit)
        left -= 1
        if cause(watched.signs(limit)):
            alarms += 1
            watched = Watched("p", student.reference, LEARNING)
        if left <= 0:
            return alarms
    raise AssertionError


def summary(name: str, kind: str, degree: str, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    seen = [outcome for outcome in outcomes if "delay" in outcome]
    return {
        "set": name,
        "kind": kind,
        "degree": degree,
        "series": len(outcomes),
        "false": sum("false" in outcome for outcome in outcomes),
        "false_causes": [outcome["false"] for outcome in outcomes if "false" in outcome],
        "seen": len(seen),
        "delay": float(np.median([outcome["delay"] for outcome in seen])) if seen else None,
        "right": sum(outcome["named"] == kind for outcome in seen),
        "right_later": sum(outcome["later"] == kind for outcome in seen),
    }


def measure(name: str, root: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    data = sets.load(name, root, (options.size, options.size), 0)
    student = trained(data, options.steps, options.size)
    good = [picture for picture, bad in zip(data.tested, data.defective, strict=True) if not bad]
    bad = [picture for picture, defective in zip(data.tested, data.defective, strict=True) if defective]
    as_is, defective = student.see(good), student.see(bad)
    table = []
    for kind, (change, degrees, unit) in CHANGES.items():
        for degree in degrees:
            after = student.see([change(picture, degree) for picture in good])
            outcomes = [series(student, as_is, after, defective, 0.01, seed) for seed in range(options.series)]
            table.append(summary(name, kind, f"{degree:g} {unit}", outcomes))
            print(table[-1], flush=True)
    for share in DEFECTIVE:
        outcomes = [series(student, as_is, as_is, defective, share, seed) for seed in range(options.series)]
        table.append(summary(name, DriftCause.DEFECTS, f"{share:.0%} defective, before 1%", outcomes))
        print(table[-1], flush=True)
    false = []
    for limit in (5000.0, 50_000.0, YEAR):
        alarms = quiet(student, as_is, limit, options.quiet, 1)
        false.append({"set": name, "parts": options.quiet, "allowed": options.quiet / limit, "alarms": alarms})
        print(false[-1], flush=True)
    return table, false


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, metavar="ROOT", help="magnetic_tile in the MVTec layout")
    parser.add_argument("--sets", nargs="+", choices=sets.SETS, default=sets.SETS[:2], metavar="NAME")
    parser.add_argument("--size", type=int, default=128, help="pixels of the model's input")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--series", type=int, default=10, help="of each degree of each change")
    parser.add_argument("--quiet", type=int, default=20_000, help="parts without a change, for each limit")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    figures: dict[str, list[dict[str, Any]]] = {"changes": [], "quiet": []}
    for name in options.sets:
        table, false = measure(name, options.tiles, options)
        figures["changes"] += table
        figures["quiet"] += false
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
