"""bfloat16 on processors that have none: computed in float32, rounded where those that have it round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import torch

from revdist.engines import backend, recording
from revdist.engines.processor import fused, packed


class Convolution(packed.Convolution):
    """What oneDNN's convolution gives: sums, bias and activation are float32, maps and weights are not."""

    def __init__(self, plain: recording.Convolution, dtype: torch.dtype, *, overwrites: bool = False) -> None:
        self.dtype = dtype
        exact = replace(plain, weight=plain.weight.to(dtype).float())
        super().__init__(exact, torch.float32, overwrites=overwrites)
        if self._bias_of_sum is not None:
            self._bias_of_sum = self._bias_of_sum.to(dtype).float()

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        assert x.dtype is self.dtype, "maps come in the precision that they are read in"
        other = None if other is None else other.float()
        return super().__call__(x.float(), other).to(self.dtype)


@contextmanager
def bfloat16() -> Iterator[None]:
    """Engines that are made meanwhile have it."""
    computes = mock.patch.object(backend, "computes", return_value=True)
    with mock.patch.object(fused, "Convolution", Convolution), computes:
        yield
