"""Turns checkpoints of the paper's code (github.com/hq-deng/RD4AD) into bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from revdist import recipe
from revdist.bundle import bundle_files
from revdist.bundle.bundle import Bundle
from revdist.engines.engine import Engine
from revdist.errors import BundleError
from revdist.networks import resnet, weights
from revdist.networks.teacher import Teacher
from revdist.recipe import check_product
from revdist.scoring import detector
from revdist.thresholds.conformal import Guarantee
from revdist.training import confirmation, holdout, packing

_UNUSED = {"bn": ("conv4.", "bn4."), "decoder": ()}  # built and saved by the official code, never run
_HINT = "the checkpoint is of another teacher, or not of the official code; check --teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """The checkpoint to make a bundle of, and the pictures and settings for its threshold."""

    checkpoint: Path
    product: str
    good: Path  # good parts that the checkpoint was not trained with: they set the threshold
    output: Path
    size: tuple[int, int] = (256, 256)
    false_reject_rate: float = 0.01
    guarantee: Guarantee = "average"
    exclude: Sequence[Path] = ()
    bits: int = 0  # of 16-bit pictures that count; 0: not stated
    confirm: tuple[Path, ...] | None = None  # outliers that a person has confirmed as good; (): all, None: none
    replace: bool = False  # replace a bundle that is at `output`


def student(checkpoint: Path, teacher: str) -> detector.Student:
    """Load the student of a checkpoint `{"bn": ..., "decoder": ...}`; drop conv4 and bn4, which are never run.

    Raises BundleError that lists missing and unexpected tensors, and tensors of a wrong shape.
    """
    if teacher not in resnet.NAMES:
        raise BundleError(
            f"{checkpoint}: the official code has no teacher {teacher}", hint=f"choose {', '.join(resnet.NAMES)}"
        )
    _, parts = weights.read(checkpoint, BundleError)
    if not isinstance(parts, dict) or set(parts) != set(_UNUSED):
        contents = ", ".join(sorted(map(str, parts))[:8]) if isinstance(parts, dict) else type(parts).__name__
        raise BundleError(f"{checkpoint}: expected bn and decoder, found {contents}", hint=_HINT)
    network = detector.Student(teacher)
    for name, module in (("bn", network.bottleneck), ("decoder", network.decoder)):
        source = f"{checkpoint}: {name}"
        state = weights.state_dict(parts[name], source, BundleError)
        weights.fill(module, state, source, BundleError, unused=_UNUSED[name], hint=_HINT)
    return network.eval()


def import_checkpoint(wanted: Import, teacher: Teacher, *, device: str = "auto") -> Bundle:
    """Calibrate a checkpoint's student and write it as a bundle. Raises RevdistError."""
    check_product(wanted.product)
    bundle_files.check_place(wanted.output, replace=wanted.replace)
    official_recipe = replace(
        recipe.official(teacher.name),
        size=wanted.size,
        bits=wanted.bits,
        false_reject_rate=wanted.false_reject_rate,
        guarantee=wanted.guarantee,
    )
    loaded = student(wanted.checkpoint, teacher.name)
    good = holdout.gather(wanted.good, "", wanted.exclude, how=official_recipe.reading)
    return packing.pack(
        packing.engines(teacher, Engine(teacher, device=device)),
        loaded,
        official_recipe,
        product=wanted.product,
        output=wanted.output,
        good=good,
        fitted=(),
        held_out=good.used,
        quality={},
        confirmed=confirmation.confirmed(wanted.confirm, good.root),
        replace=wanted.replace,
    )
