"""What a probe paints on unless it is told otherwise, apart from torch: `revdist sensitivity --help` is quick."""

from __future__ import annotations

PICTURES = 12  # which makes 588 inspections
