"""Copy a network to its device for inference: batch norms folded into the convolutions, channels last."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from revdist.errors import RevdistError

Module = TypeVar("Module", bound=nn.Module)


def optimise(module: Module, device: torch.device, dtype: torch.dtype = torch.float32) -> Module:
    """Make a copy for inference: evaluation mode, batch norms folded in float32, channels last, on the device."""
    network = copied(module, device).eval()
    fold_batch_norms(network)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.weight = _frozen(part.weight.to(dtype).contiguous(memory_format=torch.channels_last))
            part.bias = None if part.bias is None else _frozen(part.bias.to(dtype))
    return network


def copied(module: Module, device: torch.device) -> Module:
    """Copy a module and its tensors to the device. deepcopy and `to` would fail in FakeTensorMode."""
    twin = copy.copy(module)
    tensors, buffers = module._parameters.items(), module._buffers.items()
    twin._parameters = {name: None if tensor is None else _frozen(_twin(tensor, device)) for name, tensor in tensors}
    twin._buffers = {name: None if buffer is None else _twin(buffer, device) for name, buffer in buffers}
    twin._modules = {name: None if part is None else copied(part, device) for name, part in module._modules.items()}
    return twin


def _twin(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    order = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
    return tensor.to(device, copy=True, memory_format=order)


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution registered right before it, in place. None may remain.

    A transposed convolution folds over dim 1 of its weight (in, out, k, k).
    """
    for parent in list(module.modules()):
        before: nn.Module | None = None
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.BatchNorm2d):
                assert isinstance(before, nn.Conv2d | nn.ConvTranspose2d), f"no convolution before {name}"
                _fold(before, part)
                setattr(parent, name, nn.Identity())
            before = part


@torch.no_grad()
def _fold(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    """Fold a batch norm in place: to copy large weights costs more than the multiplication."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = torch.rsqrt(norm.running_var + norm.eps) * norm.weight  # (out,)
    shape = (1, -1, 1, 1) if isinstance(convolution, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    convolution.weight.mul_(gain.reshape(shape))
    bias = 0.0 if convolution.bias is None else convolution.bias
    convolution.bias = _frozen((bias - norm.running_mean) * gain + norm.bias)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor, or a copy, on the device. Raises RevdistError for a missing device."""
    try:
        return tensor.to(device)
    except (RuntimeError, AssertionError) as error:  # torch has no error class for a missing device
        raise RevdistError(f"engine: cannot use device {device}: {error}", hint="use cpu or auto") from error
