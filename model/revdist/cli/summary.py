"""Turns bundles, evaluations, calibrations and sensitivities into lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from revdist.bundle.bundle import Bundle
from revdist.evaluation.evaluate import Evaluation
from revdist.evaluation.sensitivity import DETECTED, Sensitivity
from revdist.evaluation.what_if import Choice
from revdist.recipe import Recipe
from revdist.thresholds.conformal import Calibration
from revdist.thresholds.pareto_tail import FEWEST


def bundle(product_bundle: Bundle) -> Iterator[str]:
    """Describe a bundle; its files were checked when it was read."""
    recipe = product_bundle.recipe
    fit = "" if recipe.fit == "stretch" else f", {recipe.fit} to its aspect ratio"
    yield f"product      {product_bundle.product}"
    yield f"digest       {product_bundle.digest}"
    yield f"teacher      {product_bundle.teacher.name} {product_bundle.teacher.sha256}"
    yield f"input        {product_bundle.size[0]}x{product_bundle.size[1]} pixels (height x width){_tiled(recipe)}{fit}"
    yield f"training     {recipe.steps} steps of {recipe.batch}, seed {recipe.seed}, data {product_bundle.fingerprint}"
    scales = ", ".join(map(str, recipe.scales))
    yield f"student      {recipe.student}, bottleneck {recipe.bottleneck}"
    yield f"map          scales {scales}, combine {recipe.combine}, score {recipe.score}"
    if recipe.alignment:
        yield f"alignment    {recipe.alignment.told}"
    if product_bundle.mask:
        yield f"mask         {product_bundle.mask.share:.1%} of the picture is not inspected"
    yield f"quality      {', '.join(f'{name} {value:.6g}' for name, value in product_bundle.quality.items())}"
    yield f"versions     {', '.join(f'{name} {value}' for name, value in product_bundle.versions.items())}"
    for engine_calibration in product_bundle.calibrations.values():
        first_line, *other_lines = calibration(engine_calibration, recipe.holdout)
        yield f"calibration  {first_line}"
        yield from other_lines
    for sentence in product_bundle.held_out_unlike:
        yield f"WARNING      {sentence}"
    yield f"golden       {len(product_bundle.golden)} pictures; all files agree with the manifest"


def _tiled(recipe: Recipe) -> str:
    count, (height, width) = recipe.tiles.count, recipe.tiles.tile
    return "" if count == 1 else f", in {count} tiles of {height}x{width}"


def evaluation(result: Evaluation) -> Iterator[str]:
    """Yield the figures of a test set, one a line."""
    percent = {"image AUROC": result.image_auroc, "pixel AUROC": result.pixel_auroc, "PRO (data set)": result.pro}
    percent |= {"PRO (per image)": result.pro_per_image}
    for name, value in percent.items():
        yield f"{name:18} {'no masks' if value is None else f'{value:8.2%}'}"
    yield f"{'false rejects':18} {_share(result.false_reject_rate, result.good)}"
    yield f"{'missed defects':18} {_share(result.escape_rate, result.defective)}"
    for kind, rate in result.escape_rate_by_kind.items():
        yield f"{f'  {kind}':18} {rate:8.2%} of them missed"
    yield f"{'threshold':18} {result.threshold:8.4f}"
    yield f"{'images/s':18} {result.images_per_second:8.1f}"


def what_if(table: Sequence[Choice]) -> Iterator[str]:
    """Yield what other thresholds would do to these pictures."""
    yield "what if: other thresholds on these pictures; one that is chosen here must be proven with others"
    yield f"  {'threshold':>10}  {'good rejected':>16}  {'95 % interval':>15}  {'defects missed':>16}"
    for choice in table:
        low, high = choice.interval
        rejected, missed = f"{choice.rejected} of {choice.good}", f"{choice.missed} of {choice.defective}"
        interval = f"{low:.1%} - {high:.1%}"
        yield f"  {choice.threshold:10.6g}  {rejected:>16}  {interval:>15}  {missed:>16}  {choice.name}"


def _share(rate: float, total: int) -> str:
    """Write a share of some pictures as a count and in percent."""
    count = f"{round(rate * total)} of {total}"
    return f"{count:>8} ({rate:.2%})"


def promises(found: Bundle) -> Iterator[str]:
    """Describe a new bundle's promise in full for one engine; for others, which promise the same, in a line."""
    first, *others = found.calibrations.values()
    yield from calibration(first, found.recipe.holdout)
    for other in others:
        yield f"{other.engine}: threshold {other.threshold:.6g}, of the same pictures"


def calibration(calibrated: Calibration, held_out_share: float) -> Iterator[str]:
    """Yield the threshold and its promise; then blocks, exclusions and suspects, if there are any."""
    yield f"{calibrated.engine}: threshold {calibrated.threshold:.6g}. {calibrated.advice(held_out_share)}"
    if calibrated.blocks:
        yield "  blocks, each at a threshold from the others alone (more rejects than promised: they differ):"
    for block in calibrated.blocks:
        yield f"    {block.rejected / block.pictures:7.2%} of {block.pictures:5} rejected  {block.name}"
    if calibrated.excluded:
        yield f"  {len(calibrated.excluded)} excluded by hand:"
    for excluded in calibrated.excluded:
        yield f"    {_times(excluded.score, calibrated)} x median  {excluded.sha256[:12]}  {excluded.file}"
    if calibrated.unconfirmed:
        count, moved = len(calibrated.unconfirmed), calibrated.with_unconfirmed().threshold
        yield (
            f"  {count} OUTLIER{'S' if count > 1 else ''} left out of the threshold until a person confirms them "
            f"(--confirm-outliers): {calibrated.threshold:.6g} without, {moved:.6g} with"
        )
        yield f"    {_what_to_do(calibrated)}"
    if calibrated.suspects:
        yield "  held-out pictures with the highest scores; are they good? If not: --exclude"
    for suspect in calibrated.suspects:
        flag = "OUTLIER" if suspect.outlier else "       "
        share = (calibrated.scores >= suspect.score).mean()
        yield f"    {_times(suspect.score, calibrated)} x median  p {share:.4f}  {flag}  {suspect.file}"


def _what_to_do(calibrated: Calibration) -> str:
    """Say what a person decides about outliers."""
    few = "" if len(calibrated.scores) >= FEWEST else "among so few pictures good parts are flagged too; "
    return (
        f"{few}look at them (--suspects): bad parts, then --exclude; good parts, then `revdist calibrate` with "
        "--confirm-outliers. What is promised holds if they are bad parts"
    )


def _times(score: float, calibrated: Calibration) -> str:
    return f"{score / calibrated.median:6.2f}" if calibrated.median > 0 else "     -"


def sensitivity(measured: Sensitivity) -> Iterator[str]:
    """Yield a table for each kind of defect: detection by size and contrast, and the smallest size detected."""
    yield (
        f"SYNTHETIC defects on {measured.pictures} good pictures at threshold {measured.threshold:.6g}: "
        "a probe, no measure of real defects"
    )
    yield f"{measured.clean_rejected} of the {measured.pictures} are rejected with nothing painted"
    sizes = sorted({probe.size_px for probe in measured.probes})
    for kind in dict.fromkeys(probe.kind for probe in measured.probes):
        head = "".join(f"{f'{size:g} px':>16}" for size in sizes)
        yield f"{kind:10}{head}{f'{DETECTED:.0%} from':>12}"
        for contrast in sorted({probe.contrast for probe in measured.probes if probe.kind == kind}):
            yield _row(measured, kind, contrast)


def _row(measured: Sensitivity, kind: str, contrast: float) -> str:
    cells = []
    for probe in sorted(measured.probes, key=lambda probe: probe.size_px):
        if (probe.kind, probe.contrast) == (kind, contrast):
            low, high = probe.interval
            cells.append(f"{f'{probe.rate:.0%} ({low:.0%}-{high:.0%})':>16}")
    smallest = measured.smallest(kind, contrast)
    return f"  {contrast:<8g}{''.join(cells)}{f'{smallest:g} px' if smallest else 'none':>12}"
