"""The student, the teacher's input, and how two sets of features become an anomaly map and a score.

B batch, C channels, h w the model's input. Everything stays on the device of its arguments, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from revdist.errors import TeacherError
from revdist.networks import bottleneck, decoder, resnet
from revdist.networks.teacher import NAMES, build_last_stage, channels, last_channels
from revdist.recipe import SCALES, BottleneckName, Combine, Recipe, StudentName, default

if TYPE_CHECKING:
    from revdist.scoring.combination import Combination

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Each = TypeVar("Each")

SIGMA = 4.0
TRUNCATE = 4.0
RADIUS = int(TRUNCATE * SIGMA + 0.5)  # 16: a kernel of 33 taps, as scipy's gaussian_filter
EPSILON = 1e-8
_BAND = 256  # rows of a map that are computed at once
STRIDES = (4, 8, 16)  # pixels of the input for one location of each scale


class Student(nn.Module):
    """Bottleneck and decoder: the teacher's three maps -> three maps of the same shapes.

    `official` is the paper's student; a teacher that is no ResNet gets that of ResNet18, with a 1x1 convolution behind
    each map. `slim` is narrower: few channels and one block a scale. None is the teacher's default.

    The `full` bottleneck is MFF and OCE. The paper's ablation has two more: `oce` gets zeros instead of all maps but
    the coarsest, and `pretrained` is the teacher's last stage, frozen, with the weights of `teacher.load_last_stage`.
    `coarse` is `oce` without the layers that see zeros.
    """

    def __init__(self, teacher: str, *, design: StudentName | None = None, bottleneck: BottleneckName = "full") -> None:
        super().__init__()
        if teacher not in NAMES:
            raise TeacherError(f"there is no student for teacher {teacher!r}")
        slim = (design or default(teacher).student) == "slim"
        self.bottleneck = _bottleneck(teacher, bottleneck, slim=slim)
        self.decoder = _decoder(teacher, bottleneck, slim=slim)
        self.coarse_alone = bottleneck == "oce"

    def forward(self, features: Sequence[torch.Tensor]) -> Features:
        if self.coarse_alone:
            fine, middle, coarse = features
            features = torch.zeros_like(fine), torch.zeros_like(middle), coarse
        rebuilt: Features = self.decoder(self.bottleneck(features))
        return rebuilt


def _bottleneck(teacher: str, name: BottleneckName, *, slim: bool) -> nn.Module:
    if name == "pretrained":
        return bottleneck.Frozen(build_last_stage(teacher))
    teacher_channels = channels(teacher)
    block, (_, _, _, last), width = _mirrored(teacher)
    if name == "coarse":
        embedding = resnet.layer(block, teacher_channels[2], 512, last, 2, width)
        return initialise(bottleneck.CoarseBottleneck(_slim_embedding(teacher) if slim else embedding))
    if slim:
        return initialise(bottleneck.SlimBottleneck(teacher_channels, _slim_width(teacher)))
    return initialise(bottleneck.Bottleneck(block, last, width, teacher_channels))


def _decoder(teacher: str, name: BottleneckName, *, slim: bool) -> nn.Module:
    teacher_channels = channels(teacher)
    block, (layer1, layer2, layer3, _), base = _mirrored(teacher)
    width = _slim_width(teacher)
    embedded = 2 * width if slim else 512 * block.expansion
    if name == "pretrained":
        embedded = last_channels(teacher)
    if slim:
        return initialise(decoder.SlimDecoder(embedded, teacher_channels, width))
    if teacher not in resnet.NAMES:
        return initialise(decoder.FittedDecoder(embedded, teacher_channels))
    mirrored = decoder.BasicBlock if block is resnet.BasicBlock else decoder.BottleneckBlock
    return initialise(decoder.Decoder(mirrored, (layer1, layer2, layer3), base, embedded=embedded))


def _mirrored(teacher: str) -> tuple[resnet.Block, tuple[int, int, int, int], int]:
    """Return the layout of the ResNet that the official student mirrors."""
    return resnet.layout(teacher if teacher in resnet.NAMES else "resnet18")


def _slim_embedding(teacher: str) -> nn.Module:
    width = _slim_width(teacher)
    narrow = [nn.Conv2d(channels(teacher)[2], width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*narrow, *resnet.layer(resnet.BasicBlock, width, 2 * width, 2, 2, 64))


def _slim_width(teacher: str) -> int:
    """Return the width of the coarsest map; double for teachers as wide as a ResNet of bottleneck blocks."""
    return 256 if channels(teacher)[2] == 1024 else 128


def initialise(module: nn.Module) -> nn.Module:
    """Initialise as the official code: normal of He et al. with fan-out for convolutions, 1 and 0 for batch norms.

    Transposed convolutions keep torch's default, because `nn.ConvTranspose2d` is no `nn.Conv2d`. Where there are no
    weights, on torch's meta device, none are drawn: torch would import its compiler for that, which takes a second.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    return module


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """uint8 (B, h, w, 3) RGB -> float32 (B, 3, h, w), channels last in memory, by mean and std (3,) of the teacher."""
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How distances of the three scales become an anomaly map, and a map becomes a score; by default as in the paper.

    `scales` selects scales for the map alone, as the paper's ablation does (github.com/hq-deng/RD4AD/issues/1); the
    loss and the student always have all three.
    """

    scales: tuple[int, ...] = SCALES  # scales that count: 1 fine, 2 middle, 3 coarse
    combine: Combine = "add"
    top_share: float = 0.0  # share of the map's values whose mean is the score; 0: the highest value
    combination: Combination | None = None  # of the combined score; None: the distances themselves are the map's

    @classmethod
    def of(cls, recipe: Recipe, combination: Combination | None = None) -> Scoring:
        """Return the scoring of a recipe; `combination`: what a recipe with the combined score has measured."""
        return cls(scales=recipe.scales, combine=recipe.combine, top_share=recipe.top_share, combination=combination)

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the scales that count, in pixels of the input for one location."""
        return tuple(STRIDES[scale - 1] for scale in self.scales)

    def chosen(self, distances: Sequence[Each]) -> list[Each]:
        """Return the distances of the scales that count, fine to coarse."""
        return [distances[scale - 1] for scale in self.scales]

    def combined(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine the maps of the scales that count: (B, h, w) each -> (B, h, w)."""
        stacked = torch.stack(list(maps))
        return stacked.sum(0) if self.combine == "add" else stacked.prod(0)

    def level_of_a_scale(self, level: float) -> float:
        """Return the equal level of each scale at which all scales together reach `level`, such as the threshold."""
        return level / len(self.scales) if self.combine == "add" else level ** (1 / len(self.scales))


PLAIN = Scoring()


def anomaly_maps(
    taught: Sequence[torch.Tensor],
    rebuilt: Sequence[torch.Tensor],
    size: tuple[int, int],
    scoring: Scoring = PLAIN,
) -> torch.Tensor:
    """Resize the `distances` that count to `size` and combine them: (B, h, w) float32. `Spread` does so faster.

    Each distance is 0..2, so that a sum of n is 0..2n and a product 0..2^n.
    """
    return scoring.combined(
        [
            F.interpolate(distance[:, None], size, mode="bilinear", align_corners=True)[:, 0]
            for distance in scoring.chosen(distances(taught, rebuilt))
        ]
    )


def distances(taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the `cosine_distance` of each scale, always in float32: in bfloat16, 1 - cos would keep three values."""
    return [cosine_distance(t.float(), r.float()) for t, r in zip(taught, rebuilt, strict=True)]


def cosine_distance(taught: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """1 - cos over the channels at each location: two (B, C, H, W) float32 -> (B, H, W), 0..2.

    Written out, because exporters have no rule for aten::cosine_similarity; norms are bounded from below as there.
    """
    dot = (taught * rebuilt).sum(1)
    norms = torch.linalg.vector_norm(taught, dim=1).clamp_min(EPSILON)
    norms = norms * torch.linalg.vector_norm(rebuilt, dim=1).clamp_min(EPSILON)
    distance: torch.Tensor = 1 - dot / norms
    return distance


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Gaussian of sigma 4 with 33 taps, edge-repeating border: (B, h, w) float32 -> the same, as scipy's "reflect"."""
    taps = _taps(maps.device).float()
    for axis in (1, 2):
        padded = maps.index_select(axis, _mirror(maps.shape[axis], maps.device)).unsqueeze(1)  # (B, 1, h + 32, w)
        maps = F.conv2d(padded, taps.view(1, 1, -1, 1) if axis == 1 else taps.view(1, 1, 1, -1))[:, 0]
    return maps


class Spread:
    """Distances of the three scales -> the smoothed anomaly map.

    Interpolation and smoothing are linear and separable, so both together are a matrix on each side of a scale's
    distances. Maps that are added need only these matrices, one band of rows after the other, because distant rows do
    not contribute. Maps that are multiplied are interpolated by matrices, multiplied and then smoothed. The result
    differs from `smooth` of `anomaly_maps` by rounding; a sum takes a tenth of the time.
    """

    def __init__(self, size: tuple[int, int], device: torch.device, scoring: Scoring = PLAIN) -> None:
        """`size`: (h, w) of the map."""
        self._scoring, self._adds = scoring, scoring.combine == "add"
        along = spreading if self._adds else _interpolating
        self.sides = [_Sides(size, stride, along, device) for stride in scoring.strides]
        self._bands = list(self._banded(size[0])) if self._adds else []

    def __call__(self, distances: Sequence[torch.Tensor]) -> torch.Tensor:
        """Three (B, H, W) float32 on the device, fine to coarse -> (B, h, w)."""
        pairs = list(zip(self.sides, self._scoring.chosen(distances), strict=True))
        if self._adds:
            wide = [distance @ sides.columns for sides, distance in pairs]  # (B, H, w) each
            bands = [
                rows @ torch.cat([distance[:, reached] for distance, reached in zip(wide, places, strict=True)], 1)
                for places, rows in self._bands
            ]
            return bands[0] if len(bands) == 1 else torch.cat(bands, 1)
        return smooth(self._scoring.combined([sides(distance) for sides, distance in pairs]))

    def _banded(self, height: int) -> Iterator[tuple[list[slice], torch.Tensor]]:
        """Yield for each band of a map the rows of each scale's distances that it depends on, and their matrix."""
        for begin in range(0, height, _BAND):
            end = min(height, begin + _BAND)
            places = [_reached(begin, end, sides.rows.shape[1], height) for sides in self.sides]
            rows = [sides.rows[begin:end, seen] for sides, seen in zip(self.sides, places, strict=True)]
            yield places, torch.cat(rows, 1)

    def scales(self, distances: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the smoothed map (B, h, w) of each scale that counts, fine to coarse; maps of a sum add up."""
        for sides, distance in zip(self.sides, self._scoring.chosen(distances), strict=True):
            yield sides(distance) if self._adds else smooth(sides(distance))


class _Sides:
    """A linear operation along each side of a scale's distances (B, H, W) -> (B, h, w), as matrices."""

    def __init__(
        self, size: tuple[int, int], stride: int, along: Callable[[int, int], torch.Tensor], device: torch.device
    ) -> None:
        rows, columns = (along(side // stride, side) for side in size)
        self.rows = rows.to(device)  # (h, H)
        self.columns = columns.T.contiguous().to(device)  # (W, w)

    def __call__(self, distance: torch.Tensor) -> torch.Tensor:
        return self.rows @ distance @ self.columns


def _reached(begin: int, end: int, inputs: int, outputs: int) -> slice:
    """Return the inputs of `spreading` that the outputs from `begin` to `end` depend on."""
    step = (inputs - 1) / (outputs - 1)
    first, last = math.floor((begin - RADIUS) * step), math.ceil((end - 1 + RADIUS) * step)
    return slice(max(0, first), min(inputs, last + 1))


def spreading(inputs: int, outputs: int) -> torch.Tensor:
    """(outputs, inputs) float32: bilinear interpolation with aligned corners, then the Gaussian, along one axis."""
    padded = _wide(inputs, outputs)[:, :, _mirror(outputs, torch.device("cpu"))]
    return F.conv1d(padded, _taps(torch.device("cpu"))[None, None])[:, 0].T.float()


def _interpolating(inputs: int, outputs: int) -> torch.Tensor:
    """(outputs, inputs) float32: bilinear interpolation with aligned corners along one axis."""
    return _wide(inputs, outputs)[:, 0].T.float()


def _wide(inputs: int, outputs: int) -> torch.Tensor:
    """(inputs, 1, outputs) float64: each unit vector, interpolated linearly with aligned corners."""
    unit = torch.eye(inputs, dtype=torch.float64)[:, None]  # (inputs, 1, inputs)
    return F.interpolate(unit, outputs, mode="linear", align_corners=True)


def scores(maps: torch.Tensor, top_share: float = 0.0, counted: int | None = None) -> torch.Tensor:
    """Return the mean of the highest `top_share` of each smoothed map's values; 0: the highest. (B, h, w) -> (B,).

    `counted`: how many values of a map are inspected, if not all; the others are 0, and no share of them counts.
    Scores are neither clamped nor normalised. The highest value finds small defects, a mean large faint ones.
    """
    if not top_share:
        return maps.amax(dim=(1, 2))
    return maps.flatten(1).topk(top_count(top_share, counted or maps[0].numel()), dim=1).values.mean(1)


def top_count(top_share: float, values: int) -> int:
    """Return how many of a map's values make its score: at least one."""
    return max(1, round(top_share * values))


def _taps(device: torch.device) -> torch.Tensor:
    """(33,) float64: the Gaussian's weights, which add up to 1."""
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=device)
    weights = torch.exp(-0.5 * (x / SIGMA) ** 2)
    return weights / weights.sum()


def _mirror(length: int, device: torch.device) -> torch.Tensor:
    """Return the element at each place of the padded axis: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...; any length."""
    place = torch.arange(-RADIUS, length + RADIUS, device=device) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)
