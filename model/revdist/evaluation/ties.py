"""Names pictures with equal scores: they look the same to the model, and prove no more than one picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from revdist.files import trouble

log = logging.getLogger("revdist")

_NAMED = 3


def tell(files: Sequence[str], scores: Sequence[float], who: str) -> None:
    """Warn of pictures whose scores are equal. `who`: what the pictures are, such as "held-out pictures"."""
    of_score: dict[float, list[str]] = {}
    for file, score in zip(files, scores, strict=True):
        of_score.setdefault(score, []).append(file)
    tied = [names for names in of_score.values() if len(names) > 1]
    if tied:
        told = ", ".join(" = ".join(trouble.shown(name) for name in names[:_NAMED]) for names in tied[:_NAMED])
        log.warning(
            "%d %s share their score with another, and prove no more than one of them: %s",
            sum(map(len, tied)), who, told,
        )  # fmt: skip
