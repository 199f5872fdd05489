"""Copies from a GPU to the host, which only the caller waits for who asks for the result.

`tensor.cpu()` waits for all earlier work of the stream, so also for the next batch if that was begun already.
"""

from __future__ import annotations

import time

import torch

from revdist.engines.lanes import Later


class Copies:
    """Copies the results of batches that follow one another on the current stream of a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types here

    def begin(self, tensor: torch.Tensor) -> Later[torch.Tensor]:
        """Start a copy behind all work that computes the tensor. The next batch may begin at once.

        `result` waits for the copy, and raises RuntimeError if the GPU failed.
        """
        staged = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        staged.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # who waits leaves the processor alone
        done.record(torch.cuda.current_stream(self._device))
        ended_ns: list[int] = []

        def result() -> torch.Tensor:
            done.synchronize()
            ended_ns.append(time.perf_counter_ns())
            return staged

        return Later(result, lambda: ended_ns[0], lambda: not done.query())  # type: ignore[no-untyped-call]

    def of_finished(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor of a batch that has ended to the host, beside the batch that runs now."""
        with torch.cuda.stream(self._stream):
            return tensor.cpu()


def copies(device: torch.device) -> Copies | None:
    """Return the copies of a device; None where results lie on the host already."""
    return Copies(device) if device.type == "cuda" and torch.cuda.is_available() else None
