"""The parts assembled: what goes into the teacher, and how two sets of features become an anomaly map and a score.

B batch, C channels, h w the model's input. Everything stays on the device of its arguments, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from revdist import bottleneck, decoder, resnet
from revdist.errors import TeacherError
from revdist.teacher import Teacher, channels

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

SIGMA = 4.0
TRUNCATE = 4.0
RADIUS = int(TRUNCATE * SIGMA + 0.5)  # 16: a kernel of 33 taps, as scipy's gaussian_filter
EPSILON = 1e-8
STRIDES = (4, 8, 16)  # pixels of the input for one location of each scale


class Student(nn.Module):
    """Bottleneck and decoder: the teacher's three maps -> three maps of the same shapes.

    Without `fusion` the bottleneck is given the coarsest map alone, as in the paper's ablation of MFF.
    """

    def __init__(self, teacher: str, *, fusion: bool = True) -> None:
        super().__init__()
        self.bottleneck, self.decoder = _parts(teacher)
        self.fusion = fusion

    def forward(self, features: Sequence[torch.Tensor]) -> Features:
        if not self.fusion:
            fine, middle, coarse = features
            features = torch.zeros_like(fine), torch.zeros_like(middle), coarse
        rebuilt: Features = self.decoder(self.bottleneck(features))
        return rebuilt


def _parts(teacher: str) -> tuple[nn.Module, nn.Module]:
    if teacher == "efficientnet_lite0":
        slim = initialise(bottleneck.SlimBottleneck(channels(teacher)))
        return slim, initialise(decoder.SlimDecoder(bottleneck.SlimBottleneck.EMBEDDED, channels(teacher)))
    if teacher not in resnet.NAMES:
        raise TeacherError(f"there is no student for teacher {teacher!r}")
    block, (layer1, layer2, layer3, last), width = resnet.layout(teacher)
    down = bottleneck.Bottleneck(block, last, width)
    initialise(down)
    mirrored = decoder.BasicBlock if block is resnet.BasicBlock else decoder.BottleneckBlock
    up = decoder.Decoder(mirrored, (layer1, layer2, layer3), width)
    return down, initialise(up)


def initialise(module: nn.Module) -> nn.Module:
    """As the official code: normal of He et al. with fan-out for convolutions, 1 and 0 for batch norms.

    Transposed convolutions keep torch's default, because `nn.ConvTranspose2d` is no `nn.Conv2d`.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    return module


def normalise(pixels: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """uint8 (B, h, w, 3) RGB -> float32 (B, 3, h, w), channels last in memory, as the teacher expects it."""
    return ((pixels.float() - teacher.mean) / teacher.std).permute(0, 3, 1, 2)


def anomaly_maps(
    taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor], size: tuple[int, int]
) -> torch.Tensor:
    """Sum of the `distances`, each brought to `size`: (B, h, w) float32, 0..2 a scale. `Spread` is the fast way."""
    scales = [
        F.interpolate(distance[:, None], size, mode="bilinear", align_corners=True)[:, 0]
        for distance in distances(taught, rebuilt)
    ]
    return torch.stack(scales).sum(0)


def distances(taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For each scale `cosine_distance`, in float32 whatever the features are in: three distinct values are all that
    1 - cos in bfloat16 would keep."""
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
    """Distances of the three scales -> the smoothed anomaly map, in one step.

    Interpolation and smoothing are linear and separable, so that both together are a matrix on each side of a scale's
    distances. Equal to `smooth` of `anomaly_maps` by rounding, at a tenth of its time.
    """

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        """`size`: (h, w) of the map."""
        self._rows = [_spreading(size[0] // stride, size[0]).to(device) for stride in STRIDES]  # (h, H)
        self._columns = [_spreading(size[1] // stride, size[1]).T.contiguous().to(device) for stride in STRIDES]
        self._all_rows = torch.cat(self._rows, 1)

    def __call__(self, distances: Sequence[torch.Tensor]) -> torch.Tensor:
        """Three (B, H, W) float32 on the device, fine to coarse -> (B, h, w)."""
        wide = [distance @ columns for distance, columns in zip(distances, self._columns, strict=True)]  # (B, H, w)
        return self._all_rows @ torch.cat(wide, 1)

    def scales(self, distances: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Each scale's part of the map: three (B, h, w)."""
        for rows, distance, columns in zip(self._rows, distances, self._columns, strict=True):
            yield rows @ distance @ columns


def _spreading(inputs: int, outputs: int) -> torch.Tensor:
    """(outputs, inputs) float32: bilinear interpolation with aligned corners, then the Gaussian, along one axis."""
    unit = torch.eye(inputs, dtype=torch.float64)[:, None]  # (inputs, 1, inputs)
    wide = F.interpolate(unit, outputs, mode="linear", align_corners=True)  # (inputs, 1, outputs)
    padded = wide[:, :, _mirror(outputs, torch.device("cpu"))]
    return F.conv1d(padded, _taps(torch.device("cpu"))[None, None])[:, 0].T.float()


def scores(maps: torch.Tensor, top_share: float = 0.0) -> torch.Tensor:
    """The mean of the highest `top_share` of each smoothed map's values, or of 0 the highest: (B, h, w) -> (B,).

    Raw: neither clamped nor normalised. The highest finds small defects; a mean of many finds large faint ones.
    """
    if not top_share:
        return maps.amax(dim=(1, 2))
    count = max(1, round(top_share * maps[0].numel()))
    return maps.flatten(1).topk(count, dim=1).values.mean(1)


def _taps(device: torch.device) -> torch.Tensor:
    """(33,) float64: the Gaussian's weights, which add up to 1."""
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=device)
    weights = torch.exp(-0.5 * (x / SIGMA) ** 2)
    return weights / weights.sum()


def _mirror(length: int, device: torch.device) -> torch.Tensor:
    """Which element stands at each place of the padded axis: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...; any length."""
    place = torch.arange(-RADIUS, length + RADIUS, device=device) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)
