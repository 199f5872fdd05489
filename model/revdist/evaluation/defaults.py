"""Defaults of `revdist sensitivity`. This file does not import torch, so that its --help answers quickly."""

from __future__ import annotations

PICTURES = 12  # that defects are painted on, which makes 588 inspections
