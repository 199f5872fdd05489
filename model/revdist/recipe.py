"""A recipe: everything that determines a training run, besides the pictures and the teacher's weights."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from revdist.data import lots as blocks
from revdist.data.reading import Fit, Reading
from revdist.data.tiles import Tiles
from revdist.errors import RecipeError
from revdist.thresholds.guarantee import Guarantee

if TYPE_CHECKING:
    from revdist.data.alignment import Alignment

TeacherName = Literal["wide_resnet50_2", "resnet18", "resnet34", "resnet50", "efficientnet_lite0"]
TEACHERS: tuple[str, ...] = get_args(TeacherName)
RESNETS = tuple(name for name in TEACHERS if name != "efficientnet_lite0")  # those that the paper's code has
StudentName = Literal["official", "slim"]
BottleneckName = Literal["full", "coarse", "oce", "pretrained"]
Combine = Literal["add", "multiply"]
ScoreName = Literal["cosine", "combined"]
SCALES = (1, 2, 3)  # fine, middle, coarse
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STRIDE = 32  # of the embedding: height and width of the input must be multiples of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe's values are checked when it is made; RecipeError names a wrong value and its bounds."""

    teacher: TeacherName = "wide_resnet50_2"
    size: tuple[int, int] = (256, 256)  # (height, width) of the model's input, pixels
    bits: int = 0  # of 16-bit pictures that carry a value, from the lowest; 0: not stated, and all 16 count
    fit: Fit = "stretch"  # how a picture comes to the input's aspect ratio
    tile: tuple[int, int] | None = None  # of the parts that the networks see it in; None: all of it at once
    steps: int = 2000  # optimiser steps
    epochs: int = 0  # passes over all pictures, which then set the steps; 0: the steps count
    batch: int = 16  # pictures a step
    student: StudentName = "official"  # the paper's student, or a narrow one of the same design
    bottleneck: BottleneckName = "full"  # the input of the embedding, see detector.Student
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 5e-3  # the highest
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    final_share: float = 0.1  # cosine: last learning rate as a share of the highest
    warmup_share: float = 0.0  # share of the steps with a rising learning rate
    gradient_clip: float = 0.0  # largest norm of the whole gradient; 0 switches it off
    masked_share: float = 0.9  # share of best-matched locations whose gradient is scaled down; 0 switches it off
    masked_factor: float = 0.1  # factor of their gradient
    masked_ramp_share: float = 0.5  # share of the steps over which masked_share is reached, from 0
    average_share: float = 0.0  # weights are averaged over about this share of the steps, at the end; 0: the last ones
    copies: int = 0  # augmented copies of each picture: light and position a little different
    pasted_share: float = 0.0  # share of the pictures of a batch with a pasted patch, which the student must undo
    scales: tuple[int, ...] = SCALES  # scales that count in the anomaly map; a student is trained with all three
    combine: Combine = "add"  # how the maps of the scales become one
    top_share: float = 0.0  # share of the map's values whose mean is the score; 0: the highest value alone
    score: ScoreName = "cosine"  # cosine: the paper's map; combined: see revdist.scoring.combination
    holdout: float = 0.2  # share of the good pictures kept out of training, for calibration
    seed: int = 0
    false_reject_rate: float = 0.01  # wanted: share of good parts that may be rejected
    guarantee: Guarantee = "average"  # of that rate: on average over calibrations, or with 95 % confidence
    blocks: str = ""  # pictures are held out by whole blocks: `folders`, or what a pattern's one group finds in a path

    alignment: Alignment | None = field(default=None, compare=False, repr=False)  # of parts that lie shifted or turned

    def __post_init__(self) -> None:
        _check("teacher", self.teacher, self.teacher in TEACHERS, f"one of {', '.join(TEACHERS)}")
        check_size(self.size)
        plain = self.tile is None or (len(self.tile) == 2 and all(map(_whole, self.tile)))
        _check("tile", self.tile, plain, "(height, width), or nothing")
        Tiles.of(self.size, self.tile)
        for name, names in (
            ("student", get_args(StudentName)),
            ("bottleneck", get_args(BottleneckName)),
            ("optimiser", ("adam", "adamw")),
            ("schedule", ("cosine", "constant")),
            ("combine", get_args(Combine)),
            ("score", get_args(ScoreName)),
            ("fit", get_args(Fit)),
            ("guarantee", get_args(Guarantee)),
        ):
            value = getattr(self, name)
            _check(name, value, value in names, " or ".join(names))
        adds = self.score == "cosine" or self.combine == "add"
        _check("score", self.score, adds, "cosine where maps are multiplied")
        _check("scales", self.scales, _scales(self.scales), "some of 1 (fine), 2 and 3 (coarse), each once, ascending")
        bits = _whole(self.bits) and (self.bits == 0 or 8 <= self.bits <= 16)
        _check("bits", self.bits, bits, "a whole number from 8 to 16, or 0 where it is not stated")
        pattern = isinstance(self.blocks, str) and blocks.usable(self.blocks)
        _check("blocks", self.blocks, pattern, f"empty, {blocks.FOLDERS} or a regular expression with one group")
        for name, low, high in (
            ("steps", 1, 10**7),
            ("batch", 1, 4096),
            ("copies", 0, 100),
            ("epochs", 0, 10**6),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            _check(name, value, _whole(value) and low <= value <= high, f"a whole number from {low} to {high}")
        for name in (
            "final_share",
            "warmup_share",
            "masked_share",
            "masked_factor",
            "masked_ramp_share",
            "average_share",
            "pasted_share",
            "top_share",
        ):
            value = getattr(self, name)
            _check(name, value, _finite(value) and 0 <= value <= 1, "between 0 and 1")
        for name in ("holdout", "false_reject_rate"):
            value = getattr(self, name)
            _check(name, value, _finite(value) and 0 < value < 1, "greater than 0 and less than 1")
        for name in ("weight_decay", "gradient_clip"):
            value = getattr(self, name)
            _check(name, value, _finite(value) and value >= 0, "0 or more")
        _check("learning_rate", self.learning_rate, _finite(self.learning_rate) and self.learning_rate > 0, "positive")
        pair = len(self.betas) == 2 and all(_finite(beta) and 0 <= beta < 1 for beta in self.betas)
        _check("betas", self.betas, pair, "two numbers from 0 to less than 1")

    @property
    def tiles(self) -> Tiles:
        """The tiles that the networks see a picture in; the whole picture may be the only tile."""
        return Tiles.of(self.size, self.tile)

    @property
    def reading(self) -> Reading:
        """The settings for reading pictures."""
        return Reading(bits=self.bits, fit=self.fit, alignment=self.alignment)

    def for_pictures(self, count: int) -> Recipe:
        """Return the recipe for so many training pictures, or tiles: epochs become steps."""
        return replace(self, steps=self.epochs * self.steps_of_epoch(count)) if self.epochs else self

    def steps_of_epoch(self, pictures: int) -> int:
        """Return the steps of one pass over all pictures; the last batch may be smaller."""
        return math.ceil(pictures / self.batch)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the alignment, whose reference is a picture: bundles keep it in a file."""
        return asdict(replace(self, alignment=None), dict_factory=_without_alignment)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        names = {field.name for field in fields(cls)} - {"alignment"}
        if set(values) != names:
            wrong = ", ".join(sorted(set(values) ^ names))
            raise RecipeError(f"recipe: unknown or missing: {wrong}", hint="written by another version of revdist?")
        try:
            plain: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
            }
            return cls(**plain)
        except TypeError as error:
            raise RecipeError(f"recipe: a value has a wrong type: {error}") from error


def _without_alignment(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in entries if name != "alignment"}


def check_size(size: tuple[int, int]) -> None:
    """Check an input size. Raises RecipeError unless both sides are positive multiples of the stride."""
    right = len(size) == 2 and all(_whole(side) and STRIDE <= side <= 8192 and side % STRIDE == 0 for side in size)
    _check("size", size, right, f"(height, width), each a multiple of {STRIDE} from {STRIDE} to 8192")


def check_product(name: object) -> None:
    """Check a product's name, for file names, metrics and topics. Raises RecipeError."""
    if not isinstance(name, str) or not _PRODUCT.fullmatch(name):
        raise RecipeError(
            f"product {name!r} is no name",
            hint="use letters, digits, '.', '_' and '-', at most 64, and begin with a letter or digit",
        )


def default(teacher: str) -> Recipe:
    """Return a teacher's default recipe. Raises RecipeError for an unknown teacher.

    The paper's optimiser with a cosine schedule, masking, pasting and averaging is what the ablation in
    model/FIGURES.md supports. The slim student of efficientnet_lite0 is made to be trained without a GPU.
    """
    plain = replace(Recipe(), teacher=cast(TeacherName, teacher), pasted_share=0.5, average_share=0.1)
    if teacher == "efficientnet_lite0":
        return replace(plain, student="slim", bottleneck="coarse", size=(224, 224), steps=450, batch=8)
    return plain


def official(teacher: str) -> Recipe:
    """Return the recipe of the paper's code (github.com/hq-deng/RD4AD, main.py): 200 epochs, no selection.

    The paper's code shuffles pictures with another random generator, and holds no pictures out.
    """
    return replace(
        Recipe(),
        teacher=cast(TeacherName, teacher),
        size=(256, 256),
        batch=16,
        epochs=200,
        optimiser="adam",
        learning_rate=5e-3,
        betas=(0.5, 0.999),
        schedule="constant",
        masked_share=0.0,
    )


NAMED = {"default": default, "rd4ad": official}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _scales(value: object) -> bool:
    if not isinstance(value, tuple) or not all(map(_whole, value)):
        return False
    return bool(value) and value == tuple(scale for scale in SCALES if scale in value)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise RecipeError(f"recipe: {name} is {value!r}, must be {expected}")
