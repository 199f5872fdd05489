"""What `revdist bench` measures unless it is told otherwise, apart from torch: `revdist bench --help` is quick."""

from __future__ import annotations

PEER = "rd4ad"  # the paper's own loop
BATCHES = (1, 2, 4, 8)
PICTURE_PX = 900  # a side of what a camera gives
SECONDS = 120.0  # for the rounds of all batch sizes together; each has one round at least
