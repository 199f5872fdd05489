"""Runs the evaluation loop of the paper's code, operation for operation, on our teacher and student: a yardstick.

The loop is written anew after github.com/hq-deng/RD4AD (test.py), or uses the modules of a checkout of that code. It
takes one picture at a time: PIL resizes, torchvision normalises; the modules are plain, with their batch norms; the
teacher's fourth stage runs and nobody reads it; numpy adds up the map, scipy smooths it; its maximum is the score.
"""

from __future__ import annotations

import copy
import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from revdist.data.images import Pixels
from revdist.errors import RevdistError
from revdist.networks import resnet, teacher
from revdist.networks.teacher import Teacher
from revdist.scoring import detector

Map = npt.NDArray[np.float64]  # (h, w)
_UNREAD = ("layer4.", "fc.")  # of the official teacher: built, but its features are not used
_UNUSED = ("conv4.", "bn4.")  # of the official bottleneck: built, never run
_MODULES = ("resnet", "de_resnet", "test")  # modules of the official code that are used here
_PLOTS = "matplotlib", "matplotlib.pyplot", "matplotlib.ticker"
_NOT_NEEDED = (*_PLOTS, "dataset", "pandas", "sklearn", "sklearn.metrics", "skimage")


class Networks(Protocol):
    """Turns a picture (1, 3, h, w) into the teacher's three maps and the student's three maps."""

    def __call__(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]: ...


class MapOf(Protocol):
    """Turns three maps each of teacher and student, and the picture's size, into the unsmoothed anomaly map."""

    def __call__(
        self, taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor], size: tuple[int, int]
    ) -> Map: ...


class OfficialLoop:
    """Scores one picture at a time, as the paper's code does."""

    def __init__(
        self, taught_by: Teacher, networks: Networks, map_of: MapOf, size: tuple[int, int], device: torch.device
    ) -> None:
        from torchvision import transforms

        self._size, self._device = size, device
        self._networks, self._map_of = networks, map_of
        mean, std = (
            [value / 255 for value in channels] for channels in (taught_by.mean.tolist(), taught_by.std.tolist())
        )
        self._transform = transforms.Compose(
            [
                transforms.Resize(size),
                transforms.ToTensor(),
                transforms.CenterCrop(size),
                transforms.Normalize(mean=mean, std=std),
            ]
        )

    @torch.no_grad()
    def __call__(self, picture: Pixels) -> tuple[Map, float]:
        """Turn a picture, uint8 (H, W, 3) of any size, into the smoothed map (h, w) and the score."""
        x = self._transform(Image.fromarray(picture))[None].to(self._device)
        taught, rebuilt = self._networks(x)
        smoothed = gaussian_filter(self._map_of(taught, rebuilt, self._size), sigma=detector.SIGMA)
        return smoothed, float(np.max(smoothed))


def written_anew(taught_by: Teacher, student: nn.Module, size: tuple[int, int], device: torch.device) -> OfficialLoop:
    """Return the loop with our modules as they are: nothing folded, channels first in memory."""
    return OfficialLoop(taught_by, _Plain(taught_by, student, device), _added, size, device)


def of_checkout(
    checkout: Path, taught_by: Teacher, student: detector.Student, size: tuple[int, int], device: torch.device
) -> OfficialLoop:
    """Return the loop with the modules of a clone of the paper's code and our weights. Raises RevdistError."""
    name = taught_by.name
    if name not in resnet.NAMES or size[0] != size[1]:
        raise RevdistError(
            f"rd4ad={checkout}: the official code runs ResNet teachers on square pictures alone",
            hint="leave the checkout away: --against rd4ad",
        )
    official = _import(checkout)
    encoder, bottleneck = getattr(official.resnet, name)(pretrained=False)
    decoder = getattr(official.de_resnet, f"de_{name}")(pretrained=False)
    _fill(encoder, taught_by.trunk, _UNREAD)
    _fill(bottleneck, student.bottleneck, _UNUSED)
    _fill(decoder, student.decoder, ())
    encoder, bottleneck, decoder = (module.to(device).eval() for module in (encoder, bottleneck, decoder))

    def networks(x: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        taught = encoder(x)
        return taught, decoder(bottleneck(taught))

    def map_of(taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor], size: tuple[int, int]) -> Map:
        anomaly_map: Map = official.test.cal_anomaly_map(taught, rebuilt, size[0], amap_mode="a")[0]
        return anomaly_map

    return OfficialLoop(taught_by, networks, map_of, size, device)


class _Plain:
    """Runs teacher, its unread fourth stage (random: only its time counts) and student eagerly, ReLUs in place."""

    def __init__(self, taught_by: Teacher, student: nn.Module, device: torch.device) -> None:
        parts = [copy.deepcopy(taught_by.trunk), copy.deepcopy(student)]
        if taught_by.name in resnet.NAMES:  # the small teacher has no stage after its features
            parts.append(detector.initialise(teacher.build_last_stage(taught_by.name)))
        for module in parts:
            module.to(device).eval()
            for part in module.modules():
                if isinstance(part, nn.ReLU):
                    part.inplace = True
        self._trunk, self._student, *self._unread = parts

    def __call__(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        taught = self._trunk(x)
        for stage in self._unread:
            stage(taught[-1])
        return taught, self._student(taught)


def _added(taught: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor], size: tuple[int, int]) -> Map:
    """Interpolate 1 - cos of each scale and add the maps up on the host."""
    total = np.zeros(size)
    for taught_scale, rebuilt_scale in zip(taught, rebuilt, strict=True):
        distance = 1 - F.cosine_similarity(taught_scale, rebuilt_scale)  # (1, H, W)
        wide = F.interpolate(distance[:, None], size, mode="bilinear", align_corners=True)  # (1, 1, h, w)
        total += wide[0, 0].cpu().numpy()
    return total


def _fill(module: nn.Module, ours: nn.Module, unused: tuple[str, ...]) -> None:
    incompatible = module.load_state_dict(ours.state_dict(), strict=False)
    odd = incompatible.unexpected_keys + [key for key in incompatible.missing_keys if not key.startswith(unused)]
    if odd:
        raise RevdistError(f"rd4ad: the weights do not fit the official modules: {odd[0]}", hint="use --against rd4ad")


def _import(checkout: Path) -> types.SimpleNamespace:
    """Import the official modules. Packages for plots, metrics and data sets are not needed: empty ones stand in."""
    with _path(checkout):
        try:
            return types.SimpleNamespace(**{name: importlib.import_module(name) for name in _MODULES})
        except ImportError as error:
            raise RevdistError(
                f"rd4ad={checkout}: cannot be imported: {error}", hint="name a clone of github.com/hq-deng/RD4AD"
            ) from error


@contextmanager
def _path(checkout: Path) -> Iterator[None]:
    """Import from the checkout inside the context; modules of the same names are put back afterwards."""
    empty, before = {name: Empty(name) for name in _NOT_NEEDED}, dict(sys.modules)
    for name in _MODULES:  # the standard library has a module `test` too
        sys.modules.pop(name, None)
    sys.modules.update(empty)
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))
        for name in (*empty, *_MODULES):
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]


class Empty(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Empty(name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self
