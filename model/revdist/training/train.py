"""Train the student of one product from pictures of good parts, calibrate it, and pack the bundle.

N pictures or tiles to train with, B pictures of a step, C H W of a feature map.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from revdist.bundle import bundle_files
from revdist.bundle.bundle import Bundle
from revdist.data import appearance, augment, images, inspection_mask, likeness, lots
from revdist.data.inspection_mask import InspectionMask
from revdist.engines import free_threads
from revdist.engines.engine import Engine
from revdist.errors import TrainError
from revdist.evaluation import evaluate, look, near_copies
from revdist.networks import loss
from revdist.networks.bottleneck import Frozen
from revdist.networks.moving_average import Average
from revdist.networks.teacher import Teacher, load_last_stage
from revdist.recipe import Recipe, check_product
from revdist.scoring import detector
from revdist.training import aligning, confirmation, holdout, packing, score_units, steadiness, timing
from revdist.training.aligning import Align
from revdist.training.checkpoint import Checkpoint, Sides, recipe_of_stopped, sides_of_stopped
from revdist.training.feature_cache import Source
from revdist.training.inspected import Inspected
from revdist.training.pace import Pace
from revdist.training.progress import Progress
from revdist.training.schedule import batch_rows, learning_rate, masked_share
from revdist.training.timing import Pictures

log = logging.getLogger("revdist")

FEWEST_PICTURES = 10
SAVE_EVERY_S = 300.0  # a power cut, or a full disk at the end, loses at most this much work


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training: the pictures, the recipe, and the folder of the bundle."""

    good: Path  # pictures of good parts, or the root of an MVTec layout
    product: str
    output: Path  # the bundle's folder
    recipe: Recipe
    exclude: tuple[Path, ...] = ()  # pictures of the folder that are left out
    replace: bool = False  # overwrite a bundle at `output`
    budget_s: float | None = None  # time for the whole job, for which steps, student and size are planned
    asked: frozenset[str] = frozenset()  # settings that a budget must not change
    confirm: tuple[Path, ...] | None = None  # held-out outliers that a person has confirmed; (): all, None: none
    go_on: bool = False  # continue a stopped run even if pictures have changed since
    align: Align | None = None  # None: parts lie where they should
    mask: Path | None = None  # what is not inspected: a picture, or polygons as YAML or JSON


def train(job: Job, teacher: Teacher, *, device: str = "auto") -> Bundle:
    """Run a job to its end, or continue it where it was stopped; the bundle is the same, byte for byte.

    Ctrl-C or SIGTERM keeps the state in `<output>.training` and raises KeyboardInterrupt. Raises RevdistError.
    """
    begun_s = time.monotonic()
    _check(job, teacher)
    good = holdout.gather(job.good, job.recipe.blocks, job.exclude, how=job.recipe.reading)
    alignment = aligning.alignment_of(job.align, good.used, job.recipe.reading)
    job = replace(job, recipe=replace(job.recipe, alignment=alignment))
    drawn = inspection_mask.read(job.mask, good.looks) if job.mask else None
    confirmed = confirmation.confirmed(job.confirm, good.root)  # a mistyped name is reported before the work
    engine = Engine(teacher, device=device)
    alike = near_copies.groups_told(engine, good.used, job.recipe.reading, "stay on one side of the split")
    fitted, held_out = split(good.used, job.recipe, lots.joined(good.blocks, alike))
    stopped = Path(f"{job.output}.training")
    before = sides_of_stopped(stopped) if job.go_on else None
    if before:
        fitted, held_out = holdout.keep_sides(good, before)
    with steadiness.deterministic(), steadiness.stop_on_signal() as stop:
        pictures_count = Pictures(trained=len(fitted), held_out=len(held_out))
        recipe, pace = _planned(job, engine, teacher, pictures_count, stopped, begun_s)
        recipe = replace(recipe, alignment=alignment)  # a planned recipe may come from a file, without it
        student = make_student(recipe, teacher, engine.device)
        fingerprint = images.fingerprint(good.with_copies)
        readable = evaluate.read_prepared(  # read held-out pictures too, so that an error does not come after hours
            [*fitted, *held_out], recipe.size, recipe.reading
        )
        pictures = readable[: len(fitted)]
        mask = drawn.at(recipe.size, recipe.fit, pictures) if drawn else None
        if mask:
            log.info("the mask leaves out %.1f %% of the picture", 100 * mask.share)
        run = {"product": job.product, "teacher": teacher.sha256, "data": fingerprint, "engine": engine.identity}
        run |= {"mask": mask.digest} if mask else {}
        run |= {"alignment": recipe.alignment.digest} if recipe.alignment else {}
        sides = Sides(
            trained={good.name(path): images.content_hash(path) for path in fitted},
            held_out={good.name(path): images.content_hash(path) for path in held_out},
            seen=before.all_seen if before else frozenset(),
        )
        checkpoint = Checkpoint(stopped, run | recipe.to_json(), sides, job.go_on)
        trained = look.of(engine, pictures, fitted, recipe, mask)
        unseen = look.of(engine, readable[len(fitted) :], held_out, recipe, mask)
        likeness.warn(unlike := likeness.warnings(trained, unseen, "the held-out pictures"))
        group_of = dict(zip(good.used, alike, strict=True))
        unlike += near_copies.promise([group_of[path] for path in held_out], recipe.false_reject_rate, recipe.guarantee)
        del readable
        seen = [tile for picture in pictures for tile in recipe.tiles.cut(picture)]
        fit_result = fit(engine, student, seen, recipe, checkpoint, stop, mask, pace)
        combination = None
        if recipe.score == "combined":
            combination = score_units.measure(engine, fit_result.average, pictures, recipe, mask)

    packed = packing.pack(
        packing.engines(teacher, engine),
        fit_result.average,
        recipe,
        product=job.product,
        output=job.output,
        good=good,
        fitted=fitted,
        held_out=held_out,
        seen_before=sides.seen,
        quality={"final_loss": float(np.mean(fit_result.losses[-50:]))} | ({"steps_made": pace.made} if pace else {}),
        combination=combination,
        statistics={appearance.APPEARANCE: appearance.kept(trained), appearance.UNLIKE: unlike},
        confirmed=confirmed,
        replace=job.replace,
        mask=mask,
    )
    checkpoint.remove()
    return packed


def _planned(
    job: Job, engine: Engine, teacher: Teacher, pictures: Pictures, stopped: Path, begun_s: float
) -> tuple[Recipe, Pace | None]:
    """Fit the recipe to the pictures and the budget, and log how long training will take. Raises TrainError.

    Also returns the pace that keeps the budget, which began at `begun_s`; None without one, or if no step may be left
    out.
    """

    def measure(recipe: Recipe) -> timing.Duration:
        student = make_student(recipe, teacher, engine.device)
        optimiser = _optimiser(student, recipe)
        return timing.duration(
            engine, recipe, pictures, lambda taught: _step(student, optimiser, taught, recipe, recipe.steps)
        )

    recipe = job.recipe.for_pictures(pictures.trained * job.recipe.tiles.count)
    if job.budget_s is not None and (begun := recipe_of_stopped(stopped)):
        names = ("steps", "epochs", "student", "size")  # what was planned when the run began
        recipe = Recipe.from_json(recipe.to_json() | {name: begun[name] for name in names if name in begun})
    elif job.budget_s is not None:
        recipe = timing.plan(recipe, job.budget_s - (time.monotonic() - begun_s), job.asked, measure)
        height, width = recipe.size
        log.info("planned: %d steps, student %s, %dx%d pixels", recipe.steps, recipe.student, height, width)
    duration = measure(recipe)
    log.info("%s", duration.sentence())
    if job.budget_s is None or "steps" in job.asked:
        return recipe, None
    return recipe, Pace(duration, begun_s + job.budget_s)


def _check(job: Job, teacher: Teacher) -> None:
    check_product(job.product)
    if teacher.name != job.recipe.teacher:
        raise TrainError(f"the recipe asks for teacher {job.recipe.teacher}, this is {teacher.name}")
    bundle_files.check_place(job.output, replace=job.replace)


def split(pictures: Sequence[Path], recipe: Recipe, block_of: Sequence[str] = ()) -> tuple[list[Path], list[Path]]:
    """Draw pictures to train with and pictures to hold out for calibration, by the recipe's seed.

    `block_of` names the block of each picture: blocks stay whole.
    """
    if len(pictures) < FEWEST_PICTURES:
        raise TrainError(
            f"{len(pictures)} pictures of good parts are too few",
            hint=f"{FEWEST_PICTURES} or more; 50 to 500 are usual",
        )
    generator = np.random.default_rng(recipe.seed)
    count = min(max(1, round(recipe.holdout * len(pictures))), len(pictures) - 2)
    if block_of:
        held = lots.hold_out(block_of, count, generator)
        drawn = [row for row in generator.permutation(len(pictures)) if block_of[row] in held]
    else:
        drawn = list(generator.permutation(len(pictures))[:count])
    fitted = sorted(set(range(len(pictures))) - set(drawn))
    return [pictures[row] for row in fitted], [pictures[row] for row in drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The result of the training loop."""

    last: nn.Module  # the student after the last step
    average: nn.Module  # the student to be used: the average, where the recipe asks for one
    losses: list[float]


def make_student(recipe: Recipe, teacher: Teacher, device: torch.device) -> detector.Student:
    """Make a student to train, by the recipe's seed. Raises TeacherError where the teacher lacks weights for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        student = detector.Student(recipe.teacher, design=recipe.student, bottleneck=recipe.bottleneck)
    if recipe.bottleneck == "pretrained":
        student.bottleneck = Frozen(load_last_stage(teacher))
    return student.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


def fit(
    engine: Engine,
    student: detector.Student,
    pictures: list[images.Pixels],
    recipe: Recipe,
    checkpoint: Checkpoint,
    stop: threading.Event,
    mask: InspectionMask | None = None,
    pace: Pace | None = None,
) -> Fitted:
    """Train for `recipe.steps` steps, from the start or the checkpoint. `pictures`: whole pictures or their tiles.

    With a `pace` that is late, steps of the schedule are skipped; each has the loss of the step before.
    """
    varied = augment.copies(pictures, recipe.copies, recipe.seed)
    source = Source(engine, mask.cover_tiles(varied, recipe.tiles) if mask else varied)
    weights = Inspected(mask, recipe.tiles, engine.device) if mask else None
    optimiser = _optimiser(student, recipe)
    average = Average(student, recipe.average_share * recipe.steps)
    models = {"student": student, "average": average.module} if recipe.average_share else {"student": student}
    losses = checkpoint.restore(models, optimiser)
    if losses:
        log.info("going on after step %d of %d", len(losses), recipe.steps)
    begun_s = saved_s = time.monotonic()
    if pace:
        pace.begin()
    with Progress(steps=recipe.steps, batch=recipe.batch, done=len(losses)) as progress:
        while (step := len(losses)) < recipe.steps:
            free_threads.adapt()
            rows = batch_rows(recipe, len(source), step)
            inspected = weights.of(rows) if weights else None
            losses.append(_step(student, optimiser, source.features(rows), recipe, step, inspected))
            skipped = pace.advance(len(losses)) if pace else 0
            losses += skipped * losses[-1:]
            if recipe.average_share:
                average.update(student, step, 1 + skipped)
            progress.advance(losses[-1], 1 + skipped)
            now_s = time.monotonic()
            ends_long_run = len(losses) == recipe.steps and now_s - begun_s > SAVE_EVERY_S
            if stop.is_set() or ends_long_run or now_s - saved_s > SAVE_EVERY_S:
                checkpoint.save(models, optimiser, losses)
                saved_s = now_s
            if stop.is_set():
                done, steps = len(losses), recipe.steps
                log.warning("stopped after step %d of %d; the same command goes on from there", done, steps)
                raise KeyboardInterrupt
    used = average.module if recipe.average_share else student
    return Fitted(last=student.eval(), average=used.eval(), losses=losses)


def _step(
    student: nn.Module,
    optimiser: torch.optim.Optimizer,
    taught: Sequence[torch.Tensor],
    recipe: Recipe,
    step: int,
    inspected: Sequence[torch.Tensor] | None = None,
) -> float:
    """Make one optimiser step; returns the loss.

    `taught`: three maps (B, C, H, W) without gradients. `inspected`: as in loss.py; None where nothing is masked.
    """
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(recipe, step)
    seen = taught
    if recipe.pasted_share:
        seen = augment.paste(taught, recipe.pasted_share, np.random.default_rng((recipe.seed, step, 1)))
    share = masked_share(recipe, step)
    rebuilt = [
        loss.mask_easy(t, s, share, recipe.masked_factor, None if inspected is None else inspected[scale])
        for scale, (t, s) in enumerate(zip(taught, student(seen), strict=True))
    ]
    distance = loss.flattened_cosine(taught, rebuilt, inspected)
    value = float(distance.item())  # waits for the device: a loss that is not finite must not reach the weights
    if not math.isfinite(value):
        raise TrainError(
            f"the loss became {value} at step {step + 1}", hint="use a lower learning rate or a larger batch"
        )
    optimiser.zero_grad(set_to_none=True)
    distance.backward()  # type: ignore[no-untyped-call]
    if recipe.gradient_clip:
        nn.utils.clip_grad_norm_(student.parameters(), recipe.gradient_clip)
    optimiser.step()
    return value


def _optimiser(student: detector.Student, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [*student.decoder.parameters(), *student.bottleneck.parameters()]  # the official order
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    return kind(learning, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
