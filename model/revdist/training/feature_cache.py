"""Teacher features of the training pictures: computed once and kept where they fit, else at each step.

N pictures, B pictures of a step, C H W of a feature map.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from revdist.data import images
from revdist.engines import free_threads
from revdist.engines.engine import Engine

log = logging.getLogger("revdist")

CACHE_SHARE = 0.5  # share of the free memory


class Source:
    """Features of the training pictures: computed once and kept where they fit, else at each step."""

    CHUNK = 8

    def __init__(self, engine: Engine, pictures: Sequence[images.Pixels]) -> None:
        self._engine, self._pictures = engine, pictures
        self._cache: tuple[torch.Tensor, ...] | None = None
        example = engine.features(pictures[:1])
        needed = _bytes(example) * len(pictures)
        if fits(engine, example, len(pictures)):
            self._cache = tuple(
                feature_map.new_empty((len(pictures), *feature_map.shape[2:], feature_map.shape[1]))
                for feature_map in example
            )
            for start in range(0, len(pictures), self.CHUNK):
                free_threads.adapt()
                chunk = engine.features(pictures[start : start + self.CHUNK])
                for kept, feature_map in zip(self._cache, chunk, strict=True):
                    kept[start : start + len(feature_map)] = feature_map.permute(0, 2, 3, 1)  # (b, H, W, C)
        log.info(
            "teacher features of %d pictures at %dx%d: %.1f GB, %s",
            len(pictures), *pictures[0].shape[:2], needed / 1e9, "kept" if self._cache else "computed at each step",
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._pictures)

    def features(self, rows: list[int]) -> Sequence[torch.Tensor]:
        """Return three maps (B, C, H, W) of these pictures, channels last, without gradients."""
        if self._cache is None:
            return self._engine.features([self._pictures[row] for row in rows])
        index = torch.tensor(rows, device=self._engine.device)
        return [kept[index].permute(0, 3, 1, 2) for kept in self._cache]


def fits(engine: Engine, maps: Sequence[torch.Tensor], pictures: int) -> bool:
    """Whether features of so many pictures fit into memory; `maps`: the features of a few pictures."""
    return _bytes(maps) * pictures <= CACHE_SHARE * free_memory_bytes(engine.device)


def _bytes(maps: Sequence[torch.Tensor]) -> int:
    """Return the bytes of one picture's maps."""
    return sum(feature_map[0].numel() * feature_map.element_size() for feature_map in maps)


def free_memory_bytes(device: torch.device) -> int:
    """Return the free memory in bytes: of the CUDA device, else of the machine and its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no limit, or no control groups here
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return free
