"""Read weights files without executing a pickle, and check them against a network, tensor by tensor."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from revdist.errors import RevdistError
from revdist.files import trouble

Kind = type[RevdistError]


def read(path: Path, kind: Kind) -> tuple[bytes, Any]:
    """Read a .safetensors, .pth or .pt file: its bytes and its value. Raises `kind`, also for a pickle with code."""
    import safetensors.torch  # imported here: an engine that reads no file does not need it

    if wrong := trouble.why_not_file(path):
        raise kind(f"{trouble.shown(path)}: cannot read the weights: {wrong.cause}", hint=wrong.hint)
    try:
        content = path.read_bytes()
    except trouble.FILE_ERRORS as error:
        raise kind(f"{trouble.shown(path)}: cannot read the weights: {trouble.explain(error, path).cause}") from error
    try:
        if path.suffix == ".safetensors":
            return content, safetensors.torch.load(content)
        return content, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise kind(f"{path}: not a readable weights file: {error}", hint="fetch it again") from error


def state_dict(value: Any, what: str, kind: Kind) -> dict[str, torch.Tensor]:
    """Return the value as a state dict. Raises `kind` if it is none."""
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise kind(f"{what}: not a state dict", hint="names and tensors are expected")
    return value


def fill(
    module: nn.Module, state: Mapping[str, torch.Tensor], what: str, kind: Kind, *, unused: tuple[str, ...], hint: str
) -> None:
    """Load strictly: of unexpected names, only those that begin with one of `unused` are dropped.

    The module may be on torch's meta device, without weights of its own; it takes over the tensors of `state`.
    Raises `kind`, with the names of tensors that are missing, unexpected, of a wrong shape or not finite.
    """
    wanted = module.state_dict()
    kept = {key: value for key, value in state.items() if key in wanted or not key.startswith(unused)}
    missing, unexpected = sorted(set(wanted) - set(kept)), sorted(set(kept) - set(wanted))
    if missing or unexpected:
        parts = [f"missing {_some(missing)}"] * bool(missing) + [f"unexpected {_some(unexpected)}"] * bool(unexpected)
        raise kind(f"{what}: {'; '.join(parts)}", hint=hint)
    odd = [
        f"{key} {tuple(kept[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if kept[key].shape != value.shape
    ]
    if odd:
        raise kind(f"{what}: wrong shapes: {_some(odd)}", hint=hint)
    check_finite(kept, what, kind, hint="the file is damaged, or its training failed")
    module.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in kept.items()}, assign=True)


def check_finite(state: Mapping[str, torch.Tensor], what: str, kind: Kind, *, hint: str) -> None:
    """Check that weights are finite, else raise `kind`: a fused ReLU would hide NaN, its maximum of NaN and 0 is 0."""
    suspects = {key: value for key, value in state.items() if not value.sum().isfinite()}  # or a sum that overflows
    odd = sorted(key for key, value in suspects.items() if not value.isfinite().all())
    if odd:
        raise kind(f"{what}: weights that are not finite: {_some(odd)}", hint=hint)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
