"""Defaults of `revdist bench`. This file does not import torch, so that `revdist bench --help` answers quickly."""

from __future__ import annotations

PEER = "rd4ad"  # the paper's own loop
BATCHES = (1, 2, 4, 8)
PICTURE_PX = 900  # side of a camera's picture, pixels
SECONDS = 120.0  # for the rounds of all batch sizes together; every batch size has at least one round
