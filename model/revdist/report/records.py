"""Builds the sections of a report on the calibration and its promise, the recipe and the provenance."""

from __future__ import annotations

import dataclasses

from revdist.evaluation.sensitivity import wilson
from revdist.report import charts
from revdist.report.charts import Range
from revdist.report.gather import Figures, Test
from revdist.report.markup import Content, Markup, join, section, table, tag, terms
from revdist.thresholds.conformal import Calibration, needed, needed_with_confidence


def calibration(calibrated: Calibration, test: Test | None, held_out_share: float) -> Markup:
    """Show the threshold, its promise, the test pictures' verdict on it, and the pictures that set it."""
    rate = calibrated.false_reject_rate
    guarantee = "on average" if calibrated.guarantee == "average" else "with 95% confidence"
    pairs: list[tuple[str, Content]] = [
        ("Threshold (score, no unit)", f"{calibrated.threshold:.6g}"),
        ("Held-out good pictures", str(len(calibrated.scores))),
        ("Wanted false-reject rate", f"{rate:.2%} {guarantee}"),
        ("Bound on average", f"{calibrated.attained_rate:.2%}"),
        ("Bound with 95% confidence", f"{calibrated.bound95:.2%}"),
        ("Pictures needed", f"{needed(rate)} on average, {needed_with_confidence(rate)} with 95% confidence"),
    ]
    proviso = "It holds as long as the parts to come are like the held-out ones. It says nothing about missed defects."
    return section(
        "calibration",
        "Calibration",
        tag("p", f"{calibrated.advice(held_out_share)}. {proviso}"),
        charts.ranges(_ranges(calibrated, test), rate, "False-reject rate: wanted, promised and measured"),
        terms(pairs),
        *_calibration_tables(calibrated),
    )


def _ranges(calibrated: Calibration, test: Test | None) -> list[Range]:
    """Return the false-reject rate as promised, as estimated and as tested."""
    average_bound, confident_bound = calibrated.attained_rate, calibrated.bound95
    rows = [
        Range(name="promised on average", value=None, low=0, high=average_bound, note=f"at most {average_bound:.2%}"),
        Range(
            name="promised, 95% sure", value=None, low=0, high=confident_bound, note=f"at most {confident_bound:.2%}"
        ),
    ]
    if calibrated.estimate:
        low, high = calibrated.estimate.rate_interval
        note = f"{calibrated.estimate.rate:.2%} ({low:.2%} to {high:.2%})"
        rows.append(Range(name="estimate from a tail", value=calibrated.estimate.rate, low=low, high=high, note=note))
    if test:
        good, rejected = test.evaluation.good, test.rejected
        low, high = wilson(rejected, good)
        note = f"{rejected / good:.2%} ({low:.2%} to {high:.2%})"
        rows.append(Range(name="test pictures", value=rejected / good, low=low, high=high, note=note))
    return rows


def _calibration_tables(calibrated: Calibration) -> list[Markup]:
    tables = []
    if calibrated.blocks:
        rows: list[tuple[str, ...]] = [
            (block.name, str(block.pictures), f"{block.rejected / block.pictures:.2%}") for block in calibrated.blocks
        ]
        caption = "Blocks, each at a threshold from the others alone"
        tables.append(table(caption, ("block", "pictures", "rejected"), rows))
    if calibrated.suspects:
        rows = [
            (suspect.file, f"{suspect.score / calibrated.threshold:.2f}", "OUTLIER" if suspect.outlier else "no")
            for suspect in calibrated.suspects
        ]
        caption = "Held-out pictures with the highest scores: are they good?"
        if calibrated.unconfirmed:
            caption += f" {len(calibrated.unconfirmed)} of the outliers set no threshold until a person confirms them."
        tables.append(table(caption, ("file", "score, x threshold", "far from all others"), rows))
    if calibrated.excluded:
        rows = [
            (excluded.file, f"{excluded.score / calibrated.threshold:.2f}", excluded.sha256[:12])
            for excluded in calibrated.excluded
        ]
        tables.append(table("Excluded by hand", ("file", "score, x threshold", "SHA-256 begins"), rows))
    else:
        tables.append(tag("p", "No picture was excluded by hand.", class_="quiet"))
    return tables


def provenance(figures: Figures) -> Markup:
    """Show the recipe, and everything that identifies bundle, data and programs."""
    bundle, test = figures.bundle, figures.test
    height, width = bundle.size
    pairs: list[tuple[str, Content]] = [
        ("Product", bundle.product),
        ("Bundle digest (SHA-256)", tag("code", bundle.digest)),
        ("Teacher", join(f"{bundle.teacher.name} ", tag("code", bundle.teacher.sha256))),
        ("Input", f"{height} x {width} pixels (height x width)"),
        (
            "Not inspected",
            f"{bundle.mask.share:.1%} of the picture, hatched in heat maps" if bundle.mask else "nothing",
        ),
        ("Alignment", bundle.recipe.alignment.told if bundle.recipe.alignment else "none"),
        ("Training data fingerprint (SHA-256)", tag("code", bundle.fingerprint)),
        ("Held-out data fingerprint (SHA-256)", tag("code", figures.calibration.fingerprint)),
    ]
    if test:
        pairs.append(("Test data fingerprint (SHA-256)", tag("code", test.fingerprint)))
        pairs.append(("Speed on this machine", f"{test.evaluation.images_per_second:.1f} images/s, reading included"))
    pairs += [
        ("Seed", str(bundle.recipe.seed)),
        ("Engine", figures.calibration.engine),
        ("Trained with", ", ".join(f"{name} {version}" for name, version in bundle.versions.items())),
        ("Report", f"revdist {figures.revdist}, {figures.written_at:%Y-%m-%d %H:%M %Z}"),
    ]
    recipe = [
        (field.name.replace("_", " "), _plain(getattr(bundle.recipe, field.name)))
        for field in dataclasses.fields(bundle.recipe)
        if field.name != "alignment"
    ]
    quality = [(name.replace("_", " "), f"{value:.6g}") for name, value in bundle.quality.items()]
    return section(
        "provenance",
        "Recipe and provenance",
        terms(pairs),
        tag(
            "div",
            table("Recipe", ("setting", "value"), recipe),
            table("Training", ("figure", "value"), quality),
            class_="pair",
        ),
    )


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return str(value) or "-"
