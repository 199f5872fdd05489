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
    """Sum of the `scale_maps`: (B, h, w) float32, 0..2 a scale."""
    total: torch.Tensor | None = None
    for scaled in scale_maps(taught, rebuilt, size):
        total = scaled if total is None else total + scaled
    assert total is not None
    return total


def scale_maps(
    taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor], size: tuple[int, int]
) -> Iterator[torch.Tensor]:
    """For each scale 1 - cos at each location, brought to `size`: (B, h, w) float32, 0..2.

    The cosine is taken in float32 whatever the features are in: 1 - cos in bfloat16 would keep three distinct values.
    """
    for t, s in zip(taught, rebuilt, strict=True):
        distance = cosine_distance(t.float(), s.float()).unsqueeze(1)  # (B, 1, H, W)
        yield F.interpolate(distance, size, mode="bilinear", align_corners=True)[:, 0]


def cosine_distance(taught: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """1 - cos over the channels at each location: two (B, C, H, W) float32 -> (B, H, W), 0..2.

    Written out, because exporters have no rule for aten::cosine_similarity; norms are bounded from below as there.
    """
    dot = (taught * rebuilt).sum(1)
    norms = taught.square().sum(1).sqrt().clamp_min(EPSILON) * rebuilt.square().sum(1).sqrt().clamp_min(EPSILON)
    return 1 - dot / norms


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Gaussian of sigma 4 with 33 taps, edge-repeating border: (B, h, w) float32 -> the same, as scipy's "reflect"."""
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=maps.device)
    weights = torch.exp(-0.5 * (x / SIGMA) ** 2)
    taps = (weights / weights.sum()).float()
    for axis in (1, 2):
        padded = maps.index_select(axis, _mirror(maps.shape[axis], maps.device)).unsqueeze(1)  # (B, 1, h + 32, w)
        maps = F.conv2d(padded, taps.view(1, 1, -1, 1) if axis == 1 else taps.view(1, 1, 1, -1))[:, 0]
    return maps


def scores(maps: torch.Tensor, top_share: float = 0.0) -> torch.Tensor:
    """The mean of the highest `top_share` of each smoothed map's values, or of 0 the highest: (B, h, w) -> (B,).

    Raw: neither clamped nor normalised. The highest finds small defects; a mean of many finds large faint ones.
    """
    if not top_share:
        return maps.amax(dim=(1, 2))
    count = max(1, round(top_share * maps[0].numel()))
    return maps.flatten(1).topk(count, dim=1).values.mean(1)


def _mirror(length: int, device: torch.device) -> torch.Tensor:
    """Which element stands at each place of the padded axis: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...; any length."""
    place = torch.arange(-RADIUS, length + RADIUS, device=device) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)
