"""Gathers the figures of a report from the bundle and, if there is data, from test pictures and painted defects."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from revdist.bundle import bundle as bundles
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.evaluation import evaluate, look, sensitivity
from revdist.evaluation.evaluate import Evaluation, Inspected
from revdist.evaluation.sensitivity import Grid, Sensitivity
from revdist.report import cases
from revdist.report.cases import Case, Chosen
from revdist.thresholds.conformal import Calibration
from revdist.training import holdout

SEED = 0  # of the painted defects


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """The pictures that a report uses besides the bundle."""

    data: Path | None = None  # root of an MVTec layout
    good: Path | None = None  # good pictures to paint defects on; default: those of the data
    grid: Grid = Grid()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Test:
    """The results on the labelled test pictures."""

    inspected: Inspected
    evaluation: Evaluation
    fingerprint: str  # of the test pictures
    trained_on: int  # test pictures that the student was trained on; should be 0
    escapes: tuple[Case, ...]  # the worst ones
    false_rejects: tuple[Case, ...]  # the worst ones
    typical: tuple[Case, ...]
    unlike: tuple[str, ...]  # sentences: how the good pictures differ from the training pictures

    @property
    def missed(self) -> int:
        """Return how many defective pictures pass."""
        return round(self.evaluation.escape_rate * self.evaluation.defective)

    @property
    def rejected(self) -> int:
        """Return how many good pictures are rejected."""
        return round(self.evaluation.false_reject_rate * self.evaluation.good)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figures:
    """Everything that a report shows."""

    bundle: Bundle
    calibration: Calibration
    written_at: datetime
    revdist: str  # version
    golden: tuple[Case, ...]
    test: Test | None
    sensitivity: Sensitivity | None
    painted_on: str  # which good pictures the defects are painted on


def gather(bundle: Bundle, engine: Engine, request: ReportRequest, written_at: datetime) -> Figures:
    """Measure a bundle that the engine holds. Every test picture is inspected once, shown pictures once more.

    Raises DataError, ImageError, or CalibrationError where the engine has no calibration or the student was trained
    on all pictures that defects could be painted on.
    """
    calibration = bundle.calibration(engine.identity)
    good, painted_on = _good(request)
    return Figures(
        bundle=bundle,
        calibration=calibration,
        written_at=written_at,
        revdist=importlib.metadata.version("rejectd"),
        golden=_golden(bundle, engine, calibration),
        test=_test(bundle, engine, calibration, request.data) if request.data else None,
        sensitivity=_sensitivity(bundle, engine, calibration, good, request.grid) if good else None,
        painted_on=painted_on,
    )


def _good(request: ReportRequest) -> tuple[list[Path], str]:
    """Return the pictures of good parts to paint on, and a name for them."""
    if request.good:
        return images.pictures_below(images.good_folder(request.good)), "the given pictures of good parts"
    if request.data:
        samples = images.labelled_pictures(request.data)
        return [sample.path for sample in samples if not sample.defective], "the good test pictures"
    return [], ""


def _sensitivity(
    bundle: Bundle, engine: Engine, calibration: Calibration, good: Sequence[Path], grid: Grid
) -> Sensitivity:
    drawn = sensitivity.draw(holdout.unseen(bundle, good), grid.pictures, SEED)
    holdout.check_depth(bundle, drawn)
    pictures = evaluate.read_prepared(drawn, bundle.size, bundle.recipe.reading)
    return sensitivity.measure(engine, bundle.product, calibration, pictures, seed=SEED, grid=grid)


def _golden(bundle: Bundle, engine: Engine, calibration: Calibration) -> tuple[Case, ...]:
    chosen = [
        Chosen(name=golden.file, path=bundle.path / golden.file, mask=None, defective=golden.kind == "scratch")
        for golden in bundle.golden
    ]
    plain = dataclasses.replace(bundle, recipe=dataclasses.replace(bundle.recipe, alignment=None))
    return _shown(plain, engine, calibration, chosen)  # golden pictures are prepared: their parts lie right


def _shown(bundle: Bundle, engine: Engine, calibration: Calibration, chosen: Sequence[Chosen]) -> tuple[Case, ...]:
    scoring = bundles.scoring(bundle)
    return tuple(
        cases.show(engine, bundle.product, calibration, scoring, picture, bundle.recipe.reading) for picture in chosen
    )


def _test(bundle: Bundle, engine: Engine, calibration: Calibration, root: Path) -> Test:
    tests = images.labelled_pictures(root)
    holdout.check_tests(bundle, [sample.path for sample in tests])
    good = [sample.path for sample in tests if not sample.defective]
    unlike = look.unlike(engine, bundle.trained_appearance, good, bundle.recipe, "the good test pictures", bundle.mask)
    inspected = evaluate.inspect_labelled(engine, bundle.product, root, bundle.recipe.reading)
    samples, scores, threshold = inspected.samples, inspected.scores, calibration.threshold

    def shown(rows: Sequence[int]) -> tuple[Case, ...]:
        chosen = [
            Chosen(
                name=samples[row].path.relative_to(root / "test").as_posix(),
                path=samples[row].path,
                mask=samples[row].mask,
                defective=samples[row].defective,
            )
            for row in rows
        ]
        return _shown(bundle, engine, calibration, chosen)

    return Test(
        inspected=inspected,
        evaluation=evaluate.measure(inspected, calibration),
        fingerprint=images.fingerprint([sample.path for sample in samples]),
        trained_on=sum(images.content_hash(sample.path) in bundle.trained_on for sample in samples),
        escapes=shown(cases.worst_escapes(samples, scores, threshold)),
        false_rejects=shown(cases.worst_false_rejects(samples, scores, threshold)),
        typical=shown(cases.typical(samples, scores)),
        unlike=tuple(unlike),
    )
