"""Copies from a GPU to the host that nothing waits for but who asks for what was copied.

`tensor.cpu()` waits for all that the stream was given before; where the next batch was begun already, for that one too.
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
        """Copy what is computed by then, behind all that computes it. The next batch can be begun at once.

        Asking for the copy waits for it, and raises RuntimeError if the GPU failed.
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
        """A copy on the host of what a batch made whose results were waited for: beside the batch that runs by now."""
        with torch.cuda.stream(self._stream):
            return tensor.cpu()


def copies(device: torch.device) -> Copies | None:
    """None where what is computed lies on the host."""
    return Copies(device) if device.type == "cuda" and torch.cuda.is_available() else None
